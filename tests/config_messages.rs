//! Each bad configuration in `tests/config` against the messages it must bring.
//!
//! `main/NAME.toml` is a main file, `customer/NAME.toml` a customer's file beside a good main file, `whole/NAME/` a whole
//! configuration. What is expected stands beside it, with the extension `expected`. With `UPDATE_EXPECTED=1` in the
//! environment the expectations are written anew: read the difference before you commit it.

use relaykeeper::config::{self, Style};
use std::fs;
use std::path::{Path, PathBuf};

const GOOD_MAIN: &str = "[listen]\npolicy = [\"inet:127.0.0.1:10023\"]\n[relay]\nhostname = \"relay.example.net\"\n";
const GOOD_CUSTOMER: &str = "name = \"good\"\ndomains = [\"good.example\"]\nlicenses = 1\n\
    [[setting]]\nname = \"login\"\nallowed_senders = \"own-domains\"\nrequire_auth = true\n";

#[test]
fn main_files() {
    each_case("main", |case, folder| {
        fs::copy(case, folder.join("relaykeeper.toml")).unwrap();
        fs::create_dir(folder.join("customers.d")).unwrap();
        fs::write(folder.join("customers.d/good.toml"), GOOD_CUSTOMER).unwrap();
    });
}

#[test]
fn customer_files() {
    each_case("customer", |case, folder| {
        fs::write(folder.join("relaykeeper.toml"), GOOD_MAIN).unwrap();
        fs::create_dir(folder.join("customers.d")).unwrap();
        fs::copy(case, folder.join("customers.d/bad.toml")).unwrap();
    });
}

#[test]
fn whole_configurations() {
    each_case("whole", copy_folder);
}

fn each_case(kind: &str, prepare: impl Fn(&Path, &Path)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind);
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.extension().is_none_or(|extension| extension != "expected"));
    cases.sort();
    assert!(cases.len() >= 5, "the cases are not where they should be");
    let wrong: Vec<String> = cases.iter().filter_map(|case| difference(case, &prepare)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(case: &Path, prepare: impl Fn(&Path, &Path)) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    prepare(case, folder.path());
    let (problems, _) = config::check(&folder.path().join("relaykeeper.toml"));
    let mut messages = problems.render(Style::Plain);
    messages.push_str("--\n");
    for problem in problems.iter() {
        messages.push_str(&format!("{problem}\n"));
    }
    messages.push_str(&format!("--\n{}\n", problems.summary()));
    let messages = messages.replace(&format!("{}/", folder.path().display()), "");

    let file = case.with_extension("expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(file, messages).unwrap();
        return None;
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    (messages != expected).then(|| format!("=== {}\n--- expected\n{expected}--- found\n{messages}", case.display()))
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
