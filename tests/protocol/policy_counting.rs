//! What counts over the policy protocol, and when it is given back: Postfix tells of the end of a transaction only when
//! it is accepted.

use crate::common::installation::{Installation, Running};
use crate::common::smtpd::{Mail, Smtpd};
use crate::common::until;
use crate::{ACME, installation, main_file};
use relaykeeper::directory::LimitName;
use relaykeeper::listen::{Origin, Peer, Process};
use std::num::NonZeroU32;
use std::time::Duration;

/// An smtpd of an MTA that is known to ask at the end of messages.
async fn smtpd(running: &Running) -> Smtpd {
    let mut smtpd = running.smtpd(1);
    let exempt = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&exempt.at_end(&["x@dest.example"])).await, "DUNNO");
    smtpd
}

/// Counted and reserved recipients of the customer.
async fn counts(running: &Running) -> (u64, u64) {
    running.counted_and_reserved("acme").await
}

#[tokio::test]
async fn five_identical_requests_for_a_recipient_count_once() {
    let running = installation("").run();
    let mut smtpd = smtpd(&running).await;
    let mail = smtpd.next_mail();
    for recipient in ["a@dest.example", "b@dest.example"] {
        for _restriction in ["client", "helo", "sender", "relay", "recipient"] {
            assert_eq!(smtpd.ask(&mail.at_recipient(recipient)).await, "DUNNO");
        }
    }
    assert_eq!(counts(&running).await, (0, 2));
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (2, 0));
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 1);
    assert_eq!(running.used("ann@acme.example", LimitName::UserUniques).await, 2);
}

