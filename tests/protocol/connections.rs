//! How many connections a client may make and hold open, in both protocols.

use crate::common::installation::{Installation, Milter, Running};
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::smtpd::{Mail, Smtpd};
use crate::{ACME, main_file};
use relaykeeper::report::decisions;
use relaykeeper::session::RecordedDecision;
use std::time::Duration;

const LIMITS: &str = "[limits]\n\
    connection = { per_minute = 5, simultaneous = 3, generic_helo_per_minute = 2, exempt = [\"203.0.113.9\"] }\n";

fn limited() -> Running {
    Installation::of(&main_file(LIMITS), [("acme.toml", ACME)]).run()
}

fn client(address: &str, helo: &str) -> Client {
    Client { address: address.into(), helo: helo.into(), ..Client::default() }
}

/// A session and what is said to its HELO.
async fn open(milter: &Milter, kind: Kind, client: Client) -> (Mta, Answer) {
    let mut mta = Mta::connect(&milter.path, kind).await;
    assert_eq!(mta.connection(&client).await, Answer::Continue);
    let answer = mta.helo_as(&client.helo, "").await;
    (mta, answer)
}

async fn greet(milter: &Milter, client: Client) -> Answer {
    let (mta, answer) = open(milter, Kind::Postfix, client).await;
    mta.quit().await;
    answer
}

#[tokio::test]
async fn generic_names_are_told_what_to_change() {
    let running = limited();
    let milter = running.start_milter();
    for kind in [Kind::Postfix, Kind::Sendmail] {
        let address = if kind == Kind::Postfix { "203.0.113.1" } else { "203.0.113.2" };
        for name in ["localhost", "[127.0.0.1]"] {
            let (mta, answer) = open(&milter, kind, client(address, name)).await;
            assert_eq!(answer, Answer::Continue);
            mta.quit().await;
        }
        let (mut mta, answer) = open(&milter, kind, client(address, "LOCALHOST")).await;
        let words = format!(
            "421 4.7.0 Try again later, closing connection. (EHLO) The HELO/EHLO name LOCALHOST is not a name of your own, \
             and {address} exceeded 2 connections a minute with such names; in your mail program's or server's settings, set the \
             HELO/EHLO name to its own full host name, such as mail.yourdomain.example ["
        );
        assert!(answer.reply().starts_with(&words), "{answer:?}");
        // Should the MTA go on all the same, it hears the same.
        assert_eq!(mta.mail("ann@acme.example").await, answer);
        mta.quit().await;
        // A name of its own is welcome at once.
        let (mta, answer) = open(&milter, kind, client(address, "mail.acme.example")).await;
        assert_eq!(answer, Answer::Continue);
        mta.quit().await;
    }
    let refusals: Vec<_> =
        running.log_lines().into_iter().filter(|line| line.contains("reason=generic-helo")).collect();
    assert_eq!(refusals.len(), 2, "one line a refusal: {refusals:?}");
    assert!(refusals[0].contains("client=203.0.113.1 helo=LOCALHOST proto=milter ref="), "{refusals:?}");
    assert_eq!(running.engine.tally.refusals()["generic-helo"], 2);
}

#[tokio::test]
async fn printers_in_a_customers_range_are_exempt_from_the_tighter_limit_only() {
    let running = limited();
    let milter = running.start_milter();
    for _ in 0..5 {
        assert_eq!(greet(&milter, client("192.0.2.33", "printer")).await, Answer::Continue);
    }
    let sixth = greet(&milter, client("192.0.2.33", "printer")).await;
    let words = "421 4.7.0 Try again later, closing connection. (EHLO) The IP address 192.0.2.33 exceeded its limit of 5 \
                 connections a minute (HELO name printer); all devices behind it share it: send several messages over one \
                 connection [";
    assert!(sixth.reply().starts_with(words), "{sixth:?}");
}

