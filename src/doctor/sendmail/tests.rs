//! Each check once where it fires, and together where none does.

use super::*;
use crate::config::{self, Configuration};
use std::os::unix::net::UnixListener;
use std::time::Duration;

const ACME: &str = "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 1\n\
    [[setting]]\nname = \"office\"\nallowed_senders = \"any\"\nip = [{ range = \"192.0.2.0/24\" }]\n\
    [[setting]]\nname = \"roaming\"\nallowed_senders = \"any\"\nrequire_auth = true\nrequire_tls = true\n";

/// As the m4 files make it of a good sendmail.mc; SOCKET is ours.
const CF: &str = "\
#####  $Id: access_db.m4,v 8.28 2013-11-22 20:51:11 ca Exp $  #####
Cwlocalhost
Cwmx.test.example
Djmx.test.example
C{TrustAuthMech}PLAIN LOGIN
Kaccess hash -T<TMPF> /etc/mail/access
O DontBlameSendmail=WorldWritableDirPathSafe,GroupWritableDirPathSafe
O DaemonPortOptions=Port=smtp, Name=MTA
O DaemonPortOptions=Port=587, Name=MSA, M=E
O AuthMechanisms=PLAIN LOGIN
O AuthOptions=A p y
O InputMailFilters=spam, relaykeeper
O ServerCertFile=/etc/mail/tls/cert.pem
Xspam, S=local:/run/spam.sock
Xrelaykeeper, S=local:SOCKET, F=T, T=C:1m;S:30s;R:30s;E:5m
SBasic_check_rcpt
R$* $| @ $*\t\t$: O $| $>\"Relay_ok\" $1
";

struct Host {
    folder: tempfile::TempDir,
    loaded: Configuration,
    _listener: UnixListener,
}

impl Host {
    fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("milter.sock");
        std::fs::create_dir(folder.path().join("customers.d")).unwrap();
        std::fs::write(folder.path().join("customers.d/acme.toml"), ACME).unwrap();
        let main = format!(
            "listen.milter = [\"unix:{}\"]\nrelay.hostname = \"mx.test.example\"\n\
             relay.exempt_recipient_domains = [\"own.example\"]\n",
            socket.display()
        );
        std::fs::write(folder.path().join("relaykeeper.toml"), main).unwrap();
        let loaded = config::load(&folder.path().join("relaykeeper.toml")).unwrap();
        Host { loaded, _listener: UnixListener::bind(&socket).unwrap(), folder }
    }

    /// The Sendmail of a file that is changed from the good one.
    fn sendmail(&self, change: impl Fn(String) -> String) -> Sendmail<'_> {
        let socket = self.folder.path().join("milter.sock").display().to_string();
        let cf = change(CF.to_owned()).replace("SOCKET", &socket);
        let mut cf = SendmailCf::parse(&cf);
        cf.path = "/etc/mail/sendmail.cf".into();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let entries =
            vec![pair("connect:192.0.2", "RELAY"), pair("connect:127.0.0.1", "RELAY"), pair("to:own.example", "RELAY")];
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        Sendmail {
            cf,
            relaykeeper: Relaykeeper::of(&self.loaded.settings, &self.loaded.directory, false),
            exported: vec!["Connect:192.0.2".to_owned()],
            access: Access {
                line: 6,
                path: Some("/etc/mail/access".into()),
                entries: Some(entries),
                ..Access::default()
            },
            class_w: Some(vec!["localhost".to_owned(), "mx.test.example".to_owned(), "[127.0.0.1]".to_owned()]),
            host_name: Some("mx.test.example".to_owned()),
            has_milter: Some(true),
            written: Some(then),
            started: Some(then + Duration::from_secs(1)),
            mc: None,
        }
    }

    /// Errors and warnings, by id.
    fn found(&self, change: impl Fn(String) -> String) -> Vec<(Severity, &'static str)> {
        loud(&self.sendmail(change))
    }
}

fn loud(sendmail: &Sendmail<'_>) -> Vec<(Severity, &'static str)> {
    let mut found: Vec<_> = sendmail
        .check()
        .iter()
        .filter(|finding| finding.severity != Severity::Note)
        .map(|finding| (finding.severity, finding.id))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn notes(sendmail: &Sendmail<'_>) -> Vec<&'static str> {
    sendmail.check().iter().filter(|finding| finding.severity == Severity::Note).map(|finding| finding.id).collect()
}

/// What is replaced by what, and what is found then.
type Change = (&'static str, &'static str, &'static [(Severity, &'static str)]);

