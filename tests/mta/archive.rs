//! Copies for the archive leave a real MTA, beside the message itself.

use crate::customers::INITECH;
use crate::relay::{Front, Setup, on};

fn each_message_is_copied(front: Front) {
    let customer = format!("archive_to = \"{{local}}@archive.example\"\n{INITECH}");
    let mut relay = Setup::new().customer("initech", &customer).start(front);
    let mut client = relay.client("203.0.113.5", "app.initech.example");
    for (sender, leaves_as, copy) in [
        ("clerk@initech.example", "clerk@initech.example", "clerk@archive.example"),
        ("guest@elsewhere.example", "postmaster@initech.example", "guest@archive.example"),
        ("", "", "postmaster@archive.example"),
    ] {
        let sent = client.send(sender, &["you@dest.example"]);
        assert!(sent.accepted(), "{sent:?}");
        relay.sink.await_mail(&sent.id);
        relay.mta.await_empty_queue();
        // An MTA may deliver both at once, or one by one.
        let envelopes = relay.sink.with_id(&sent.id);
        assert!(envelopes.iter().all(|envelope| envelope.sender == leaves_as), "{envelopes:?}");
        let mut recipients: Vec<_> = envelopes.into_iter().flat_map(|envelope| envelope.recipients).collect();
        recipients.sort();
        assert_eq!(recipients, [copy, "you@dest.example"]);
    }
    client.quit();
    relay.daemon.await_counts("initech", "customer.recipients_per_day", 3, 0);
    assert!(!relay.mta.log().contains("ignoring ESMTP argument"), "{}", relay.mta.log());
}
on!(each_message_is_copied: postfix_milter, postfix_both, sendmail_milter);

/// Nobody who sends has to read that the archive is full.
fn the_archives_troubles_are_not_the_senders(front: Front) {
    let customer = format!("archive_to = \"vault@gone.example\"\n{INITECH}");
    let setup = Setup::new().customer("initech", &customer);
    let setup = setup.postfix("transport_maps = inline:{{gone.example=error:5.7.1 the archive is gone}}\n");
    let mut relay = setup.start(front);
    let mut client = relay.client("203.0.113.5", "app.initech.example");
    let sent = client.send("clerk@initech.example", &["you@dest.example"]);
    assert!(sent.accepted(), "{sent:?}");
    assert_eq!(relay.sink.await_mail(&sent.id).recipients, ["you@dest.example"]);
    relay.mta.await_line(&["to=<vault@gone.example>", "the archive is gone", "status=bounced"]);
    relay.mta.await_empty_queue();
    assert!(!relay.mta.log().contains("sender non-delivery notification"), "{}", relay.mta.log());
}
on!(the_archives_troubles_are_not_the_senders: postfix_milter, postfix_both);
