//! `relaykeeper check` and `relaykeeper export` as they are typed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const CUSTOMER: &str = r#"
name = "acme"
domains = ["acme.example"]
licenses = 10

[[setting]]
name = "head office"
allowed_senders = "own-domains"
[[setting.ip]]
range = "198.51.100.0/23"
[[setting.ip]]
range = "192.0.2.64/30"
[[setting.ip]]
range = "2001:db8:1::/48"
[[setting.ip]]
range = "203.0.113.0/24"
enabled = false

[[setting]]
name = "laptops, also from the office"
allowed_senders = "own-domains"
require_auth = true
[[setting.ip]]
range = "192.0.2.0/24"

[[setting]]
name = "closed"
enabled = false
allowed_senders = "any"
[[setting.ip]]
range = "10.0.0.0/24"
"#;

fn site(customer: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("customers.d")).unwrap();
    fs::create_dir(folder.path().join("store")).unwrap();
    write_main(&folder, "policy = [\"inet:127.0.0.1:0\"]\n", "");
    fs::write(folder.path().join("customers.d/acme.toml"), customer).unwrap();
    let same = "name = \"b\"\ndomains = [\"b.example\"]\nlicenses = 1\n[[setting]]\nname = \"office\"\n\
        allowed_senders = \"own-domains\"\n[[setting.ip]]\nrange = \"198.51.100.0/23\"\n";
    fs::write(folder.path().join("customers.d/b.toml"), same).unwrap();
    folder
}

/// A main file with these keys below `[listen]`, and then the rest.
fn write_main(folder: &TempDir, listen: &str, rest: &str) {
    let store = folder.path().join("store");
    let text =
        format!("[listen]\n{listen}[store]\npath = \"{}\"\n[mail]\nsendmail = \"/bin/true\"\n{rest}", store.display());
    fs::write(folder.path().join("relaykeeper.toml"), text).unwrap();
}