const E: Severity = Severity::Error;
const W: Severity = Severity::Warning;

#[test]
fn a_good_sendmail_has_notes_alone() {
    let host = Host::new();
    let good = host.sendmail(|cf| cf);
    assert_eq!(loud(&good), []);
    assert_eq!(notes(&good), ["own-host-not-exempt", "local-mail-uncounted"]);
}

#[test]
fn each_change_of_the_file_is_found_alone() {
    let host = Host::new();
    let asked = "O InputMailFilters=spam, relaykeeper\n";
    let ours = "F=T, T=C:1m;S:30s;R:30s;E:5m";
    let changes: &[Change] = &[
        (asked, "", &[(E, "milter-not-asked")]),
        (asked, "O InputMailFilters=spam\n", &[(E, "milter-not-asked")]),
        (asked, "O InputMailFilters=relaykeeper, spam\n", &[(W, "milter-not-last")]),
        (asked, "O InputMailFilters=spam, relaykeeper, relaykeeper\n", &[(W, "milter-twice")]),
        (asked, "O InputMailFilters=spam, relaykeeper, none\n", &[(E, "sm-filter-syntax"), (W, "milter-not-last")]),
        (ours, "T=C:1m;S:30s;R:30s;E:5m", &[(E, "milter-fails-open")]),
        (ours, "F=R, T=C:1m;S:30s;R:30s;E:5m", &[(E, "milter-fails-hard")]),
        (ours, "F=4, T=S:30s;R:30s", &[]),
        (ours, "F=T", &[(W, "milter-time-limits")]),
        (ours, "F=T, T=S:30s;R:30s;E:60s", &[(W, "milter-time-limits")]),
        (ours, "F=T, T=C:1m,S:30s;R:30s;E:5m", &[(E, "sm-filter-syntax"), (W, "milter-time-limits")]),
        ("S=local:SOCKET", "S=local:/nowhere/relaykeeper.sock", &[(E, "milter-nobody-listens")]),
        ("S=local:SOCKET", "S=SOCKET", &[]),
        ("Name=MSA, M=E", "Name=MSA, InputMailFilters=", &[(E, "sm-daemon-list")]),
        ("Name=MSA, M=E", "Name=MSA, InputMailFilters=spam", &[(E, "sm-daemon-list")]),
        ("Name=MSA, M=E", "Name=MSA, InputMailFilters=spam,relaykeeper", &[(E, "sm-daemon-list")]),
        ("Name=MSA, M=E", "Name=MSA, InputMailFilters=spam;relaykeeper", &[]),
        ("WorldWritableDirPathSafe,", "", &[(E, "sm-socket-unsafe")]),
        ("O AuthOptions=A p y\n", "O AuthOptions=A\n", &[(W, "auth-in-clear")]),
        ("O ServerCertFile=/etc/mail/tls/cert.pem\n", "", &[(W, "tls-off")]),
        ("C{TrustAuthMech}PLAIN LOGIN", "C{TrustAuthMech}PLAIN", &[(W, "sm-trust-auth-mech")]),
        ("access_db.m4", "promiscuous_relay.m4", &[(E, "sm-promiscuous")]),
        ("Relay_ok", "None", &[(E, "sm-promiscuous")]),
        ("access_db.m4", "relay_mail_from.m4", &[(W, "sm-relay-loose")]),
        ("Cwlocalhost", "C{R}10.1\nCwlocalhost", &[(W, "sm-relay-loose")]),
        ("Cwlocalhost", "CRother.example\nCwlocalhost", &[(E, "inbound-not-exempt")]),
        ("Cwlocalhost", "Cwother.example", &[(E, "inbound-not-exempt")]),
        ("Cwlocalhost", "Cwown.example", &[]),
        ("Port=smtp, Name=MTA", "Port=smtp, Name=MTA\nO MaxDaemonChildren=1", &[(W, "mta-rate-limits")]),
    ];
    for (old, new, expected) in changes {
        assert!(CF.contains(old), "{old}");
        assert_eq!(host.found(|cf| cf.replace(old, new)), *expected, "{old} -> {new}");
    }
}

