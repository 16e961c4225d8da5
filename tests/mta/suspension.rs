//! Suspensions: an administrator's order stops mail at once, also in the midst of a transaction.

use crate::relay::{Front, Setup, on};
use std::process::Output;

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

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
