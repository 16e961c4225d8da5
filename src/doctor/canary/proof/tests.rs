use super::*;
use crate::config;

fn settings() -> Settings {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("customers.d")).unwrap();
    let main = folder.path().join("relaykeeper.toml");
    let text = "listen.policy = [\"inet:127.0.0.1:1\"]\nlisten.milter = [\"inet:127.0.0.1:2\"]\nrelay.hostname = \"r.example.net\"\n";
    std::fs::write(&main, text).unwrap();
    config::load_settings(&main).unwrap()
}

fn target(mta: Mta) -> Target {
    Target {
        place: "/etc/postfix/master.cf smtp/inet".to_owned(),
        mta,
        address: None,
        is_ipv6: false,
        port: "smtp".to_owned(),
        wraps: false,
    }
}

fn event(protocol: &str, context: &str) -> SmtpEvent {
    SmtpEvent {
        protocol: protocol.to_owned(),
        stage: "RCPT".to_owned(),
        listener: String::new(),
        client_address: "192.0.2.7".parse().ok(),
        client_port: 4711,
        server_address: None,
        server_port: None,
        helo: String::new(),
        context: context.to_owned(),
    }
}

fn judged(mta: Mta, events: &[SmtpEvent], reply: &str) -> Vec<(&'static str, Severity)> {
    let session = Session { source: "192.0.2.7".parse().unwrap(), stage: "RCPT", reply: reply.to_owned() };
    let mut findings = Vec::new();
    judge(&target(mta), &Seen { events: events.to_vec(), session }, &settings(), &mut findings);
    findings.iter().map(|finding| (finding.id, finding.severity)).collect()
}

#[test]
fn what_was_seen_decides_what_is_said() {
    use Severity::{Error, Note, Warning};
    let (milter, policy, out_of_context) = (event("milter", ""), event("policy", "relay"), event("policy", ""));
    let both = [milter.clone(), policy.clone()];
    assert_eq!(judged(Mta::Postfix, &both, "250 2.1.5 Ok"), []);
    assert_eq!(judged(Mta::Sendmail, &both[..1], "550 5.7.1 Relaying denied"), []);
    assert_eq!(judged(Mta::Postfix, &both[1..], "250 2.1.5 Ok"), [("milter-not-asked", Warning)]);
    assert_eq!(judged(Mta::Postfix, &both[..1], "250 2.1.5 Ok"), []);
    let ours = "550 5.7.1 <a@b>: Recipient address rejected: Mail relay denied [192.0.2.7] [K7Q2-9FTM-XW]";
    assert_eq!(judged(Mta::Postfix, &both[..1], ours), []);
    assert_eq!(judged(Mta::Postfix, &both[..1], "554 5.7.1 <a@b>: Relay access denied"), [("not-looked-at", Note)]);
    assert_eq!(judged(Mta::Postfix, &[], "250 2.1.5 Ok"), [("milter-not-asked", Error), ("policy-not-asked", Error)]);
    assert_eq!(judged(Mta::Sendmail, &[], "250 2.1.5 Ok"), [("milter-not-asked", Error)]);
    assert_eq!(judged(Mta::Sendmail, &[], "550 5.7.1 Relaying denied"), [("milter-not-asked", Error)]);
    let refused = |reply: &str| judged(Mta::Postfix, &[], reply);
    let not_asked = ("milter-not-asked", Warning);
    assert_eq!(refused("554 5.7.1 <a@b>: Relay access denied"), [not_asked, ("reject-before-policy", Error)]);
    assert_eq!(refused("it closed the connection"), [not_asked, ("reject-before-policy", Error)]);
    for reply in [
        "554 5.7.1 <h[192.0.2.7]>: Client host rejected: Access denied",
        "530 5.7.0 Must issue a STARTTLS command first",
        "450 4.1.8 <a@b>: Sender address rejected: Domain not found",
    ] {
        assert_eq!(refused(reply), [not_asked, ("not-looked-at", Note)], "{reply}");
    }
    let alone = judged(Mta::Postfix, &[out_of_context], "554 5.7.1 <a@b>: Relay access denied");
    assert_eq!(alone, [("milter-not-asked", Warning), ("context-missing", Error)]);
    let elsewhere = SmtpEvent { client_port: 1, ..policy };
    assert_eq!(judged(Mta::Postfix, &[milter.clone(), elsewhere], "250 Ok"), [("two-daemons", Error)]);
    let hidden = SmtpEvent { client_address: "172.17.0.1".parse().ok(), ..milter };
    assert_eq!(judged(Mta::Sendmail, &[hidden], "250 Ok"), [("one-address", Warning)]);
}

#[test]
fn a_proof_drops_what_it_contradicts_of_that_service_alone() {
    let mut findings: Vec<_> = ["/etc/postfix/master.cf:12 smtp/inet", "/etc/postfix/master.cf:13 submission/inet"]
        .iter()
        .flat_map(|place| {
            ["milter-not-asked", "milter-fails-open"]
                .map(|id| Finding::new(id, Severity::Error, *place, "x", "y", None))
        })
        .collect();
    let session = Session { source: "192.0.2.7".parse().unwrap(), stage: "RCPT", reply: "250 Ok".to_owned() };
    let seen = Seen { events: vec![event("milter", "")], session };
    judge(&target(Mta::Postfix), &seen, &settings(), &mut findings);
    let left: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(left, [Severity::Note, Severity::Error, Severity::Error, Severity::Error]);
    assert!(findings[0].found.starts_with("disproved by the canary"));
}
