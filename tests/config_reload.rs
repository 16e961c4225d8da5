//! What a running daemon does with files that change under it: good ones are taken over, bad ones harm nobody.

use relaykeeper::config::{self, BadFile, Changes, Configuration, InUse, NoCustomers, Problems};
use relaykeeper::directory::Owner;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A configuration on disk, and what is loaded of it.
struct Site {
    folder: TempDir,
    loaded: Option<Configuration>,
}

impl Site {
    fn new(customers: &[(&str, &str)]) -> Site {
        let site = Site { folder: tempfile::tempdir().unwrap(), loaded: None };
        fs::create_dir(site.folder.path().join("customers.d")).unwrap();
        site.write("relaykeeper.toml", MAIN);
        for (file, text) in customers {
            site.write_customer(file, text);
        }
        site
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn write_customer(&self, file: &str, text: &str) {
        self.write(&format!("customers.d/{file}.toml"), text);
    }

    fn remove_customer(&self, file: &str) {
        fs::remove_file(self.folder.path().join(format!("customers.d/{file}.toml"))).unwrap();
    }

    fn main(&self) -> PathBuf {
        self.folder.path().join("relaykeeper.toml")
    }

    fn load(&mut self) {
        self.loaded = Some(config::load(&self.main()).unwrap());
    }

    fn reload(&mut self) -> Changes {
        let (loaded, changes) = config::reload(self.loaded(), &self.main(), NoCustomers::Refuse).unwrap();
        self.loaded = Some(loaded);
        changes
    }

    fn loaded(&self) -> &Configuration {
        self.loaded.as_ref().unwrap()
    }

    fn problems(&self) -> Vec<String> {
        self.loaded().problems.iter().map(|problem| problem.title.clone()).collect()
    }

    /// Whose domain it is now.
    fn owner(&self, domain: &str) -> String {
        match self.loaded().directory.owner_of_domain(domain).map(|claim| claim.owner) {
            Some(Owner::Customer(customer)) => customer.name.to_string(),
            Some(Owner::Unusable) => "unusable".into(),
            None => "nobody".into(),
        }
    }

    /// The customers whose last good copies are kept, and how many files have none.
    fn bad_files(&self) -> (Vec<String>, usize) {
        let bad = &self.loaded().bad_files;
        let last_good = |bad: &BadFile| match &bad.in_use {
            InUse::LastGood(name) => Some(name.to_string()),
            _ => None,
        };
        let kept: Vec<String> = bad.iter().filter_map(last_good).collect();
        let unusable = bad.len() - kept.len();
        (kept, unusable)
    }
}

const MAIN: &str = "[listen]\npolicy = [\"inet:127.0.0.1:10023\"]\n[relay]\nhostname = \"relay.example.net\"\n";

fn customer(name: &str, domains: &[&str], licenses: u32, rest: &str) -> String {
    format!(
        "name = \"{name}\"\ndomains = {domains:?}\nlicenses = {licenses}\n{rest}\n\
         [[setting]]\nname = \"login\"\nallowed_senders = \"own-domains\"\nrequire_auth = true\n"
    )
}

fn names(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(|name| &**name).collect()
}

#[test]
fn what_did_not_change_is_kept_as_it_is() {
    let mut site = Site::new(&[
        ("a", &customer("a", &["a.example"], 1, "")),
        ("b", &customer("b", &["b.example"], 1, "")),
        ("c", &customer("c", &["c.example"], 1, "")),
    ]);
    site.load();
    let before = site.loaded().directory.customer("a").unwrap().clone();
    site.write_customer("b", &customer("b", &["b.example"], 2, ""));
    site.remove_customer("c");
    site.write_customer("d", &customer("d", &["d.example"], 1, ""));
    let changes = site.reload();
    assert!(Arc::ptr_eq(&before, site.loaded().directory.customer("a").unwrap()));
    assert_eq!(
        (names(&changes.added), names(&changes.changed), names(&changes.removed)),
        (vec!["d"], vec!["b"], vec!["c"])
    );
    assert_eq!(site.loaded().directory.customer("b").unwrap().licenses, 2);
    assert_eq!((site.owner("c.example").as_str(), site.owner("d.example").as_str()), ("nobody", "d"));
    assert_eq!(site.reload(), Changes::default(), "a second reload changes nothing");
}

#[test]
fn an_error_in_the_main_file_changes_nothing_at_all() {
    let mut site = Site::new(&[("a", &customer("a", &["a.example"], 1, ""))]);
    site.load();
    site.write("relaykeeper.toml", "[relay]\nhostname = 5\n");
    site.write_customer("b", &customer("b", &["b.example"], 1, ""));
    let error = |outcome: Result<(Configuration, Changes), Problems>| outcome.unwrap_err().errors();
    assert_eq!(error(config::reload(site.loaded(), &site.main(), NoCustomers::Refuse)), 1);
    fs::remove_file(site.main()).unwrap();
    assert_eq!(error(config::reload(site.loaded(), &site.main(), NoCustomers::Refuse)), 1);
    site.write("relaykeeper.toml", MAIN);
    fs::rename(site.folder.path().join("customers.d"), site.folder.path().join("elsewhere")).unwrap();
    assert_eq!(
        error(config::reload(site.loaded(), &site.main(), NoCustomers::Refuse)),
        1,
        "without its folder nobody is a customer"
    );
    assert!(config::load(&site.main()).is_err());
}

#[test]
fn a_bad_file_keeps_its_last_good_copy() {
    let mut site =
        Site::new(&[("a", &customer("a", &["a.example"], 1, "")), ("b", &customer("b", &["b.example"], 1, ""))]);
    site.load();
    let good = site.loaded().directory.customer("a").unwrap().clone();
    site.write_customer("a", "name = \"a\ndomains = [\"a.example\"");
    site.write_customer("b", &customer("b", &["b.example"], 9, ""));
    let changes = site.reload();
    assert_eq!(names(&changes.changed), ["b"]);
    assert!(Arc::ptr_eq(&good, site.loaded().directory.customer("a").unwrap()));
    assert_eq!(site.bad_files(), (vec!["a".into()], 0));
    assert!(site.loaded().problems.errors() > 0);

    site.reload();
    assert_eq!(site.bad_files(), (vec!["a".into()], 0), "it is still bad, and still kept");
    site.write_customer("a", &customer("a", &["a.example"], 5, ""));
    assert_eq!(names(&site.reload().changed), ["a"]);
    assert_eq!(site.bad_files(), (vec![], 0));
    assert!(site.problems().is_empty());
}

#[test]
fn a_file_that_was_never_good_makes_its_domains_unusable_and_nobody_elses() {
    let mut site = Site::new(&[
        ("a", "name = \"a\ndomains = [\"a.example\"]\n[[user]]\naddress = \"kim@a.example\"\nlogins = [\"kim\"]\n"),
        ("b", &customer("b", &["b.example"], 1, "")),
    ]);
    site.load();
    assert_eq!((site.owner("mx.a.example").as_str(), site.owner("b.example").as_str()), ("unusable", "b"));
    assert!(site.loaded().directory.is_unusable_login("kim"));
    assert!(!site.loaded().directory.is_incomplete());
    assert_eq!(site.bad_files(), (vec![], 1));

    site.write_customer("a", "name = \"a\"\ndomains = [\"a.example\n");
    site.reload();
    assert!(site.loaded().directory.is_incomplete(), "whose the domain is cannot be read");
    site.write_customer("a", &customer("a", &["a.example"], 1, ""));
    assert_eq!(names(&site.reload().added), ["a"]);
    assert!(!site.loaded().directory.is_incomplete());
}

#[test]
fn who_had_a_domain_keeps_it() {
    let mut site = Site::new(&[
        ("m", &customer("m", &["m.example", "shared.example"], 1, "")),
        ("z", &customer("z", &["z.example"], 1, "")),
    ]);
    site.load();
    // A new file, first by name, and one that changed: both want what m has.
    site.write_customer("a", &customer("a", &["a.example", "shared.example"], 1, ""));
    site.write_customer("z", &customer("z", &["z.example", "shared.example"], 7, ""));
    let changes = site.reload();
    assert_eq!(changes, Changes::default());
    assert_eq!((site.owner("shared.example").as_str(), site.owner("a.example").as_str()), ("m", "unusable"));
    assert_eq!(site.owner("z.example"), "z");
    assert_eq!(site.loaded().directory.customer("z").unwrap().licenses, 1, "the last good copy");
    assert_eq!(site.bad_files(), (vec!["z".into()], 1));
    assert_eq!(site.problems().len(), 2);

    // When m gives it up, the one that is known has it before the newcomer.
    site.write_customer("m", &customer("m", &["m.example"], 1, ""));
    site.reload();
    assert_eq!(site.owner("shared.example"), "z");
}

#[test]
fn at_the_first_load_the_first_file_by_name_has_a_domain() {
    let shared = |name: &str| customer(name, &["shared.example"], 1, "");
    let mut site = Site::new(&[("b", &shared("b")), ("a", &shared("a"))]);
    site.load();
    assert_eq!(site.owner("shared.example"), "a");
    assert_eq!(site.bad_files(), (vec![], 1));
    site.remove_customer("a");
    site.reload();
    assert_eq!(site.owner("shared.example"), "b");
}

#[test]
fn a_domain_moves_from_one_customer_to_another_in_one_reload() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let own = |name: &str| format!("{name}.example");
        let mut site = Site::new(&[
            (from, &customer(from, &[&own(from), "moving.example"], 1, "")),
            (to, &customer(to, &[&own(to)], 1, "")),
        ]);
        site.load();
        site.write_customer(from, &customer(from, &[&own(from)], 1, ""));
        site.write_customer(to, &customer(to, &[&own(to), "moving.example"], 1, ""));
        site.reload();
        assert_eq!(site.owner("moving.example"), to);
        assert!(site.problems().is_empty(), "{:?}", site.problems());
    }
}

