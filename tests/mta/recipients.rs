//! Recipients of one transaction: the empty sender's one, everybody's hundred, the same one twice.

use crate::relay::{Front, Setup, on};
use crate::smtp::Reply;

fn empty_sender_has_one(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = client.send("", &["one@dest.example", "two@dest.example"]);
    assert!(sent.recipients[0].accepted() && sent.delivered(), "{}", client.transcript());
    let text = relay.assert_reply(&sent.recipients[1], "452 4.5.3", "");
    assert!(text.to_lowercase().contains("one recipient per transaction"), "{text}");
    assert_eq!(relay.sink.await_mail(&sent.id).recipients, ["one@dest.example"]);
    // The other one in a transaction of its own
    relay.deliver(&mut client, "", &["two@dest.example"]);
    client.quit();
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
}
on!(empty_sender_has_one: every_front);

/// 130 recipients at once: 100 are taken, 30 come again in the next transaction of the same session, nothing is dropped.
fn hundred_and_the_rest_again(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let mut left: Vec<String> = (0..130).map(|n| format!("user{n:03}@dest.example")).collect();
    let mut taken = Vec::new();
    for expected in [100, 30] {
        let sent = client.send("ann@acme.example", &left.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(sent.delivered(), "{}", client.transcript());
        for refused in sent.recipients.iter().filter(|reply| !reply.accepted()) {
            let text = relay.assert_reply(refused, "452 4.5.3", "");
            assert!(text.to_lowercase().contains("too many recipients"), "{text}");
        }
        let accepted = sent.recipients.iter().filter(|reply| reply.accepted()).count();
        assert_eq!(accepted, expected);
        let envelope = relay.sink.await_mail(&sent.id);
        assert_eq!(envelope.recipients.len(), expected);
        taken.extend(envelope.recipients);
        let mut replies = sent.recipients.iter().map(Reply::accepted);
        left.retain(|_| !replies.next().unwrap());
    }
    client.quit();
    assert!(left.is_empty());
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 130);
    relay.mta.await_empty_queue();
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 2, 0);
    relay.daemon.await_counts("ann@acme.example", "unique_recipients_per_day", 130, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 130, 0);
}
on!(hundred_and_the_rest_again: every_front);

fn named_twice_counts_once(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "One@DEST.example", "two@dest.example"]);
    client.quit();
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
}
on!(named_twice_counts_once: every_front);
