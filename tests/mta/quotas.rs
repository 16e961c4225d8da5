//! Quotas (relay service, section 5): what counts, for whom, and what is said when it is reached.

use crate::relay::{Front, Relay, Setup, on};
use crate::smtp::Client;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60 + 1);

/// acme with these lines about limits (and the like), other customers as they are.
fn acme_with(lines: &str) -> Setup {
    Setup::with_customers().customer("acme", &crate::customers::ACME.replace("licenses = 250", lines))
}

fn acme_client(relay: &Relay) -> Client {
    relay.client("192.0.2.7", "mail.acme.example")
}

fn messages_of_a_user(front: Front) {
    let mut relay = acme_with("licenses = 250\nlimits.user.messages_per_day = 2").start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example"]);
    relay.deliver(&mut client, "annie@acme.example", &["one@dest.example"]);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    // Class 4 unless the operator chose otherwise: the client keeps the mail.
    let text = relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    assert!(
        text.contains("ann@acme.example") && text.contains('2') && text.contains("UTC"),
        "who, how many, until when: {text}"
    );
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 2, 0);
    let quota = relay.daemon.quota("ann@acme.example", "messages_per_day");
    assert_eq!((quota.max, quota.window_seconds), (2, 86_400));
    assert!(quota.resets_at.is_some(), "full, so it says when one more fits");
    relay.daemon.let_pass(DAY);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 1, 0);
    assert_eq!(relay.daemon.quota("ann@acme.example", "messages_per_day").resets_at, None);
}
on!(messages_of_a_user: every_front);

fn different_recipients_of_a_user(front: Front) {
    let relay = acme_with("licenses = 250\nlimits.user.unique_recipients_per_day = 2").start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example"]);
    relay.deliver(&mut client, "ann@acme.example", &["two@dest.example"]); // known: costs nothing
    let sent = client.send("ann@acme.example", &["three@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
    relay.daemon.await_counts("ann@acme.example", "unique_recipients_per_day", 2, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 4, 0);
}
on!(different_recipients_of_a_user: every_front);

fn day_of_a_customer(front: Front) {
    let mut relay = acme_with("licenses = 250\nlimits.customer.recipients_per_day = 3").start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example", "three@dest.example"]);
    // Nobody of this customer can send now, and everybody else can.
    for sender in ["bob@acme.example", ""] {
        let sent = client.send(sender, &["one@dest.example"]);
        relay.assert_refused(&sent, "450 4.7.1", "Daily SMTP relay limit exceeded for customer");
    }
    let mut other = relay.client("198.51.100.9", "mail.globex.example");
    relay.deliver(&mut other, "anybody@globex.example", &["one@dest.example"]);
    relay.daemon.let_pass(DAY);
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
}
on!(day_of_a_customer: every_front);

fn peak_of_a_customer(front: Front) {
    let mut relay = acme_with("licenses = 250\nlimits.customer.recipients_per_10_min = 2").start(front);
    let mut client = acme_client(&relay);
    // What does not fit is refused, what fits is delivered.
    let sent = client.send("ann@acme.example", &["one@dest.example", "two@dest.example", "three@dest.example"]);
    assert!(sent.delivered(), "{}", client.transcript());
    assert_eq!(sent.recipients.iter().map(|reply| reply.code / 100).collect::<Vec<_>>()[..2], [2, 2]);
    assert!(!sent.recipients[2].accepted(), "the third of two");
    assert_eq!(relay.sink.await_mail(&sent.id).recipients.len(), 2);
    let sent = client.send("bob@acme.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "450 4.2.1", "Peak SMTP relay limit exceeded for customer");
    assert!(text.contains("acme") && text.contains("UTC"), "{text}");
    relay.daemon.let_pass(Duration::from_secs(601));
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
    client.quit();
    relay.daemon.await_counts("acme", "customer.recipients_per_10_min", 1, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 3, 0);
}
on!(peak_of_a_customer: every_front);

/// Few licences: nine recipients each in ten minutes.
fn peak_per_licence(front: Front) {
    let relay = acme_with("licenses = 1").start(front);
    let mut client = acme_client(&relay);
    let recipients: Vec<String> = (0..9).map(|n| format!("user{n}@dest.example")).collect();
    relay.deliver(&mut client, "ann@acme.example", &recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let sent = client.send("bob@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.2.1", "Peak SMTP relay limit exceeded for customer");
    client.quit();
}
on!(peak_per_licence: postfix_both, sendmail_milter);

fn customer_that_has_not_paid(front: Front) {
    let unpaid = "licenses = 250\nbilling = \"unpaid\"";
    let relay = acme_with(unpaid).main("[limits]\nunpaid.recipients_per_10_min = 2\n").start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example"]);
    let sent = client.send("bob@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.2.1", "Peak SMTP relay limit exceeded for customer");
    client.quit();
}
on!(customer_that_has_not_paid: every_front);

/// The service's own class 5, where the operator chose it.
fn rejected_instead_of_deferred(front: Front) {
    let limits = "[limits]\naction = \"reject\"\nuser.messages_per_day = 1\ncustomer.recipients_per_day = { max = 2, action = \"reject\" }\n";
    let relay = Setup::with_customers().main(limits).start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.4.5", "Daily SMTP relay limit exceeded for user");
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
    let sent = client.send("", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.7.1", "Daily SMTP relay limit exceeded for customer");
    client.quit();
}
on!(rejected_instead_of_deferred: every_front);

fn reset_by_the_operator(front: Front) {
    let relay = acme_with("licenses = 250\nlimits.user.messages_per_day = 1").start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    let shown = relay.daemon.cli_text(&["quota", "show", "ann@acme.example"]);
    assert!(shown.contains("ann@acme.example") && shown.contains('1'), "{shown}");
    relay.daemon.cli_text(&["quota", "reset", "ann@acme.example"]);
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 0, 0);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
}
on!(reset_by_the_operator: postfix_both, sendmail_milter);

/// Both protocols see each message; it counts once, and so does every recipient.
fn seen_by_both_protocols_counts_once(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = acme_client(&relay);
    for n in 1..=3 {
        relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example"]);
        relay.daemon.await_counts("ann@acme.example", "messages_per_day", n, 0);
        relay.daemon.await_counts("acme", "customer.recipients_per_day", 2 * n, 0);
    }
    client.quit();
    // Whatever could still come late came with the end of the session.
    let mut next = acme_client(&relay);
    relay.deliver(&mut next, "bob@acme.example", &["one@dest.example"]);
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 3, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 7, 0);
    next.quit();
}
on!(seen_by_both_protocols_counts_once: postfix_both);