#[test]
fn a_kept_copy_comes_before_a_new_claim() {
    let mut site = Site::new(&[
        ("a", &customer("a", &["a.example"], 1, "")),
        ("b", &customer("b", &["b.example", "x.example"], 1, "")),
    ]);
    site.load();
    // b meant to give x.example to a, but its file is broken: it still has it.
    site.write_customer("a", &customer("a", &["a.example", "x.example"], 1, ""));
    site.write_customer("b", "licenses = \"many\"");
    site.reload();
    assert_eq!((site.owner("x.example").as_str(), site.owner("a.example").as_str()), ("b", "a"));
    assert_eq!(site.bad_files(), (vec!["a".into(), "b".into()], 0));
}

#[test]
fn a_users_file_is_a_part_of_its_customer() {
    let mut site = Site::new(&[("a", &customer("a", &["a.example"], 1, "users_file = \"a.users\""))]);
    site.write("customers.d/a.users", "ann@a.example\n");
    site.load();
    let count = |site: &Site| site.loaded().directory.customer("a").unwrap().users.len();
    assert_eq!(count(&site), 1);
    site.write("customers.d/a.users", "ann@a.example\nkim@a.example k@a.example\n");
    assert_eq!(names(&site.reload().changed), ["a"]);
    assert_eq!(count(&site), 2);
    site.write("customers.d/a.users", "ann\n");
    assert_eq!(site.reload(), Changes::default());
    assert_eq!((count(&site), site.bad_files()), (2, (vec!["a".into()], 0)));
    fs::remove_file(site.folder.path().join("customers.d/a.users")).unwrap();
    site.reload();
    assert_eq!(count(&site), 2);
}

