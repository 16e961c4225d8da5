//! The audit log of the real daemon: who changed what, and whether the log was touched.

use crate::bed::{Folder, eventually};
use crate::customers::ACME;
use crate::daemon::Daemon;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

fn start(folder: &Folder) -> Daemon {
    let mut daemon = Daemon::configure(folder.path(), "", &[("acme".to_owned(), ACME.to_owned())]);
    daemon.start();
    daemon
}

/// Null as long as there is no log: the daemon's sockets are there before it.
fn audit(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.cli(&["audit", "--json"]).stdout).unwrap_or_default()
}

/// Awaits so many records: those of starts and signals come when they come.
fn records(daemon: &Daemon, at_least: usize) -> Vec<Value> {
    eventually("records in the audit log", || {
        let records = audit(daemon)["records"].as_array()?.clone();
        (records.len() >= at_least).then_some(records)
    })
}

fn log_file(daemon: &Daemon) -> PathBuf {
    daemon.path("store/audit.log")
}

#[test]
fn every_change_is_there_with_who_when_why() {
    let folder = Folder::new();
    let mut daemon = start(&folder);
    records(&daemon, 2);
    daemon.cli_text(&["customer", "suspend", "acme", "--why", "unpaid \"bills\""]);
    daemon.cli_text(&["quota", "reset", "ann@acme.example", "--why", "ticket 4711"]);
    daemon.write_customer("acme", &ACME.replace("licenses = 250", "licenses = 300\nbilling = \"unpaid\""));
    daemon.write_main("[log]\nto = \"journald\"\n");
    assert!(daemon.cli_text(&["reload", "--why", "ticket 4712"]).contains("after a restart: log.to"));
    daemon.write_main("[limits]\nuser.mesages_per_day = 1");
    daemon.ask_to_reload();
    daemon.await_line(&["nothing has changed"]);
    let broken = daemon.cli_text(&["audit"]);
    assert!(broken.contains("suspend customer acme"), "it is needed most when the main file has errors: {broken}");
    daemon.write_main("[relay]\ndrain = \"9s\"");
    records(&daemon, 8);
    daemon.stop();
    daemon.start();

    let records = records(&daemon, 10);
    let all: Vec<(&str, &Value)> = records.iter().map(|record| (record["action"].as_str().unwrap(), record)).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let expected = [
        "configuration",
        "configuration-unknown",
        "suspend",
        "quota-reset",
        "configuration",
        "configuration-file",
        "configuration-file",
        "configuration",
        "configuration",
        "configuration-file",
    ];
    assert_eq!(names, expected, "{records:#?}");
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record["number"], n + 1);
        assert!(record["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }
    let (root, start) = ("{\"kind\":\"user\",\"name\":\"root\",\"uid\":0}", "{\"kind\":\"start\"}");
    assert_eq!((all[0].1["by"].to_string(), all[2].1["by"].to_string()), (start.to_owned(), root.to_owned()));
    assert_eq!((&all[2].1["why"], &all[3].1["why"]), (&"unpaid \"bills\"".into(), &"ticket 4711".into()));
    assert_eq!(all[4].1["why"], "ticket 4712");
    assert_eq!(all[4].1["need_restart"], serde_json::json!(["log.to"]));
    let changed = |record: &Value| -> Vec<String> {
        let changes = record["changes"].as_array().unwrap().iter();
        changes
            .map(|change| format!("{} {} {}", change["key"].as_str().unwrap(), change["old"], change["new"]))
            .collect()
    };
    assert_eq!(changed(all[5].1), ["log.to \"stderr\" \"journald\""]);
    assert!(all[6].1["file"].as_str().unwrap().ends_with("customers.d/acme.toml"));
    assert_eq!(changed(all[6].1), ["billing null \"unpaid\"", "licenses 250 300"]);
    assert_eq!(all[7].1["by"]["kind"], "signal");
    assert!(all[7].1["refused"].as_str().unwrap().contains("1 error"), "{}", all[7].1);
    // What was edited while nobody watched.
    assert_eq!(changed(all[9].1), ["log.to \"journald\" \"stderr\"", "relay.drain null \"9s\""]);

    let text = daemon.cli_text(&["audit", "--since", "1h"]);
    assert!(text.contains("root (uid 0): suspend customer acme (unpaid \"bills\")"), "{text}");
    assert!(daemon.cli_text(&["audit", "--since", "2099-01-01"]).is_empty());
    assert_eq!(daemon.cli(&["audit", "--since", "soon"]).status.code(), Some(2));
    // The daemon's log vouches for it.
    let hash = fs::read_to_string(log_file(&daemon)).unwrap().lines().nth(2).unwrap().rsplit('"').nth(1).unwrap()[..16]
        .to_owned();
    daemon.await_line(&["event=suspend", "by=root", &format!("audit=3:{hash}")]);
}

#[test]
fn whatever_is_done_to_the_log_shows() {
    let folder = Folder::new();
    let mut daemon = start(&folder);
    records(&daemon, 2);
    for n in 1..=3 {
        daemon.cli_text(&["quota", "reset", "ann@acme.example", "--why", &format!("ticket {n}")]);
    }
    daemon.stop();
    let good = fs::read_to_string(log_file(&daemon)).unwrap();
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    let verdict = |text: &str| {
        fs::write(log_file(&daemon), text).unwrap();
        let output = daemon.cli(&["audit"]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(verdict(&good), (Some(0), String::new()));
    let bad = [
        (good.replace("ticket 2", "ticket 9"), "line 4: the record was changed"),
        ([&lines[..3], &lines[4..]].concat().concat(), "line 4: record 4 is missing"),
        (lines[..4].concat(), "it ends with record 4, but 5 were written"),
        (String::new(), "it ends with record 0, but 5 were written"),
    ];
    for (text, expected) in bad {
        let (code, told) = verdict(&text);
        assert!(code == Some(1) && told.contains(expected), "{expected}: {code:?} {told}");
    }
    // A daemon that finds it so starts all the same, says so, and goes on.
    daemon.start();
    daemon.await_line(&["audit.log: it ends with record 0"]);
    assert!(daemon.cli_text(&["status"]).contains("audit.log: it ends with record 0"));
    daemon.cli_text(&["quota", "reset", "ann@acme.example"]);
    let numbers: Vec<u64> = records(&daemon, 2).iter().map(|record| record["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [6, 7]);
}

/// What administrators write can forge no line and control no terminal, wherever it is shown.
#[test]
fn reasons_are_escaped_by_every_command() {
    const HOSTILE: &str = "spam\n9 2026-11-21T14:32:00Z root (uid 0): forged\r\u{1b}[2J\u{9b}31m\u{202e}";
    let folder = Folder::new();
    let daemon = start(&folder);
    daemon.cli_text(&["customer", "suspend", "acme", "--why", HOSTILE]);
    let until = ["--until", "2d", "--why", HOSTILE];
    daemon.cli_text(&[&["grant", "acme", "customer.recipients_per_day", "+5"][..], &until].concat());
    let explain =
        ["explain", "--client", "192.0.2.7", "--sender", "ann@acme.example", "--recipient", "a\u{1b}@dest.example"];
    for arguments in [
        &["audit"][..],
        &["audit", "--json"],
        &["status"],
        &["status", "--json"],
        &["quota", "show", "acme"],
        &["quota", "show", "acme", "--json"],
        &["grants"],
        &["user", "suspend", "\u{1b}[2J\nrelaykeeper: forged", "--why", "x"],
        &explain,
    ] {
        let output = daemon.cli(arguments);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(hostile), "{arguments:?}: {text:?}");
        assert!(
            !text.lines().any(|line| line.starts_with("9 2026") || line.contains("relaykeeper: forged\n")),
            "{text}"
        );
        assert!(!text.lines().any(|line| line.trim_start().starts_with("relaykeeper: forged")), "{text}");
    }
    assert!(daemon.cli_text(&["status"]).contains("spam\\n9 2026-11-21T14:32:00Z root (uid 0): forged\\r\\u{1b}[2J"));
}

/// What the state file lacks is in the audit log, and the other way round: nobody is forgotten.
#[test]
fn a_damaged_state_file_stops_the_start() {
    let folder = Folder::new();
    let mut daemon = start(&folder);
    daemon.cli_text(&["customer", "suspend", "acme", "--why", "spam"]);
    daemon.stop();
    let state = daemon.path("store/administration.json");
    let good = fs::read_to_string(&state).unwrap();
    fs::write(&state, good.replace("acme", "bcme")).unwrap();
    let output = daemon.cli(&["serve"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("administration.json: is damaged") && told.contains("move it away"), "{told}");
    fs::remove_file(&state).unwrap();
    daemon.start();
    assert!(daemon.cli_text(&["status"]).contains("customer acme since"));
}
