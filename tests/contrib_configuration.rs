//! The example configuration is good, and says what the defaults are.

use relaykeeper::config::{self, LimitKey, Settings};
use std::fs;
use std::path::Path;

fn settings(main: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("customers.d")).unwrap();
    fs::write(folder.path().join("relaykeeper.toml"), main).unwrap();
    let loaded = config::load(&folder.path().join("relaykeeper.toml")).unwrap();
    let mut settings = Settings::clone(&loaded.settings);
    settings.relay.customers = "customers.d".into();
    settings
}

#[test]
fn the_example_has_no_errors_and_no_warnings() {
    let (problems, loaded) = config::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/relaykeeper.toml"));
    assert!(problems.is_empty(), "{}", problems.render(config::Style::Plain));
    let directory = loaded.unwrap().directory;
    let acme = directory.customer("acme").unwrap();
    assert_eq!((acme.users.len(), acme.settings.len()), (4, 2));
    assert_eq!(acme.users.find("kim@partner.example").map(|user| &*user.address), Some("kim@acme.example"));
}

#[test]
fn values_in_the_example_are_the_defaults_unless_it_says_otherwise() {
    let example = settings(include_str!("../contrib/relaykeeper.toml"));
    let mut expected = settings("[relay]\nhostname = \"relay.example.net\"\n");
    expected.listen = example.listen.clone();
    expected.mail.from = example.mail.from.clone();
    expected.mail.route = example.mail.route.clone();
    assert_eq!(example, expected);
    assert_eq!(expected.listen.socket_mode, settings("").listen.socket_mode);
}

/// `#key = value`
#[test]
fn what_is_commented_out_would_be_good_too() {
    let example = include_str!("../contrib/relaykeeper.toml");
    let is_key =
        |line: &str| line == "[abuse]" || line.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(" = ");
    let uncommented: Vec<&str> = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
        .map(|line| if line.starts_with("backend") { "backend = \"redis\"" } else { line })
        .filter(|line| !line.starts_with("sync"))
        .collect();
    let defaults = settings("[abuse]\nstripped = true").abuse;
    let settings = settings(&uncommented.join("\n"));
    assert!(settings.abuse == defaults && defaults.is_some());
    let is_redis = matches!(settings.store, config::Store::Redis { on_outage: config::OnOutage::Local, .. });
    assert!(is_redis && settings.limits.rule(LimitKey::LoginMessages).in_force(1).max == Some(5_000));
    assert_eq!(settings.limits.rule(LimitKey::MessageBytes).in_force(1).max, Some(52_428_800));
    assert!(settings.listen.http.is_some());
}