#[test]
fn new_limits_of_the_installation_reach_customers_whose_files_did_not_change() {
    let mut site = Site::new(&[("a", &customer("a", &["a.example"], 1, "limits.warn_at = [50]"))]);
    site.load();
    site.write("relaykeeper.toml", &format!("{MAIN}[limits]\ntransaction.recipients = 7\n"));
    assert_eq!(names(&site.reload().changed), ["a"]);
    let limits = &site.loaded().directory.customer("a").unwrap().limits;
    assert_eq!((limits.transaction_recipients.max, &limits.warn_at[..]), (Some(7), &[50][..]));
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let mut site = Site::new(&[]);
    site.load();
    let other = "[listen]\npolicy = [\"inet:127.0.0.1:10024\"]\nsocket_mode = \"0600\"\n\
        [relay]\nhostname = \"other.example.net\"\n[store]\npath = \"/elsewhere\"\n[log]\nlevel = \"debug\"\n";
    site.write("relaykeeper.toml", other);
    assert_eq!(site.reload().need_restart, ["listen.policy", "listen.socket_mode", "store.path"]);
    assert_eq!(site.loaded().settings.relay.hostname, "other.example.net");
}

/// A customer whose user sends through a gateway, with a password in this file.
fn with_password(name: &str, file: &str) -> String {
    let user = format!(
        "[[user]]\naddress = \"kim@{name}.example\"\n[[user.sender]]\naddress = \"kim@{name}-partner.example\"\n\
         gateway = \"[smtp.partner.example]:587\"\nusername = \"kim\"\npassword_file = \"{file}\"\n"
    );
    customer(name, &[&format!("{name}.example")], 1, "user_gateways = true") + &user
}

