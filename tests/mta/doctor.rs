//! `doctor` in front of real MTAs: set-ups that are broken are first shown to be so, then doctor must say these errors and no
//! other one.

use crate::bed::{Folder, Mta, MtaSetup, Port};
use crate::daemon::Daemon;
use crate::relay::{Front, Setup};
use crate::sink::Sink;
use crate::smtp::Client;
use crate::standin::Milter;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From its addresses, which Sendmail's clients on this host have, and by login.
const ACME: &str = r#"
name = "acme"
domains = ["acme.example"]
licenses = 5
[[user]]
address = "ann@acme.example"
[[setting]]
name = "office"
allowed_senders = "own-domains"
[[setting.ip]]
range = "127.0.2.0/24"
"#;

/// What doctor says, and its exit status.
struct Said {
    findings: Vec<Value>,
    code: Option<i32>,
}

impl Said {
    fn of(daemon: &Daemon, path: Option<&Path>, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relaykeeper"));
        command.args(["doctor", "--json", "--config"]).arg(daemon.path("relaykeeper.toml")).args(arguments);
        if let Some(path) = path {
            let others = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(path.to_owned()).chain(std::env::split_paths(&others));
            command.env("PATH", std::env::join_paths(folders).unwrap());
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let findings: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        Said { findings: findings.as_array().unwrap().clone(), code: output.status.code() }
    }

    fn ids(&self, severity: &str) -> Vec<&str> {
        let of = self.findings.iter().filter(|finding| finding["severity"] == severity);
        let mut ids: Vec<_> = of.map(|finding| finding["id"].as_str().unwrap()).collect();
        ids.dedup();
        ids
    }

    fn assert_errors(&self, expected: &[&str]) {
        assert_eq!(self.ids("error"), expected, "{:#?}", self.findings);
    }
}

/// A Sendmail whose filters are the test's own, and relaykeeper beside it.
struct SendmailRelay {
    daemon: Daemon,
    sink: Sink,
    mta: Mta,
    cf: PathBuf,
    programs: PathBuf,
    _other: Milter,
    _folder: Folder,
}

impl SendmailRelay {
    /// `mc`: lines of sendmail.mc, OURS and OTHER the sockets of relaykeeper and of another milter.
    fn start(mc: &str) -> SendmailRelay {
        let folder = Folder::new();
        let main = "relay.exempt_clients = [\"127.0.0.1\", \"::1\"]\n";
        let mut daemon = Daemon::configure(folder.path(), main, &[("acme".to_owned(), ACME.to_owned())]);
        daemon.start();
        let other = folder.path().join("other.sock");
        let other_milter = Milter::start(other.clone());
        let sink = Sink::start(&folder);
        let mc = mc
            .replace("OURS", &daemon.milter_socket().display().to_string())
            .replace("OTHER", &other.display().to_string());
        let access = daemon.cli_text(&["export", "sendmail-access"]);
        let setup = MtaSetup { access, mc, sink_port: sink.port, ..MtaSetup::default() };
        let mta = Mta::sendmail(folder.path(), &setup);
        let cf = folder.path().join("sendmail/sendmail.cf");
        let programs = programs(folder.path());
        SendmailRelay { daemon, sink, mta, cf, programs, _other: other_milter, _folder: folder }
    }

    fn doctor(&self, more: &[&str]) -> Said {
        let cf = self.cf.display().to_string();
        Said::of(&self.daemon, Some(&self.programs), &[&["--sendmail", &cf], more].concat())
    }

