//! Clients that connect too often, or with a name that says nothing.

use crate::bed::Folder;
use crate::relay::{Front, Relay, Setup, on};
use crate::smtp::{Client, Reply};
use std::time::Duration;

const WORDS: &str = "Try again later, closing connection. (EHLO)";

/// 127.0.0.1 is the bed itself, before it pretends to be somebody else.
fn limited(limits: &str) -> Setup {
    Setup::with_customers().main(&format!("[limits.connection]\nexempt = [\"127.0.0.1\"]\n{limits}"))
}

/// An address in nobody's ranges.
fn stranger(front: Front) -> &'static str {
    if front.is_sendmail() { "127.99.1.7" } else { "203.0.114.7" }
}

/// What a session comes to: the first reply that refuses something, if one does.
fn session(relay: &Relay, address: &str, helo: &str) -> (Client, Option<Reply>) {
    let mut client = relay.connect(address);
    for line in [&format!("EHLO {helo}"), "MAIL FROM:<ann@acme.example>", "RCPT TO:<one@dest.example>"] {
        let reply = client.command(line);
        if !reply.accepted() {
            return (client, Some(reply));
        }
    }
    (client, None)
}

fn generic_names_are_told_what_to_change(front: Front) {
    let relay = limited("generic_helo_per_minute = 3").start(front);
    for _ in 0..3 {
        let (client, refusal) = session(&relay, stranger(front), "localhost");
        assert_ne!(refusal.expect("nobody's address").code, 421, "{}", client.transcript());
        client.quit();
    }
    let (client, refusal) = session(&relay, stranger(front), "localhost");
    let text = relay.assert_reply(&refusal.expect("refused"), "421 4.7.0", WORDS);
    for part in ["localhost", stranger(front), "3 connections a minute", "full host name"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    if front.has_milter() {
        assert!(!client.transcript().contains("C: MAIL"), "refused at EHLO: {}", client.transcript());
    }
    client.await_end_of_session();
    relay.daemon.await_line(&["verdict=defer", "reason=generic-helo", "helo=localhost", "ref="]);
    let (_, reference) = text.rsplit_once('[').expect("a reference at the end");
    let decision = crate::bed::eventually("the decision is recorded", || {
        let output = relay.daemon.cli(&["explain", reference.trim_end_matches(']')]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    for part in ["reason     generic-helo\n", "helo       localhost\n", "The HELO/EHLO name localhost"] {
        assert!(decision.contains(part), "{part:?} is missing: {decision}");
    }
    // A name of its own is welcome at once, and so is a printer with none in a customer's range.
    let (client, refusal) = session(&relay, stranger(front), "mail.stranger.example");
    assert_ne!(refusal.expect("nobody's address").code, 421, "{}", client.transcript());
    for _ in 0..5 {
        let (client, refusal) = session(&relay, "192.0.2.33", "localhost");
        assert_eq!(refusal, None, "{}", client.transcript());
    }
}
on!(generic_names_are_told_what_to_change: every_front);

fn new_connections_a_minute(front: Front) {
    let mut relay = limited("per_minute = 4").start(front);
    for _ in 0..4 {
        let (client, refusal) = session(&relay, "192.0.2.7", "mail.acme.example");
        assert_eq!(refusal, None, "{}", client.transcript());
        client.quit();
    }
    let (client, refusal) = session(&relay, "192.0.2.7", "mail.acme.example");
    let text = relay.assert_reply(&refusal.expect("refused"), "421 4.7.0", WORDS);
    for part in ["4 connections a minute", "mail.acme.example", "over one connection"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    client.await_end_of_session();
    relay.daemon.let_pass(Duration::from_secs(65));
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    for _ in 0..6 {
        relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    }
    client.quit();
}
on!(new_connections_a_minute: every_front);

fn simultaneous_connections(front: Front) {
    let relay = limited("simultaneous = 3").start(front);
    let mut held: Vec<Client> = (0..3).map(|_| relay.client("192.0.2.7", "mail.acme.example")).collect();
    let (client, refusal) = session(&relay, "192.0.2.7", "mail.acme.example");
    let text = relay.assert_reply(&refusal.expect("refused"), "421 4.7.0", WORDS);
    assert!(text.contains("3 connections at a time (HELO name mail.acme.example)"), "{text}");
    client.await_end_of_session();
    held.pop().unwrap().quit();
    crate::bed::eventually("there is room again", || {
        session(&relay, "192.0.2.7", "mail.acme.example").1.is_none().then_some(())
    });
}
on!(simultaneous_connections: postfix_milter, postfix_both, sendmail_milter);

/// Without smtpd_delay_reject Postfix asks at CONNECT, EHLO and MAIL, and then there is no instance yet.
#[test]
fn postfix_that_does_not_wait_for_rcpt() {
    let folder = Folder::new();
    let asks = format!("check_policy_service unix:{}/relaykeeper/policy.sock", folder.path().display());
    let lines = format!(
        "smtpd_delay_reject = no\nsmtpd_client_restrictions = {asks}\nsmtpd_helo_restrictions = {asks}\n\
         smtpd_sender_restrictions = {asks}\n"
    );
    let limits = limited("per_minute = 4\ngeneric_helo_per_minute = 2\n").postfix(&lines);
    let relay = limits.start_in(Front::PostfixPolicy, folder);
    for _ in 0..2 {
        let (client, refusal) = session(&relay, "203.0.114.7", "localhost");
        assert_eq!(refusal.expect("nobody's address").code, 550, "{}", client.transcript());
        client.quit();
    }
    let mut client = relay.connect("203.0.114.7");
    let text = relay.assert_reply(&client.command("EHLO localhost"), "421 4.7.0", WORDS);
    assert!(text.contains("The HELO/EHLO name localhost"), "{text}");
    client.await_end_of_session();
}