#[test]
fn what_the_host_says_is_compared() {
    let host = Host::new();
    let with = |change: &dyn Fn(&mut Sendmail<'_>)| {
        let mut sendmail = host.sendmail(|cf| cf);
        change(&mut sendmail);
        loud(&sendmail)
    };
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000);
    let pair = |key: &str| (key.to_owned(), "RELAY".to_owned());
    assert_eq!(with(&|it| it.has_milter = Some(false)), [(E, "sm-no-milter")]);
    assert_eq!(with(&|it| it.has_milter = None), []);
    assert_eq!(
        with(&|it| it.host_name = Some("other.example".to_owned())),
        [(E, "inbound-not-exempt"), (W, "hostname-differs")]
    );
    assert_eq!(with(&|it| it.written = Some(late)), [(W, "not-reloaded")]);
    assert_eq!(with(&|it| it.mc = Some(("/etc/mail/sendmail.mc".into(), late))), [(W, "not-reloaded")]);
    assert_eq!(with(&|it| it.access = Access { is_missing: true, ..Access::default() }), [(E, "sm-access-missing")]);
    assert_eq!(with(&|it| it.access.entries = Some(vec![])), [(W, "sm-access-stale")]);
    assert_eq!(
        with(&|it| it.access.entries.as_mut().unwrap().push(pair("connect:203.0.113"))),
        [(W, "sm-access-stale")]
    );
    assert_eq!(
        with(&|it| it.access.entries.as_mut().unwrap().push(pair("to:other.example"))),
        [(E, "inbound-not-exempt")]
    );
    assert_eq!(with(&|it| it.access.is_older_than_text = true), [(W, "sm-access-stale")]);
    let old = |it: &mut Sendmail<'_>| {
        it.access.entries = None;
        it.access.is_old = true;
    };
    assert_eq!(with(&old), [(W, "sm-access-stale")]);
    assert_eq!(with(&|it| it.access.entries = None), []);
    let mut without = host.sendmail(|cf| cf);
    (without.has_milter, without.access.entries) = (None, None);
    assert_eq!(notes(&without).iter().filter(|id| **id == "not-looked-at").count(), 2);
    // The names that only the program knows are the host's own.
    assert_eq!(with(&|it| it.class_w.as_mut().unwrap().push("vm.example".to_owned())), []);
}

#[test]
fn limits_of_sendmails_own_are_notes() {
    let host = Host::new();
    for (line, id) in [
        ("O MaxRecipientsPerMessage=5", "recipient-limit"),
        ("O ConnectionRateThrottle=3", "mta-rate-limits"),
        ("O BadRcptThrottle=3", "mta-rate-limits"),
        ("#####  $Id: conncontrol.m4,v", "mta-rate-limits"),
    ] {
        let with = host.sendmail(|cf| format!("{cf}{line}\n"));
        assert!(notes(&with).contains(&id) && loud(&with).is_empty(), "{line}: {:?}", with.check());
    }
    let without = host.sendmail(|cf| format!("{cf}O MaxRecipientsPerMessage=0\nO ConnectionRateThrottle=0\n"));
    assert!(!notes(&without).iter().any(|id| ["recipient-limit", "mta-rate-limits"].contains(id)));
}

#[test]
fn a_service_that_only_exempt_clients_reach_need_not_ask() {
    let mut host = Host::new();
    let change = |cf: String| cf.replace("Port=587, Name=MSA, M=E", "Port=587, Addr=127.0.0.1, InputMailFilters=");
    assert_eq!(host.found(change), []);
    let mut settings = (*host.loaded.settings).clone();
    settings.relay.exempt_clients = vec!["127.0.0.1/32".parse().unwrap()];
    host.loaded.settings = std::sync::Arc::new(settings);
    assert_eq!(host.found(change), [(E, "sm-daemon-list")]);
}

#[test]
fn what_is_to_be_written_names_the_socket_of_the_configuration() {
    let host = Host::new();
    let findings = host.sendmail(|cf| cf.replace("F=T, ", "")).check();
    let finding = findings.iter().find(|finding| finding.id == "milter-fails-open").unwrap();
    let socket = host.folder.path().join("milter.sock").display().to_string();
    assert_eq!((finding.place.as_str(), finding.found.as_str()), ("/etc/mail/sendmail.cf:15 Xrelaykeeper", "no F="));
    assert!(finding.write.as_ref().unwrap().contains(&format!("S=local:{socket}, F=T, T=C:1m;S:30s;R:30s;E:5m")));
}