#[tokio::test]
async fn a_request_repeated_after_a_lost_answer_counts_once() {
    let running = installation("").run();
    let mut first = smtpd(&running).await;
    let mail = first.next_mail();
    assert_eq!(first.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
    drop(first);
    let mut second = running.smtpd(1);
    assert_eq!(second.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
    assert_eq!(second.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (1, 0));
}

#[tokio::test]
async fn a_new_instance_of_the_same_smtpd_gives_back_what_the_last_one_held() {
    let running = installation("").run();
    let mut smtpd = smtpd(&running).await;
    for _ in 0..3 {
        let mail = smtpd.next_mail();
        assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
        assert_eq!(smtpd.ask(&mail.at_recipient("b@dest.example")).await, "DUNNO");
        assert_eq!(counts(&running).await, (0, 2));
    }
    // Even one that is refused tells that the former is over.
    let refused = Mail { client: "203.0.113.1".into(), helo: "localhost".into(), ..smtpd.next_mail() };
    assert!(smtpd.ask(&refused.at_recipient("a@dest.example")).await.starts_with("550 5.7.1 "));
    assert_eq!(counts(&running).await, (0, 0));
}

#[tokio::test]
async fn another_smtpd_gives_back_nothing() {
    let running = installation("").run();
    let mut first = smtpd(&running).await;
    let first_mail = first.next_mail();
    first.ask(&first_mail.at_recipient("a@dest.example")).await;
    let mut second = running.smtpd(2);
    let second_mail = second.next_mail();
    second.ask(&second_mail.at_recipient("b@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 2));
    assert_eq!(first.ask(&first_mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (1, 1));
}

#[tokio::test]
async fn smtpds_of_two_hosts_with_one_pid_are_two() {
    let running = installation("").run();
    let [mut here, mut there] =
        ["198.51.100.1", "198.51.100.2"].map(|address| running.smtpd_of(Peer::Ip(address.parse().unwrap()), 77));
    let (mail_here, mail_there) = (here.next_mail(), there.next_mail());
    assert_eq!(mail_here.instance, mail_there.instance, "the worst case");
    assert_eq!(here.ask(&mail_here.at_recipient("a@dest.example")).await, "DUNNO");
    assert_eq!(there.ask(&mail_there.at_recipient("b@dest.example")).await, "DUNNO");
    assert_eq!(counts(&running).await, (0, 2));
    here.ask(&mail_here.at_end(&["a@dest.example"])).await;
    there.ask(&mail_there.at_end(&["b@dest.example"])).await;
    assert_eq!(counts(&running).await, (2, 0));
}

/// Two containers share a unix socket: each has processes of its own, with equal process IDs.
#[tokio::test]
async fn smtpds_of_two_containers_with_one_pid_are_two() {
    for pids in [[4711, 4712], [0, 0]] {
        let running = installation("").run();
        let of = |pid| Origin { process: Some(Process { pid: NonZeroU32::new(pid), uid: 101 }), ..Peer::Local.into() };
        let [mut here, mut there] = pids.map(|pid| running.smtpd_of(of(pid), 77));
        let exempt = Mail { client: "127.0.0.1".into(), ..here.next_mail() };
        here.ask(&exempt.at_end(&["x@dest.example"])).await;
        for number in 1..4 {
            let mail = |host: u8| Mail { instance: format!("4d.6789{number}{host}.1.0"), ..Mail::default() };
            let (mail_here, mail_there) = (mail(1), mail(2));
            assert_eq!(here.ask(&mail_here.at_recipient("a@dest.example")).await, "DUNNO");
            assert_eq!(there.ask(&mail_there.at_recipient("b@dest.example")).await, "DUNNO");
            assert_eq!(here.ask(&mail_here.at_recipient("c@dest.example")).await, "DUNNO");
            assert_eq!(counts(&running).await, (0, 3), "{pids:?}: nobody ended the other's");
        }
        assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 0);
    }
}

#[tokio::test]
async fn a_closed_connection_means_nothing() {
    let running = installation("").run();
    let mut first = smtpd(&running).await;
    let mail = first.next_mail();
    first.ask(&mail.at_recipient("a@dest.example")).await;
    assert_eq!(first.close_and_read_rest().await, b"");
    let mut second = running.smtpd(1);
    assert_eq!(counts(&running).await, (0, 1));
    second.ask(&mail.at_recipient("b@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 2));
    second.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await;
    assert_eq!(counts(&running).await, (2, 0));
}

#[tokio::test]
async fn the_number_at_the_end_counts_if_it_is_smaller() {
    let running = installation("").run();
    let mut smtpd = smtpd(&running).await;
    let mail = smtpd.next_mail();
    for recipient in ["a@dest.example", "b@dest.example", "c@dest.example"] {
        smtpd.ask(&mail.at_recipient(recipient)).await;
    }
    // Later restrictions refused one of them.
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (2, 0));
}

#[tokio::test]
async fn a_recipient_named_twice_is_one_although_the_mta_counts_two() {
    let running = installation("").run();
    let mut smtpd = smtpd(&running).await;
    let mail = smtpd.next_mail();
    for recipient in ["a@dest.example", "b@dest.example", "A@dest.example"] {
        smtpd.ask(&mail.at_recipient(recipient)).await;
    }
    smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example", "A@dest.example"])).await;
    assert_eq!(counts(&running).await, (2, 0));
}

#[tokio::test]
async fn an_end_repeated_after_a_lost_answer_counts_once_and_is_answered_alike() {
    let running = installation("").run();
    let mut first = smtpd(&running).await;
    let mail = first.next_mail();
    first.ask(&mail.at_recipient("a@dest.example")).await;
    let end = mail.at_end(&["a@dest.example"]);
    assert_eq!(first.ask(&end).await, "DUNNO");
    let mut second = running.smtpd(1);
    assert_eq!(second.ask(&end).await, "DUNNO");
    assert_eq!(counts(&running).await, (1, 0));
}

#[tokio::test]
async fn a_refused_end_repeated_is_refused_alike() {
    let running = installation("").run();
    let mut first = smtpd(&running).await;
    let mail = first.next_mail();
    first.ask(&mail.at_recipient("a@dest.example")).await;
    // The reservation times out, and somebody else takes all there is.
    running.pass_time(Duration::from_secs(600));
    let mut other = running.smtpd(2);
    let others = other.next_mail();
    let all: Vec<String> = (0..10).map(|n| format!("r{n}@dest.example")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(other.ask(&others.at_end(&all)).await, "DUNNO");
    let end = mail.at_end(&["a@dest.example"]);
    let answer = first.ask(&end).await;
    assert!(answer.starts_with("450 4.7.1 Daily SMTP relay limit exceeded for customer"), "{answer}");
    assert_eq!(running.smtpd(1).ask(&end).await, answer, "the same reference, too");
    assert_eq!(counts(&running).await, (10, 0));
}

#[tokio::test]
async fn the_end_of_a_message_that_was_never_seen_counts_its_number() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    let mail = smtpd.next_mail();
    let recipients = ["a@dest.example", "b@dest.example", "c@dest.example"];
    assert_eq!(smtpd.ask(&mail.at_end(&recipients)).await, "DUNNO");
    assert_eq!(counts(&running).await, (3, 0));
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 1);
    // A lone recipient is named, and is remembered.
    let mail = smtpd.next_mail();
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (4, 0));
    assert_eq!(running.used("ann@acme.example", LimitName::UserUniques).await, 1);
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (4, 0), "and counts once");
}

#[tokio::test]
async fn the_end_of_a_message_that_was_never_seen_is_judged() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    let stranger = Mail { client: "203.0.113.1".into(), ..smtpd.next_mail() };
    let answer = smtpd.ask(&stranger.at_end(&["a@dest.example"])).await;
    assert!(answer.starts_with("550 5.7.1 Invalid credentials for relay [203.0.113.1]"), "{answer}");
    let foreign = Mail { sender: "x@stranger.example".into(), ..smtpd.next_mail() };
    let answer = smtpd.ask(&foreign.at_end(&["a@dest.example"])).await;
    assert!(answer.starts_with("450 4.7.1 Sender x@stranger.example is outside"), "{answer}");
    let all: Vec<String> = (0..11).map(|n| format!("r{n}@dest.example")).collect();
    let answer = smtpd.ask(&smtpd_end(&all)).await;
    assert!(answer.starts_with("550 5.7.1 Daily SMTP relay limit exceeded for customer"), "{answer}");
    assert!(answer.contains("this message alone exceeds it: send to fewer recipients at a time"), "{answer}");
    assert_eq!(counts(&running).await, (0, 0));
}

fn smtpd_end(recipients: &[String]) -> String {
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    Mail { instance: "9.9.9.9".into(), ..Mail::default() }.at_end(&recipients)
}

#[tokio::test]
async fn of_a_message_that_was_never_seen_exempt_recipients_do_not_count_where_they_are_named() {
    let running = installation("relay.exempt_recipient_domains = [\"inbound.example\"]").run();
    let mut smtpd = running.smtpd(1);
    let mail = smtpd.next_mail();
    assert_eq!(smtpd.ask(&mail.at_end(&["info@inbound.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (0, 0));
    let stranger = Mail { client: "203.0.113.1".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&stranger.at_end(&["info@inbound.example"])).await, "DUNNO");
}

#[tokio::test]
async fn which_of_an_exempt_and_another_recipient_was_accepted() {
    let running = installation("relay.exempt_recipient_domains = [\"inbound.example\"]").run();
    let mut smtpd = smtpd(&running).await;
    for (accepted, counted) in [
        (vec!["a@dest.example"], 1),
        (vec!["info@inbound.example"], 1),
        // Two of three, and nobody says which: they may be both that count.
        (vec!["info@inbound.example", "a@dest.example"], 3),
        (vec!["b@dest.example"], 4),
    ] {
        let mail = smtpd.next_mail();
        for recipient in ["info@inbound.example", "a@dest.example", "b@dest.example"] {
            smtpd.ask(&mail.at_recipient(recipient)).await;
        }
        // Later restrictions refused the others.
        assert_eq!(smtpd.ask(&mail.at_end(&accepted)).await, "DUNNO");
        assert_eq!(counts(&running).await, (counted, 0), "{accepted:?}");
    }
}

#[tokio::test]
async fn one_that_the_daemon_saw_a_part_of_only() {
    let installation = installation("");
    let before = installation.run();
    let mut smtpd_before = smtpd(&before).await;
    let mail = smtpd_before.next_mail();
    smtpd_before.ask(&mail.at_recipient("a@dest.example")).await;
    // Restarted.
    let after = installation.run();
    let mut smtpd_after = after.smtpd(1);
    assert_eq!(smtpd_after.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&after).await, (1, 0));
}

#[tokio::test]
async fn other_states_are_none_of_ours() {
    let running = installation("").run();
    let mut smtpd = smtpd(&running).await;
    let stranger = Mail { client: "203.0.113.1".into(), ..smtpd.next_mail() };
    for state in ["CONNECT", "EHLO", "HELO", "MAIL", "DATA", "VRFY", "ETRN", "NOT-INVENTED-YET", ""] {
        for context in ["", "relay"] {
            let request = stranger.request(state, "a@dest.example", 1, context);
            assert_eq!(smtpd.ask(&request).await, "DUNNO", "{state}");
        }
    }
    assert!(running.holds_nothing().await);
    // Nor do they end anything.
    let mail = smtpd.next_mail();
    smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    smtpd.ask(&mail.request("DATA", "a@dest.example", 1, "")).await;
    smtpd.ask(&mail.request("VRFY", "b@dest.example", 0, "")).await;
    assert_eq!(counts(&running).await, (0, 1));
}

#[tokio::test]
async fn permission_to_relay_is_given_where_it_is_asked_for() {
    let running = installation("relay.exempt_recipient_domains = [\"inbound.example\"]").run();
    let mut smtpd = smtpd(&running).await;
    let mail = smtpd.next_mail();
    assert_eq!(smtpd.ask(&mail.request("RCPT", "a@dest.example", 0, "")).await, "DUNNO");
    assert_eq!(smtpd.ask(&mail.request("RCPT", "a@dest.example", 0, "relay")).await, "OK");
    assert_eq!(smtpd.ask(&mail.request("RCPT", "a@dest.example", 0, "Relay")).await, "DUNNO");
    assert_eq!(smtpd.ask(&mail.request("RCPT", "info@inbound.example", 0, "relay")).await, "DUNNO");
    assert_eq!(smtpd.ask(&mail.request("END-OF-MESSAGE", "", 2, "relay")).await, "DUNNO");
    let stranger = Mail { client: "203.0.113.1".into(), ..smtpd.next_mail() };
    let refused = smtpd.ask(&stranger.request("RCPT", "a@dest.example", 0, "relay")).await;
    assert!(refused.starts_with("550 5.7.1 Invalid credentials for relay"), "{refused}");
    let exempt = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&exempt.request("RCPT", "a@dest.example", 0, "relay")).await, "OK");
}

#[tokio::test]
async fn who_cannot_be_rewritten_is_treated_as_the_operator_says() {
    for (mode, passes, begin) in [
        ("auto", false, "450 4.7.1 Sender x@stranger.example is outside"),
        ("defer", false, "450 4.7.1 Sender x@stranger.example is outside"),
        ("reject", false, "550 5.7.1 Sender x@stranger.example is outside"),
        ("continue", true, "DUNNO"),
    ] {
        let running = installation(&format!("policy.on_rewrite = \"{mode}\"")).run();
        let mut smtpd = smtpd(&running).await;
        let mail = Mail { sender: "x@stranger.example".into(), ..smtpd.next_mail() };
        let answer = smtpd.ask(&mail.at_recipient("a@dest.example")).await;
        assert!(answer.starts_with(begin), "{mode}: {answer}");
        assert_eq!(counts(&running).await, (0, u64::from(passes)), "{mode}");
        // Nobody else is concerned.
        let own = smtpd.next_mail();
        assert_eq!(smtpd.ask(&own.at_recipient("a@dest.example")).await, "DUNNO", "{mode}");
        let empty = Mail { sender: String::new(), ..smtpd.next_mail() };
        assert_eq!(smtpd.ask(&empty.at_recipient("a@dest.example")).await, "DUNNO", "{mode}");
    }
}

/// It would go out through that user's gateway, with that user's password.
#[tokio::test]
async fn another_customers_address_is_never_let_through_without_being_rewritten() {
    const OTHER: &str = r#"
        name = "other"
        domains = ["other.example"]
        licenses = 1
        [[user]]
        address = "kim@other.example"
        [[user.sender]]
        address = "kim@partner.example"
        [[setting]]
        name = "login"
        allowed_senders = "registered-users"
        require_auth = true
    "#;
    let files = [("acme.toml", crate::ACME), ("other.toml", OTHER)];
    let running = Installation::of(&crate::main_file("policy.on_rewrite = \"continue\""), files).run();
    let mut smtpd = smtpd(&running).await;
    let mail = Mail { sender: "kim@partner.example".into(), ..smtpd.next_mail() };
    let answer = smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    assert!(answer.starts_with("450 4.7.1 Sender kim@partner.example is outside"), "{answer}");
    let mail = Mail { sender: "lee@partner.example".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
}

#[tokio::test]
async fn abandoned_messages_count_where_recipients_count() {
    let running = installation("policy.count_at = \"rcpt\"").run();
    let mut smtpd = smtpd(&running).await;
    let mail = smtpd.next_mail();
    smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    smtpd.ask(&mail.at_recipient("b@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 2));
    let next = smtpd.next_mail();
    smtpd.ask(&next.at_recipient("c@dest.example")).await;
    until("the abandoned message counts", async || counts(&running).await == (2, 1)).await;
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 1);
    // An end that comes all the same counts once.
    smtpd.ask(&next.at_end(&["c@dest.example"])).await;
    assert_eq!(counts(&running).await, (3, 0));
    let lines = running.log_lines();
    assert!(lines.iter().all(|line| line.contains(" verdict=accept ")), "{lines:#?}");
    assert_eq!(lines.len(), 3, "one a message: {lines:#?}");
}

#[tokio::test]
async fn abandoned_messages_do_not_count_where_ends_count() {
    let running = installation("policy.count_at = \"end-of-message\"").run();
    let mut smtpd = running.smtpd(1);
    for _ in 0..3 {
        let mail = smtpd.next_mail();
        smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    }
    assert_eq!(counts(&running).await, (0, 1));
    assert!(!running.log_lines().iter().any(|line| line.contains("END-OF-MESSAGE")));
}

#[tokio::test]
async fn until_an_mta_sends_its_first_end_its_abandoned_messages_count_with_a_warning() {
    let running = installation("").run();
    let [mut blind, mut seeing] =
        ["198.51.100.1", "198.51.100.2"].map(|address| running.smtpd_of(Peer::Ip(address.parse().unwrap()), 77));
    let mail = seeing.next_mail();
    seeing.ask(&mail.at_recipient("a@dest.example")).await;
    seeing.ask(&mail.at_end(&["a@dest.example"])).await;
    assert_eq!(counts(&running).await, (1, 0));
    for counted in [1, 2, 3] {
        let mail = blind.next_mail();
        blind.ask(&mail.at_recipient("a@dest.example")).await;
        until("the abandoned ones count", async || counts(&running).await == (counted, 1)).await;
    }
    // What the MTA that does ask at the end abandons is given back all the same.
    for _ in 0..2 {
        let mail = seeing.next_mail();
        seeing.ask(&mail.at_recipient("a@dest.example")).await;
    }
    assert_eq!(counts(&running).await, (3, 2));
    let warned = |line: &String| line.contains("smtpd_end_of_data_restrictions");
    assert_eq!(running.log_lines().iter().filter(|line| warned(line)).count(), 1);
    // With its first end the blind one sees.
    let mail = blind.next_mail();
    blind.ask(&mail.at_recipient("b@dest.example")).await;
    until("the abandoned one counts", async || counts(&running).await == (4, 2)).await;
    blind.ask(&mail.at_end(&["b@dest.example"])).await;
    for _ in 0..3 {
        let mail = blind.next_mail();
        blind.ask(&mail.at_recipient("c@dest.example")).await;
    }
    assert_eq!(counts(&running).await, (5, 2));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_an_instance_after_the_reservation_timeout() {
    let running = installation("relay.reservation_timeout = \"10m\"").run();
    let mut smtpd = smtpd(&running).await;
    let policy = running.policy.clone();
    let sweeping = tokio::spawn(async move { policy.sweep().await });
    let mail = smtpd.next_mail();
    smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    assert_eq!(running.engine.open_transactions.count(), 1);
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(running.engine.open_transactions.count(), 1);
    smtpd.ask(&mail.at_recipient("b@dest.example")).await;
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(running.engine.open_transactions.count(), 1, "it was not silent");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(running.engine.open_transactions.count(), 0);
    assert_eq!(counts(&running).await, (0, 0));
    // An end that comes after that counts, and the recipients are remembered.
    smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await;
    assert_eq!(counts(&running).await, (2, 0));
    assert_eq!(running.used("ann@acme.example", LimitName::UserUniques).await, 2);
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn silence_counts_where_recipients_count() {
    let running = installation("policy.count_at = \"rcpt\"").run();
    let mut smtpd = running.smtpd(1);
    let policy = running.policy.clone();
    let sweeping = tokio::spawn(async move { policy.sweep().await });
    let mail = smtpd.next_mail();
    smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    tokio::time::sleep(Duration::from_secs(610)).await;
    until("it counts", async || counts(&running).await == (1, 0)).await;
    // Its end, after contents that took so long, counts nothing again; nor does the next message of the smtpd.
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (1, 0));
    let next = smtpd.next_mail();
    smtpd.ask(&next.at_recipient("b@dest.example")).await;
    assert_eq!(counts(&running).await, (1, 1));
    sweeping.abort();
}

#[tokio::test]
async fn a_transaction_keeps_the_configuration_that_it_began_with() {
    let installation = installation("");
    let running = installation.run();
    let mut smtpd = smtpd(&running).await;
    let mail = smtpd.next_mail();
    assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
    let closed = ACME.replace("192.0.2.0/24", "198.51.100.0/24");
    running.engine.replace_snapshot(installation.with_customer("acme.toml", &closed));
    assert_eq!(smtpd.ask(&mail.at_recipient("b@dest.example")).await, "DUNNO");
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (2, 0));
    let next = smtpd.next_mail();
    assert!(smtpd.ask(&next.at_recipient("a@dest.example")).await.starts_with("550 5.7.1 "));
    // The main file's rules change likewise.
    let exempt = main_file("relay.exempt_clients = [\"192.0.2.0/24\"]");
    running.engine.replace_snapshot(installation.with_main(&exempt));
    assert!(smtpd.ask(&next.at_recipient("b@dest.example")).await.starts_with("550 5.7.1 "));
    let next = smtpd.next_mail();
    assert_eq!(smtpd.ask(&next.at_recipient("a@dest.example")).await, "DUNNO");
}

#[tokio::test]
async fn one_line_in_the_log_a_transaction_and_one_a_refusal() {
    let running = installation("").run();
    let mut smtpd = smtpd(&running).await;
    let before = running.log_lines().len();
    let mail = smtpd.next_mail();
    let recipients: Vec<String> = (0..11).map(|n| format!("r{n}@dest.example")).collect();
    let mut refusals = Vec::new();
    for recipient in &recipients {
        for _restriction in 0..5 {
            let answer = smtpd.ask(&mail.at_recipient(recipient)).await;
            if answer != "DUNNO" {
                refusals.push(answer);
                break;
            }
        }
    }
    let accepted: Vec<&str> = recipients[..10].iter().map(String::as_str).collect();
    smtpd.ask(&mail.at_end(&accepted)).await;
    let lines = running.log_lines()[before..].to_vec();
    assert_eq!(refusals.len(), 1);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let reference = refusals[0].rsplit_once('[').unwrap().1.trim_end_matches(']');
    assert!(lines[0].starts_with("NOQUEUE: verdict=defer reason=customer-day-limit customer=acme"), "{}", lines[0]);
    assert!(lines[0].contains(&format!(" ref={reference}")), "{}", lines[0]);
    assert!(lines[1].starts_with("3F2A1C0: verdict=accept customer=acme user=ann@acme.example"), "{}", lines[1]);
    assert!(lines[1].contains(" recipients=10 ") && lines[1].contains(" client=192.0.2.7 "), "{}", lines[1]);
    assert_eq!(running.engine.tally.recipients(), 10, "each once");
    assert_eq!(running.engine.tally.messages(), 1);
}
