//! One message counts once, whoever reports its end, and however often.

use crate::bed::Folder;
use crate::relay::{Front, Relay, Setup, on};
use crate::sink::Sink;

fn assert_counts(relay: &Relay, messages: u64, recipients: u64) {
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", messages, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", recipients, 0);
}

/// Postfix asks a milter nothing at the end of such a message, and the policy service without a queue ID.
fn proxy_filter(front: Front) {
    let folder = Folder::new();
    let filter = Sink::start(&folder);
    let relay = Setup::with_customers()
        .main("limits.user.messages_per_day = 2")
        .postfix(&format!("smtpd_proxy_filter = 127.0.0.1:{}\n", filter.port))
        .start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    for sent in 1..=2 {
        let message = client.send("ann@acme.example", &["one@dest.example", "two@dest.example"]);
        assert!(message.accepted(), "{}", client.transcript());
        filter.await_mail(&message.id);
        assert_counts(&relay, sent, 2 * sent);
    }
    let refused = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&refused, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    client.quit();
    assert_counts(&relay, 2, 4);
    assert!(!relay.daemon.log().contains("reason=given-up"), "{}", relay.daemon.log());
}
on!(proxy_filter: postfix_policy, postfix_both);

/// Two connections of the MTA for one session, and two ends of one message.
fn listed_twice(front: Front) {
    let folder = Folder::new();
    let milter = folder.path().join("relaykeeper/milter.sock");
    let relay = Setup::with_customers()
        .main("limits.user.unique_recipients_per_day = 3")
        .after_milter(milter)
        .start_in(front, folder);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    // What the first connection reserves would leave no room for the second.
    for sent in 1..=2 {
        relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example"]);
        assert_counts(&relay, sent, 2 * sent);
    }
    client.quit();
    relay.daemon.await_line(&["listed twice among its milters"]);
}
on!(listed_twice: postfix_milter, postfix_both, sendmail_milter);

/// Postfix answers 451, as its milter session was cut; the policy service was asked before that.
fn restart_between_rcpt_and_data(front: Front) {
    let mut relay = Setup::with_customers().main("relay.drain = \"1s\"").start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.open("ann@acme.example", "two@dest.example");
    relay.daemon.stop();
    relay.daemon.start();
    assert!(client.command("DATA").code < 400, "{}", client.transcript());
    let refused = client.content("restarted");
    assert_eq!(refused.code, 451, "{}", client.transcript());
    client.quit();
    assert_counts(&relay, 1, 1);
    let mut again = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut again, "ann@acme.example", &["two@dest.example"]);
    again.quit();
    assert_counts(&relay, 2, 2);
}
on!(restart_between_rcpt_and_data: postfix_both);
