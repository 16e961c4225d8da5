//! Mail from sendmail(1): Postfix asks a milter about it (`non_smtpd_milters`), and can refuse it at its end only.

use crate::bed::eventually;
use crate::relay::{Front, Relay, Setup};
use std::time::Duration;

const WEB_SITES: &str = r#"
name = "acme"
domains = ["acme.example"]
licenses = 5
limits.user.messages_per_day = 2
limits.transaction.recipients = 3

[[user]]
address = "shop@acme.example"

[[setting]]
name = "web sites on this host"
allowed_senders = "own-domains"
[[setting.ip]]
range = "127.0.0.1"
"#;

fn relay(local_submission: &str) -> Relay {
    Setup::new()
        .main(local_submission)
        .customer("acme", WEB_SITES)
        .postfix("non_smtpd_milters = $smtpd_milters\n")
        .start(Front::PostfixMilter)
}

/// Nothing else goes to this address.
fn await_bounce(relay: &Relay, sender: &str) {
    relay.mta.await_line(&["postfix/smtp", &format!("to=<{sender}>"), "status=sent"]);
}

fn await_nothing_handed_in(relay: &Relay) {
    eventually("nothing is left in the maildrop", || (relay.mta.handed_in() == 0).then_some(()));
}

#[test]
fn it_is_judged_and_counted_waits_for_its_limit_and_bounces_where_waiting_does_not_help() {
    let mut relay = relay("relay.local_submission = \"judge\"");
    for id in ["first", "second"] {
        relay.mta.hand_in("shop@acme.example", &["one@dest.example"], id);
        relay.sink.await_mail(id);
    }
    relay.daemon.await_counts("shop@acme.example", "messages_per_day", 2, 0);
    relay.mta.hand_in("shop@acme.example", &["two@dest.example"], "third");
    relay.daemon.await_line(&["verdict=defer", "reason=user-message-limit", "user=shop@acme.example"]);
    assert_eq!(relay.mta.handed_in(), 1, "it waits");

    // No customer of this sender: the words of the refusal come back to it, and nothing stays behind.
    relay.mta.hand_in("www-data@web7.hosting.test", &["three@dest.example"], "fourth");
    let line = relay.mta.await_line(&["milter-reject: END-OF-MESSAGE", "from=<www-data@web7.hosting.test>"]);
    assert!(line.contains("5.7.0 Mail relay denied [127.0.0.1]"), "{line}");
    await_bounce(&relay, "www-data@web7.hosting.test");
    assert_eq!(relay.mta.handed_in(), 1);

    // More recipients than one message may have: nobody brings the rest, so it bounces.
    let many: Vec<String> = (0..4).map(|n| format!("m{n}@dest.example")).collect();
    relay.daemon.let_pass(Duration::from_secs(86_401));
    relay.mta.hand_in("shop@acme.example", &many.iter().map(String::as_str).collect::<Vec<_>>(), "fifth");
    let line = relay
        .mta
        .await_line(&["milter-reject: END-OF-MESSAGE", "5.5.3 Your message has too many recipients: at most 3"]);
    assert!(line.contains("is never split"), "{line}");
    await_bounce(&relay, "shop@acme.example");
    // The one that waited leaves, now that the limit allows it: any mail makes Postfix look again.
    relay.sink.await_mail("third");
    await_nothing_handed_in(&relay);
    relay.daemon.await_counts("shop@acme.example", "messages_per_day", 1, 0);
    relay.mta.await_empty_queue();
    assert!(!relay.mta.log().contains("milter configuration error"), "{}", relay.mta.log());
}

#[test]
fn it_passes_uncounted_where_it_is_exempt() {
    for local_submission in ["relay.exempt_clients = [\"127.0.0.0/8\"]", "relay.local_submission = \"exempt\""] {
        let relay = relay(local_submission);
        for sender in ["shop@acme.example", "www-data@web7.hosting.test"] {
            relay.mta.hand_in(sender, &["one@dest.example"], sender);
            relay.sink.await_mail(sender);
        }
        relay.daemon.await_counts("shop@acme.example", "messages_per_day", 0, 0);
        await_nothing_handed_in(&relay);
    }
}