    /// A customer's client with a sender that is none of its customer's.
    fn sends_as_a_stranger(&self, port: u16) {
        let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let mut client = Client::connect(Some("127.0.2.7".parse().unwrap()), server);
        client.ehlo("mail.acme.example");
        let sent = client.send("somebody@elsewhere.example", &["one@dest.example"]);
        assert!(sent.accepted(), "{}", client.transcript());
        self.sink.await_mail(&sent.id);
    }
}

/// The bed's Sendmail as programs in a folder of PATH.
fn programs(folder: &Path) -> PathBuf {
    let programs = folder.join("programs");
    std::fs::create_dir(&programs).unwrap();
    let bed =
        std::env::var_os("RELAYKEEPER_TESTS").map_or_else(|| "/var/cache/relaykeeper-tests".into(), PathBuf::from);
    let bed = bed.join("sendmail");
    for (name, program) in [("sendmail", "usr/libexec/sendmail/sendmail"), ("makemap", "usr/sbin/makemap")] {
        let file = programs.join(name);
        // Preloaded for a host name that needs no look-up.
        let text = format!(
            "#!/bin/sh\nSMLOG={}/log LD_PRELOAD={bed}/smlog.so exec {bed}/root/{program} \"$@\"\n",
            programs.display(),
            bed = bed.display()
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    programs
}

const OURS: &str = "INPUT_MAIL_FILTER(`relaykeeper', `S=local:OURS, F=T, T=C:1m;S:30s;R:30s;E:5m')dnl\n";

#[test]
fn sendmail_that_goes_on_without_an_answer() {
    let mut relay = SendmailRelay::start(&OURS.replace("F=T, ", ""));
    relay.daemon.stop();
    relay.sends_as_a_stranger(relay.mta.port);
    relay.daemon.start();
    let said = relay.doctor(&[]);
    said.assert_errors(&["milter-fails-open"]);
    assert_eq!(said.code, Some(1));
}

#[test]
fn sendmail_with_a_comma_in_a_services_list() {
    let port = Port::take();
    let mc = format!(
        "INPUT_MAIL_FILTER(`raw', `S=local:OTHER, F=T')dnl\n{OURS}\
         DAEMON_OPTIONS(`Addr=127.0.0.1, Port={}, Name=X, InputMailFilters=raw,relaykeeper')dnl\n",
        port.number
    );
    let relay = SendmailRelay::start(&mc);
    relay.sends_as_a_stranger(port.number);
    relay.doctor(&[]).assert_errors(&["sm-daemon-list"]);
    // The canary finds the same there, and that the others ask.
    let said = relay.doctor(&["--canary"]);
    said.assert_errors(&["sm-daemon-list"]);
}

#[test]
fn sendmail_whose_list_was_replaced() {
    let mc = format!("{OURS}MAIL_FILTER(`raw', `S=local:OTHER')dnl\ndefine(`confINPUT_MAIL_FILTERS', `raw')dnl\n");
    let relay = SendmailRelay::start(&mc);
    relay.sends_as_a_stranger(relay.mta.port);
    relay.doctor(&[]).assert_errors(&["milter-not-asked"]);
    relay.doctor(&["--canary"]).assert_errors(&["milter-not-asked"]);
}

#[test]
fn a_healthy_sendmail() {
    let mc = format!(
        "INPUT_MAIL_FILTER(`spam', `S=local:OTHER, F=T, T=C:1m;S:30s;R:30s;E:5m')dnl\n{OURS}\
         define(`confAUTH_OPTIONS', `A p y')dnl\n"
    );
    let relay = SendmailRelay::start(&mc);
    for more in [&[][..], &["--canary"]] {
        let said = relay.doctor(more);
        said.assert_errors(&[]);
        assert_eq!(said.ids("warning"), [""; 0], "{:#?}", said.findings);
        assert_eq!(said.code, Some(0));
    }
}

#[test]
fn the_canary_is_heard_through_postfix_by_both_protocols_and_counts_nothing() {
    let relay = Setup::new().customer("acme", ACME).start(Front::PostfixBoth);
    let folder = relay.daemon.path("../postfix/etc").canonicalize().unwrap().display().to_string();
    let said = Said::of(&relay.daemon, None, &["--postfix", &folder, "--canary"]);
    said.assert_errors(&[]);
    assert!(
        !said.findings.iter().any(|finding| finding["found"].as_str().unwrap().starts_with("canary")),
        "{:#?}",
        said.findings
    );
    let status = relay.daemon.cli_text(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    let asked = |key: &str| status["mta"].as_array().unwrap().iter().map(|mta| mta[key].as_u64().unwrap()).sum::<u64>();
    assert!(asked("milter_sessions") > 0, "{status:#}");
    assert_eq!((asked("milter_ends"), asked("policy_ends"), status["decisions"]["messages"].as_u64()), (0, 0, Some(0)));
    assert!(!relay.daemon.log().contains("relaykeeper-canary.invalid\" verdict=accept"));
}

#[test]
fn the_canary_finds_a_postfix_that_asks_nobody() {
    let setup = "smtpd_milters =\nsmtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
                 smtpd_recipient_restrictions =\nsmtpd_end_of_data_restrictions =\nmynetworks = 0.0.0.0/0 [::]/0\n";
    let relay = Setup::new().customer("acme", ACME).postfix(setup).start(Front::PostfixBoth);
    let folder = relay.daemon.path("../postfix/etc").canonicalize().unwrap().display().to_string();
    let said = Said::of(&relay.daemon, None, &["--postfix", &folder, "--canary"]);
    said.assert_errors(&["policy-not-asked", "milter-not-asked"]);
}

#[test]
fn without_the_daemon_the_canary_says_so_and_what_was_read_is_said_all_the_same() {
    let mut relay = Setup::new().customer("acme", ACME).start(Front::PostfixBoth);
    relay.daemon.stop();
    let folder = relay.daemon.path("../postfix/etc").canonicalize().unwrap().display().to_string();
    let said = Said::of(&relay.daemon, None, &["--postfix", &folder, "--canary"]);
    assert_eq!((said.code, said.ids("error")), (Some(3), vec!["daemon-down"]), "{:#?}", said.findings);
}

#[test]
fn a_folder_that_shuts_postfix_out_is_named() {
    let relay = Setup::new().customer("acme", ACME).start(Front::PostfixBoth);
    let folder = relay.daemon.path("../postfix/etc").canonicalize().unwrap().display().to_string();
    let shut = relay.daemon.path(".");
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o700)).unwrap();
    let said = Said::of(&relay.daemon, None, &["--postfix", &folder]);
    said.assert_errors(&["socket-refused"]);
    let found = said.findings[0]["found"].as_str().unwrap();
    assert!(found.starts_with("user postfix may not connect to unix:") && found.contains("mode 0700"), "{found}");
}