#[tokio::test]
async fn a_minute_later_there_is_room_again_and_what_was_refused_does_not_count() {
    let running = limited();
    let milter = running.start_milter();
    let mx = || client("203.0.113.1", "mx.stranger.example");
    for _ in 0..5 {
        assert_eq!(greet(&milter, mx()).await, Answer::Continue);
    }
    for _ in 0..10 {
        assert!(
            greet(&milter, mx()).await.reply().starts_with("421 4.7.0 Try again later, closing connection. (EHLO)")
        );
        running.pass_time(Duration::from_secs(5));
    }
    running.pass_time(Duration::from_secs(14));
    for _ in 0..5 {
        assert_eq!(greet(&milter, mx()).await, Answer::Continue);
    }
}

#[tokio::test]
async fn connections_that_are_open_are_counted_until_they_end() {
    let running = limited();
    let milter = running.start_milter();
    let mx = || client("2001:db8::1", "mx.stranger.example");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open(&milter, Kind::Sendmail, mx()).await);
    }
    assert!(held.iter().all(|(_, answer)| *answer == Answer::Continue));
    // Another address of the same network.
    let (mta, answer) = open(&milter, Kind::Sendmail, client("2001:db8::ffff", "mx.stranger.example")).await;
    let words = "421 4.7.0 Try again later, closing connection. (EHLO) The IP address 2001:db8::/64 exceeded its limit of 3 \
                 connections at a time (HELO name mx.stranger.example); all devices behind it share it: use fewer connections, ";
    assert!(answer.reply().starts_with(words), "{answer:?}");
    mta.quit().await;
    held.pop().unwrap().0.quit().await;
    assert_eq!(open(&milter, Kind::Sendmail, mx()).await.1, Answer::Continue);
}

#[tokio::test]
async fn some_are_not_limited() {
    let running = limited();
    let milter = running.start_milter();
    // exempt_clients, connection.exempt, and clients that have no address in common.
    for address in ["127.0.0.1", "203.0.113.9", "unknown", "local"] {
        for _ in 0..10 {
            assert_eq!(greet(&milter, client(address, "localhost")).await, Answer::Continue, "{address}");
        }
    }
}

#[tokio::test]
async fn in_shadow_it_is_only_logged() {
    let limits = "[limits.connection]\nper_minute = { max = 1, shadow = true }\n\
                  generic_helo_per_minute = { max = 1, shadow = true }\n";
    let running = Installation::of(&main_file(limits), [("acme.toml", ACME)]).run();
    let milter = running.start_milter();
    for _ in 0..3 {
        assert_eq!(greet(&milter, client("203.0.113.1", "localhost")).await, Answer::Continue);
    }
    let lines = running.log_lines();
    assert_eq!(lines.iter().filter(|line| line.contains("verdict=accept") && line.contains("shadow=")).count(), 2);
    assert!(running.engine.tally.refusals().is_empty());
    let shadow = running.engine.tally.would_have_refused();
    assert!(shadow.values().all(|&number| number == 2) && shadow.len() == 2, "{shadow:?}");
}

#[tokio::test]
async fn the_reference_of_a_refused_session_leads_to_the_decision() {
    let running = limited();
    let folder = tempfile::tempdir().unwrap();
    running.engine.record_decisions(folder.path()).unwrap();
    let milter = running.start_milter();
    for _ in 0..2 {
        greet(&milter, client("203.0.113.1", "localhost")).await;
    }
    let answer = greet(&milter, client("203.0.113.1", "localhost")).await;
    let reference = answer.reply().rsplit_once('[').unwrap().1.trim_end_matches(']').parse().unwrap();
    running.engine.decisions().unwrap().flush(Duration::from_secs(30));
    let text = decisions::find(folder.path(), reference).unwrap().expect("it is recorded");
    let recorded: RecordedDecision = serde_json::from_str(&text).unwrap();
    assert_eq!(recorded.reply.as_deref(), Some(answer.reply()));
    assert_eq!(
        (recorded.client.as_deref(), &*recorded.helo, recorded.sender),
        (Some("203.0.113.1"), "localhost", None)
    );
    assert_eq!(recorded.steps.len(), 1);
}

/// Requests about one SMTP session, in whatever state Postfix asks.
async fn ask(smtpd: &mut Smtpd, mail: &Mail, state: &str) -> String {
    let before_helo = Mail { helo: String::new(), ..mail.clone() };
    let asked = if state == "CONNECT" { &before_helo } else { mail };
    smtpd.ask(&asked.request(state, if state == "RCPT" { "x@dest.example" } else { "" }, 0, "")).await
}

