//! The manual pages name every command and option, and their examples are good.

use clap::{Command, CommandFactory};
use relaykeeper::cli::Arguments;
use relaykeeper::config::{self, Style};
use relaykeeper::doctor;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const DAEMON: &str = include_str!("../man/relaykeeper.8");
const CONFIGURATION: &str = include_str!("../man/relaykeeper.toml.5");

#[test]
fn every_command_and_option_is_in_the_manual() {
    let mut missing = Vec::new();
    collect_missing(&Arguments::command(), "", &mut missing);
    assert!(missing.is_empty(), "not in relaykeeper.8: {missing:#?}");
}

/// `above`: the commands that lead to this one, each with a blank behind it.
fn collect_missing(command: &Command, above: &str, missing: &mut Vec<String>) {
    for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
        if !DAEMON.contains(&format!("Fl -{option}")) {
            missing.push(format!("{above}--{option}"));
        }
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set()) {
        let name = format!("{above}{}", inner.get_name());
        if !inner.has_subcommands() && !DAEMON.contains(&format!("Cm {name}\n")) {
            missing.push(name.clone());
        }
        collect_missing(inner, &format!("{name} "), missing);
    }
}

/// The first example is the main file, the others are customers.
#[test]
fn the_examples_are_a_good_configuration() {
    let (_, examples) = CONFIGURATION.split_once(".Sh EXAMPLES\n").unwrap();
    let mut blocks =
        examples.split(".Bd -literal -offset indent\n").skip(1).map(|block| block.split_once(".Ed\n").unwrap().0);
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("relaykeeper.toml");
    fs::write(&main, blocks.next().unwrap()).unwrap();
    let customers = folder.path().join("customers.d");
    fs::create_dir(&customers).unwrap();
    fs::write(customers.join("acme.users"), users_file()).unwrap();
    let number = blocks.enumerate().map(|(n, text)| fs::write(customers.join(format!("{n}.toml")), text).unwrap());
    let number = number.count();
    let (problems, loaded) = config::check(&main);
    assert!(problems.is_empty(), "{}", problems.render(Style::Plain));
    assert_eq!((number, loaded.unwrap().directory.customers().len()), (2, 2));
}

fn users_file() -> &'static str {
    let (_, section) = CONFIGURATION.split_once(".Sh USERS FILES\n").unwrap();
    let (_, block) = section.split_once(".Bd -literal -offset indent\n").unwrap();
    block.split_once(".Ed\n").unwrap().0
}

/// The TOML of docs/gateways.md: the main file, then the customer's.
#[test]
fn the_worked_example_of_gateways_is_a_good_configuration() {
    let mut blocks = include_str!("../docs/gateways.md").split("```toml\n").skip(1);
    let mut block = || blocks.next().unwrap().split_once("```").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let (main, customers) = (folder.path().join("relaykeeper.toml"), folder.path().join("customers.d"));
    fs::write(&main, block()).unwrap();
    fs::create_dir_all(customers.join("secrets")).unwrap();
    fs::write(customers.join("acme.toml"), block()).unwrap();
    let password = customers.join("secrets/kim-partner");
    fs::write(&password, "secret\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o640)).unwrap();
    let (problems, _) = config::check(&main);
    assert!(problems.is_empty(), "{}", problems.render(Style::Plain));
}

/// As many rows as findings, in the same order.
#[test]
fn every_finding_of_doctor_is_described() {
    let page = include_str!("../docs/doctor.md");
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).collect();
    assert_eq!(rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), doctor::IDS);
    let is_whole = |row: &str| row.matches(" | ").count() == 3;
    let cut: Vec<_> = rows.iter().filter(|(_, row)| !is_whole(row)).map(|(id, _)| id).collect();
    assert!(cut.is_empty(), "not four columns: {cut:?}");
}

/// Every system that has to work has a page, and the list of pages leads to it (relay service, section 13).
#[test]
fn every_clients_system_has_a_page() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    let row_of = |system: &str| list.lines().find(|line| line.starts_with('|') && line.contains(system));
    let systems =
        ["Exchange 2000, 2003", "Exchange 2007, 2010", "Domino", "GroupWise", "Sendmail", "macOS Server", "qmail"];
    let others = ["Postfix", "Exim", "OpenSMTPD", "msmtp", "dma (", "nullmailer", "swaks"];
    let mut linked = std::collections::BTreeSet::new();
    for system in systems.into_iter().chain(others) {
        let row = row_of(system).unwrap_or_else(|| panic!("{system} is not in the list"));
        let page = row.split_once("](").and_then(|(_, rest)| rest.split_once(')')).expect("a link").0;
        let text = fs::read_to_string(folder.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        for what in ["**The HELO step**", "ime limit", "RELAY.EXAMPLE.NET"] {
            assert!(text.contains(what), "{page} says nothing of {what:?}");
        }
        linked.insert(page.to_owned());
    }
    let pages = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let unlinked: Vec<_> = pages.filter(|page| page != "README.md" && !linked.contains(page)).collect();
    assert!(unlinked.is_empty(), "not in the list: {unlinked:?}");
}