fn relaykeeper(folder: &Path, arguments: &[&str]) -> Output {
    let config = folder.join("relaykeeper.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
    command.args(arguments).arg("--config").arg(config).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The lines that are no comment.
fn entries(table: &str) -> Vec<&str> {
    table.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let output = relaykeeper(site(CUSTOMER).path(), &["check"]);
    assert_eq!(output.status.code(), Some(0));
    let summary = "configuration is good: 2 customers, 2 domains, 0 users (1 warning)\n";
    assert_eq!(text(&output.stdout), summary);
    assert!(text(&output.stderr).starts_with("warning: the range 198.51.100.0/23 belongs to two customers\n"));
}

#[test]
fn a_bad_configuration_shows_every_error_and_exits_1() {
    let output = relaykeeper(site("name = \"acme\"\nlicences = 1\n").path(), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "2 errors, 1 warning\n");
    let errors = text(&output.stderr);
    assert!(errors.contains("customers.d/acme.toml:2:1") && errors.contains("`licenses`"), "{errors}");
    assert!(!errors.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn a_missing_main_file_is_one_clear_error() {
    let output = relaykeeper(Path::new("/nonexistent"), &["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nonexistent/relaykeeper.toml"));
}

#[test]
fn postfix_gets_a_cidr_table() {
    let output = relaykeeper(site(CUSTOMER).path(), &["export", "postfix-cidr"]);
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert_eq!(entries(table), ["192.0.2.64/30 OK", "198.51.100.0/23 OK", "2001:db8:1::/48 OK"]);
    assert!(table.contains("# acme, head office\n# b, office\n198.51.100.0/23 OK\n"), "{table}");
    assert!(table.contains("# left out, because it also requires SMTP AUTH: acme, laptops, also from the office\n"));
}

#[test]
fn sendmail_gets_an_access_map() {
    let output = relaykeeper(site(CUSTOMER).path(), &["export", "sendmail-access"]);
    assert_eq!(output.status.code(), Some(0));
    let expected = [
        "Connect:192.0.2.64 RELAY",
        "Connect:192.0.2.65 RELAY",
        "Connect:192.0.2.66 RELAY",
        "Connect:192.0.2.67 RELAY",
        "Connect:198.51.100 RELAY",
        "Connect:198.51.101 RELAY",
        "Connect:IPv6:2001:db8:1 RELAY",
    ];
    assert_eq!(entries(text(&output.stdout)), expected);
}

#[test]
fn nothing_is_exported_of_a_bad_configuration() {
    let output = relaykeeper(site("licenses = 0").path(), &["export", "postfix-cidr"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("nothing is exported"));
}

#[test]
fn a_password_that_others_can_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let customer = "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 1\nuser_gateways = true\n\
        [[setting]]\nname = \"login\"\nallowed_senders = \"registered-users\"\nrequire_auth = true\n\
        [[user]]\naddress = \"kim@acme.example\"\n[[user.sender]]\naddress = \"kim@partner.example\"\n\
        gateway = \"[smtp.partner.example]:587\"\nusername = \"kim\"\npassword_file = \"kim-partner\"\n";
    let folder = site(customer);
    let password = folder.path().join("customers.d/kim-partner");
    fs::write(&password, "secret\n").unwrap();
    for (mode, code) in [(0o600, 0), (0o640, 0), (0o400, 0), (0o644, 1), (0o660, 1), (0o604, 1)] {
        fs::set_permissions(&password, fs::Permissions::from_mode(mode)).unwrap();
        let output = relaykeeper(folder.path(), &["check"]);
        assert_eq!(output.status.code(), Some(code), "{mode:o}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr).contains("chmod 0640"), code == 1);
        assert!(!text(&output.stderr).contains("secret"));
    }
}

/// What `check` says without the folder's name, and its exit code.
fn check(folder: &TempDir) -> (String, Option<i32>) {
    let output = relaykeeper(folder.path(), &["check"]);
    (text(&output.stderr).replace(&format!("{}/", folder.path().display()), ""), output.status.code())
}

fn own(path: &Path, user: u32, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Only root can ask for somebody else.
#[test]
fn a_file_that_the_daemons_user_cannot_read_is_an_error_also_for_root() {
    const DAEMON: u32 = 1; // everywhere, and nobody runs tests as it
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = site(
        "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 1\n[[setting]]\nname = \"office\"\n\
        allowed_senders = \"own-domains\"\n[[setting.ip]]\nrange = \"198.51.100.0/23\"\n",
    );
    own(folder.path(), 0, 0o755);
    own(&folder.path().join("store"), DAEMON, 0o750);
    let explain = |folder: &TempDir| {
        let transaction =
            ["explain", "--client", "198.51.100.7", "--sender", "kim@acme.example", "--recipient", "x@y.example"];
        let output = relaykeeper(folder.path(), &transaction);
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    };
    let (words, code) = check(&folder);
    assert_eq!(code, Some(0), "{words}");
    let acme = folder.path().join("customers.d/acme.toml");
    own(&acme, 0, 0o600);
    let (words, code) = check(&folder);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("customers.d/acme.toml\" cannot be read: permission denied for user"), "{words}");
    assert!(words.contains("run: chgrp"), "{words}");
    let words = explain(&folder);
    assert!(words.contains("451") && words.contains("acme.toml: there is no good copy"), "as the daemon: {words}");

    own(&acme, 0, 0o644);
    own(&folder.path().join("customers.d"), 0, 0o700);
    let (words, code) = check(&folder);
    assert!(code == Some(1) && words.contains("customers.d"), "{words}");
    own(&folder.path().join("customers.d"), 0, 0o755);
    fs::write(folder.path().join("store/administration.json"), "{}").unwrap();
    own(&folder.path().join("store/administration.json"), 0, 0o640);
    let (words, code) = check(&folder);
    assert!(code == Some(1) && words.contains("administration.json") && words.contains("run: chown"), "{words}");
}

#[test]
fn what_a_start_needs_is_checked_and_nothing_is_created() {
    let folder = site(CUSTOMER);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let _taken = std::os::unix::net::UnixListener::bind(path("taken.sock")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(path("file"), "").unwrap();
    let unix = |name: &str| format!("\"unix:{}\"", path(name));
    let lists = format!("milter = [{}, {}]\n", unix("none/milter.sock"), unix("file"))
        + &format!("policy = [{}, \"inet:{}\"]\n", unix("taken.sock"), port.local_addr().unwrap())
        + &format!("socketmap = [{}]\nsocket_group = \"no-such-group\"\n", unix("free.sock"));
    write_main(&folder, &lists, "");
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.extend(fs::read_dir(path("store")).unwrap().map(|entry| entry.unwrap().file_name()));
        names.sort();
        names
    };
    let before = listing();
    let (words, code) = check(&folder);
    assert_eq!(code, Some(1), "{words}");
    for expected in [
        "none does not exist",
        "a file is there already that is not a socket",
        "taken.sock: it is in use by a running process",
        &format!("inet:{}: it is in use by a running process", port.local_addr().unwrap()),
        "there is no group \"no-such-group\"",
        "relaykeeper.toml:2:11",
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    assert!(!words.contains("free.sock: "), "{words}");
    assert_eq!(listing(), before);
    let files = relaykeeper(folder.path(), &["check", "--files-only"]);
    assert_eq!(files.status.code(), Some(0), "{}", text(&files.stderr));

    write_main(&folder, "policy = [\"inet:127.0.0.1:0\"]\n", "[relay]\nuser = \"no-such-user\"\n");
    let (words, code) = check(&folder);
    assert!(code == Some(1) && words.contains("there is no user \"no-such-user\""), "{words}");
    write_main(&folder, "policy = [\"inet:127.0.0.1:0\"]\n", "");
    fs::remove_dir(path("store")).unwrap();
    let (words, code) = check(&folder);
    assert!(code == Some(1) && words.contains("store does not exist") && words.contains("install -d"), "{words}");
    assert!(!folder.path().join("store").exists());
}