fn stranger(port: u16, instance: &str) -> Mail {
    let (client, helo) = ("203.0.113.1".into(), "mx.acme.example".into());
    Mail { client, helo, port, instance: instance.into(), sender: "ann@acme.example".into(), ..Mail::default() }
}

/// With smtpd_delay_reject = no Postfix asks at CONNECT, EHLO, MAIL; else all restrictions ask at each RCPT.
#[tokio::test]
async fn a_session_counts_once_however_often_the_policy_service_is_asked() {
    let running = limited();
    let mut smtpd = running.smtpd(1);
    for port in 1..=5 {
        let mail = stranger(port, "");
        for state in ["CONNECT", "CONNECT", "EHLO", "HELO", "EHLO"] {
            assert_eq!(ask(&mut smtpd, &mail, state).await, "DUNNO", "{port} {state}");
        }
        let mail = stranger(port, &format!("1.67890abc.{port}.0"));
        for _ in 0..3 {
            assert!(ask(&mut smtpd, &mail, "RCPT").await.starts_with("550 5.7.1"), "no longer about connections");
        }
        let next = stranger(port, &format!("1.67890abd.{port}.1"));
        assert!(ask(&mut smtpd, &next, "RCPT").await.starts_with("550 5.7.1"));
    }
    let refused = ask(&mut smtpd, &stranger(6, ""), "CONNECT").await;
    let words = "421 4.7.0 Try again later, closing connection. (EHLO) The IP address 203.0.113.1 exceeded its limit of 5 connections a minute; ";
    assert!(refused.starts_with(words), "{refused}");
    assert_eq!(ask(&mut smtpd, &stranger(6, "1.67890abe.0.0"), "RCPT").await, refused, "it is refused as a whole");
    assert!(
        ask(&mut smtpd, &stranger(3, "1.67890abf.0.1"), "RCPT").await.starts_with("550 5.7.1"),
        "it was there before"
    );
    for state in ["DATA", "VRFY", "ETRN"] {
        assert_eq!(ask(&mut smtpd, &stranger(7, "1.67890abf.0.2"), state).await, "DUNNO");
    }
}

/// A client that binds its port gets a new connection each time all the same; and no port is told by some proxies.
#[tokio::test]
async fn a_port_that_is_used_again_is_another_session() {
    for (address, port) in [("203.0.113.1", 4711), ("203.0.113.2", 0)] {
        let running = limited();
        let mut smtpd = running.smtpd(1);
        let mail = |n: u32, message: u32| Mail {
            client: address.into(),
            ..stranger(port, &format!("1.6789{n:04x}.{message}.{message}"))
        };
        for n in 1..=5 {
            for message in 0..3 {
                let answer = ask(&mut smtpd, &mail(n, message), "RCPT").await;
                assert!(answer.starts_with("550 5.7.1"), "{port} {n} {message}: {answer}");
            }
        }
        let refused = ask(&mut smtpd, &mail(6, 0), "RCPT").await;
        assert!(refused.starts_with("421 4.7.0 Try again later, closing connection. (EHLO) "), "{refused}");
    }
}

#[tokio::test]
async fn a_session_that_both_protocols_see_counts_once() {
    let running = limited();
    let milter = running.start_milter();
    let mut smtpd = running.smtpd(1);
    for port in 1..=5 {
        let client = Client { port, ..client("203.0.113.1", "mx.acme.example") };
        let (mta, answer) = open(&milter, Kind::Postfix, client).await;
        assert_eq!(answer, Answer::Continue, "{port}");
        for state in ["CONNECT", "EHLO", "RCPT"] {
            let answer = ask(&mut smtpd, &stranger(port, "1.67890abc.1.0"), state).await;
            assert!(!answer.starts_with('4'), "{port} {state}: {answer}");
        }
        mta.quit().await;
    }
    let client = Client { port: 6, ..client("203.0.113.1", "mx.acme.example") };
    assert!(greet(&milter, client).await.reply().starts_with("421 "));
}
