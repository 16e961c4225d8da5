//! Suspensions: an administrator's order stops mail at once, also in the midst of a transaction.

use crate::relay::{Front, Relay, Setup, on};
use std::process::Output;
use std::time::Duration;

const FIRST_WORDS: &str = "SMTP relay suspended for user: ann@acme.example (spam, ticket 4711)";

/// One that is open when the order comes: its next recipient, its end, and whatever comes after, also after a restart.
fn in_mid_transaction(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut open = relay.client("192.0.2.7", "mail.acme.example");
    let mut other = relay.client("192.0.2.7", "mail.acme.example");
    for client in [&mut open, &mut other] {
        client.open("annie@acme.example", "one@dest.example");
    }
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 0, 2);
    let suspended = relay.daemon.cli_text(&["user", "suspend", "a.nn@acme-mail.example", "--why", "spam, ticket 4711"]);
    assert!(suspended.contains("user ann@acme.example is suspended"), "{suspended}");

    let next = open.command("RCPT TO:<two@dest.example>");
    relay.assert_reply(&next, "550 5.7.1", FIRST_WORDS);
    for client in [&mut open, &mut other] {
        assert_eq!(client.command("DATA").code, 354, "{}", client.transcript());
        let end = client.content("never-sent");
        relay.assert_reply(&end, "550 5.7.1", FIRST_WORDS);
    }
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 0, 0);
    relay.deliver(&mut other, "bob@acme.example", &["one@dest.example"]);
    open.quit();
    other.quit();

    // Everybody who asks is told.
    let status = relay.daemon.cli_text(&["status"]);
    assert!(status.contains("user ann@acme.example since") && status.contains("spam, ticket 4711"), "{status}");
    assert!(relay.daemon.cli_text(&["quota", "show", "ann@acme.example"]).contains("suspended: user ann@acme.example"));
    let client = relay.address("192.0.2.7").to_string();
    let arguments = ["--client", &client, "--sender", "ann@acme.example", "--recipient", "one@dest.example"];
    let explained = relay.daemon.cli(&[&["explain"][..], &arguments].concat());
    assert_eq!(explained.status.code(), Some(1));
    assert!(text(&explained).contains("suspension refuse  user ann@acme.example is suspended"), "{}", text(&explained));

    relay.daemon.kill();
    relay.daemon.start();
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.7.1", FIRST_WORDS);
    relay.daemon.cli_text(&["user", "resume", "ann@acme.example"]);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
    let again = relay.daemon.cli(&["user", "resume", "ann@acme.example"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
}
on!(in_mid_transaction: postfix_both, sendmail_milter);

/// With `--until`, whatever is suspended may send again then; before, none of its mail passes.
fn ends_by_itself(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let address = relay.address("192.0.2.7").to_string();
    let with_login = ("kim@hooli.example", "203.0.113.99");
    let by_address = ("ann@acme.example", "192.0.2.7");
    for (kind, name, (sender, client)) in [
        ("user", "ann@acme.example", by_address),
        ("customer", "acme", by_address),
        ("client", &*address, by_address),
        ("login", "kim@hooli.example", with_login),
    ] {
        let connect = |relay: &Relay| {
            let mut client = relay.tls_client(client, "mail.acme.example");
            if (sender, name) == (with_login.0, with_login.0) {
                client.login("kim@hooli.example", "secret-kim");
            }
            client
        };
        let said = relay.daemon.cli_text(&[kind, "suspend", name, "--until", "2h", "--why", "ticket 4711"]);
        assert!(said.contains("is suspended until"), "{said}");
        let mut client = connect(&relay);
        let sent = client.send(sender, &["one@dest.example"]);
        let whose = if kind == "client" { "IP address" } else { kind };
        relay.assert_refused(&sent, "550 5.7.1", &format!("SMTP relay suspended for {whose}: {name}"));
        client.quit();
        relay.daemon.let_pass(Duration::from_secs(2 * 3_600 + 1));
        let mut client = connect(&relay);
        relay.deliver(&mut client, sender, &["one@dest.example"]);
        client.quit();
    }
}
// Clients of Sendmail come from loopback addresses here, which cannot be suspended.
on!(ends_by_itself: postfix_both);

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