fn write_password(site: &Site, file: &str) {
    site.write(&format!("customers.d/{file}"), "s3cret\n");
    let path = site.folder.path().join("customers.d").join(file);
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_password_file_stays_with_the_customer_that_had_it() {
    for link in ["same name", "symlink", "hard link"] {
        let mut site =
            Site::new(&[("b", &with_password("b", "b.password")), ("c", &customer("c", &["c.example"], 1, ""))]);
        write_password(&site, "b.password");
        site.load();
        assert!(site.problems().iter().all(|title| title.contains("no effect")), "{:?}", site.problems());
        let own = site.folder.path().join("customers.d/b.password");
        let other = match link {
            "symlink" => std::os::unix::fs::symlink(&own, site.folder.path().join("customers.d/link")).map(|()| "link"),
            "hard link" => fs::hard_link(&own, site.folder.path().join("customers.d/link")).map(|()| "link"),
            _ => Ok("b.password"),
        }
        .unwrap();
        // One that is new and first by name, and one that had none before.
        site.write_customer("a", &with_password("a", other));
        site.write_customer("c", &with_password("c", other));
        site.reload();
        assert_eq!(site.bad_files(), (vec!["c".into()], 1), "{link}");
        assert_eq!(["a.example", "b.example", "c.example"].map(|domain| site.owner(domain)), ["unusable", "b", "c"]);
        assert!(site.loaded().directory.further_sender("kim@c-partner.example").is_none(), "the copy without it");

        site.load();
        assert_eq!(site.bad_files(), (vec![], 3), "{link}: at a start nobody knows whose it was");
        site.remove_customer("a");
        site.remove_customer("c");
        site.load();
        assert_eq!(site.owner("b.example"), "b");
    }
}

#[test]
fn a_password_file_moves_from_one_customer_to_another_in_one_reload() {
    let mut site = Site::new(&[("a", &with_password("a", "password")), ("b", &customer("b", &["b.example"], 1, ""))]);
    write_password(&site, "password");
    site.load();
    site.write_customer("a", &customer("a", &["a.example"], 1, ""));
    site.write_customer("b", &with_password("b", "password"));
    site.reload();
    assert_eq!(site.bad_files(), (vec![], 0), "{:?}", site.problems());

    // It goes back with a file that also takes what is b's: a has to do with its last good copy, and b keeps it.
    site.write_customer("a", &with_password("a", "password").replace("\"a.example\"", "\"a.example\", \"b.example\""));
    site.write_customer("b", &customer("b", &["b.example"], 2, ""));
    site.reload();
    assert_eq!(site.bad_files().0, ["a"]);
    assert_eq!(site.loaded().directory.customer("b").unwrap().licenses, 2);
}

#[test]
fn a_users_file_belongs_to_one_customer() {
    let users =
        |name: &str| customer(name, &["shared.example", &format!("{name}.example")], 1, "users_file = \"users\"");
    let mut site = Site::new(&[("a", &users("a"))]);
    site.write("customers.d/users", "ann@shared.example\n");
    site.load();
    site.write_customer("b", &users("b").replace("\"shared.example\", ", ""));
    site.reload();
    assert_eq!((site.owner("a.example"), site.owner("b.example")), ("a".into(), "unusable".into()));
}

#[test]
fn a_password_that_a_users_file_names_is_never_shown() {
    let mut site = Site::new(&[
        ("a", &with_password("a", "password")),
        ("b", &customer("b", &["b.example"], 1, "users_file = \"password\"")),
        ("c", &with_password("c", "c.password").replace("user_gateways", "users_file = \"c.password\"\nuser_gateways")),
    ]);
    write_password(&site, "password");
    write_password(&site, "c.password");
    site.load();
    assert_eq!((site.bad_files(), site.owner("a.example")), ((vec![], 2), "a".into()));
    let shown = site.loaded().problems.render(config::Style::Plain);
    assert!(!shown.contains("s3cret") && shown.contains("is a password_file, too"), "{shown}");
}
