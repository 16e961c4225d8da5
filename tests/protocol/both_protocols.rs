//! A message that passes both protocols is one message: client and server address and their ports name the SMTP session in both,
//! and the milter's end decides.

use crate::common::installation::Running;
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::smtpd::{Mail, Smtpd};
use crate::common::until;
use crate::installation;
use relaykeeper::directory::LimitName;
use std::time::Duration;

const RECIPIENTS: [&str; 3] = ["a@dest.example", "b@dest.example", "c@dest.example"];

/// An MTA whose SMTP session both protocols see.
struct Both {
    mta: Mta,
    smtpd: Smtpd,
}

async fn both(running: &Running, milter: &crate::common::installation::Milter) -> Both {
    let mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    let mut smtpd = running.smtpd(1);
    let exempt = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
    smtpd.ask(&exempt.at_end(&[])).await;
    Both { mta, smtpd }
}

async fn counts(running: &Running) -> (u64, u64) {
    running.counted_and_reserved("acme").await
}

impl Both {
    /// RCPT as Postfix does it: the policy service first, then the milter.
    async fn recipient(&mut self, mail: &Mail, recipient: &str) -> Result<(), String> {
        for _restriction in 0..3 {
            match self.smtpd.ask(&mail.at_recipient(recipient)).await.as_str() {
                "DUNNO" => {}
                refused => return Err(format!("policy: {refused}")),
            }
        }
        match self.mta.recipient(recipient).await {
            Answer::Continue => Ok(()),
            refused => Err(format!("milter: {}", refused.reply())),
        }
    }
}

#[tokio::test]
async fn it_counts_once() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    for sent in 1..=3 {
        let mail = both.smtpd.next_mail();
        both.mta.mail("ann@acme.example").await;
        for (n, recipient) in (1..).zip(RECIPIENTS) {
            both.recipient(&mail, recipient).await.unwrap();
            assert_eq!(counts(&running).await, (3 * (sent - 1), n));
        }
        assert_eq!(both.smtpd.ask(&mail.at_end(&RECIPIENTS)).await, "DUNNO");
        assert_eq!(counts(&running).await, (3 * (sent - 1), 3), "the milter's end decides");
        assert_eq!(both.mta.end().await.1, Answer::Continue);
        assert_eq!(counts(&running).await, (3 * sent, 0));
    }
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 3);
    let ends = running.log_lines().into_iter().filter(|line| line.contains(" customer=acme ")).count();
    assert_eq!(ends, 3, "one line a message: {:#?}", running.log_lines());
}

#[tokio::test]
async fn what_the_milter_holds_itself_is_not_in_its_way() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    for n in 0..10 {
        both.recipient(&mail, &format!("r{n}@dest.example")).await.unwrap();
    }
    // A lost answer: the same recipient again.
    both.recipient(&mail, "r9@dest.example").await.unwrap();
    let refused = both.recipient(&mail, "r10@dest.example").await.unwrap_err();
    assert!(refused.starts_with("policy: 450 4.7.1 Daily SMTP relay limit exceeded for customer"), "{refused}");
    assert_eq!(counts(&running).await, (0, 10));
}

#[tokio::test]
async fn the_policy_service_refuses_by_the_same_rules_before_the_milter_is_asked() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    let mail = Mail { sender: String::new(), ..both.smtpd.next_mail() };
    both.mta.mail("").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    let refused = both.recipient(&mail, "b@dest.example").await.unwrap_err();
    assert!(refused.starts_with("policy: 452 4.5.3 "), "{refused}");
    assert_eq!(both.smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(both.mta.end().await.1, Answer::Continue);
    assert_eq!(counts(&running).await, (1, 0));
}

#[tokio::test]
async fn permission_to_relay_and_the_new_sender_come_each_from_who_can_give_it() {
    for mode in ["auto", "continue"] {
        let running = installation(&format!("policy.on_rewrite = \"{mode}\"")).run();
        let milter = running.start_milter();
        let mut both = both(&running, &milter).await;
        let mail = Mail { sender: "x@stranger.example".into(), ..both.smtpd.next_mail() };
        both.mta.mail("x@stranger.example").await;
        assert_eq!(both.smtpd.ask(&mail.request("RCPT", "a@dest.example", 0, "relay")).await, "OK", "{mode}");
        both.recipient(&mail, "a@dest.example").await.unwrap();
        assert_eq!(both.smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
        assert_eq!(both.mta.end().await, (vec!["postmaster@acme.example".to_owned()], Answer::Continue));
        assert_eq!(counts(&running).await, (1, 0));
    }
    for (mode, begin) in [("defer", "450 4.7.1 "), ("reject", "550 5.7.1 ")] {
        let running = installation(&format!("policy.on_rewrite = \"{mode}\"")).run();
        let milter = running.start_milter();
        let mut both = both(&running, &milter).await;
        let mail = Mail { sender: "x@stranger.example".into(), ..both.smtpd.next_mail() };
        let answer = both.smtpd.ask(&mail.at_recipient("a@dest.example")).await;
        assert!(answer.starts_with(begin), "{mode}: {answer}");
    }
}

#[tokio::test]
async fn another_port_client_or_server_is_another_session_and_port_0_is_none() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    both.mta.mail("ann@acme.example").await;
    both.mta.recipient("m@dest.example").await;
    for what in ["port", "client", "server", "server port"] {
        let mut mail = both.smtpd.next_mail();
        match what {
            "port" => mail.port = 4712,
            "client" => mail.client = "192.0.2.8".into(),
            "server port" => mail.server_port = 587,
            _ => mail.server = "198.51.100.26".into(),
        }
        both.smtpd.ask(&mail.at_recipient("a@dest.example")).await;
        assert_eq!(counts(&running).await, (0, 2), "{what}: it holds its own");
    }
    let none = both.smtpd.next_mail();
    both.smtpd.ask(&Mail { client: "127.0.0.1".into(), ..none }.at_recipient("a@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 1));
    // Port 0 in both: Postfix does not know it (non_smtpd_milters), so it says nothing.
    let client = Client { port: 0, ..Client::default() };
    let mut portless = Mta::open(&milter.path, Kind::Postfix, client).await;
    portless.mail("ann@acme.example").await;
    portless.recipient("n@dest.example").await;
    let mail = Mail { port: 0, ..both.smtpd.next_mail() };
    both.smtpd.ask(&mail.at_recipient("b@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 3));
}

#[tokio::test]
async fn a_server_address_that_one_of_them_does_not_know_is_no_difference() {
    let running = installation("").run();
    let milter = running.start_milter();
    let client = Client { server: String::new(), ..Client::default() };
    let mta = Mta::open(&milter.path, Kind::Postfix, client).await;
    let mut both = Both { mta, ..both(&running, &milter).await };
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    assert_eq!(counts(&running).await, (0, 1));
    let older = Mail { server: String::new(), ..both.smtpd.next_mail() };
    both.smtpd.ask(&older.at_recipient("a@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 1));
}

#[tokio::test]
async fn spellings_of_one_address_are_one_address() {
    let running = installation("").run();
    let milter = running.start_milter();
    let client =
        Client { address: "::ffff:192.0.2.7".into(), server: "::ffff:198.51.100.25".into(), ..Client::default() };
    for kind in [Kind::Postfix, Kind::Sendmail] {
        let mut mta = Mta::open(&milter.path, kind, client.clone()).await;
        mta.mail("ann@acme.example").await;
        mta.recipient("a@dest.example").await;
        let mut smtpd = running.smtpd(3);
        let mail = smtpd.next_mail();
        assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
        assert_eq!(counts(&running).await, (0, 1), "{kind:?}");
        mta.quit().await;
        until("it is given back", async || counts(&running).await == (0, 0)).await;
    }
}

#[tokio::test]
async fn two_sessions_with_one_client_and_port_to_two_servers_are_told_apart() {
    let running = installation("").run();
    let milter = running.start_milter();
    let to = |server: &str| Client { server: server.into(), ..Client::default() };
    let mut first = Mta::open(&milter.path, Kind::Postfix, to("198.51.100.25")).await;
    let _second = Mta::open(&milter.path, Kind::Postfix, to("198.51.100.26")).await;
    first.mail("ann@acme.example").await;
    for n in 0..10 {
        first.recipient(&format!("r{n}@dest.example")).await;
    }
    let mut smtpd = running.smtpd(1);
    let mail = smtpd.next_mail();
    assert_eq!(smtpd.ask(&mail.at_recipient("r0@dest.example")).await, "DUNNO", "what the first holds is its own");
    let other = Mail { server: "198.51.100.26".into(), ..smtpd.next_mail() };
    assert!(smtpd.ask(&other.at_recipient("r0@dest.example")).await.starts_with("450 4.7.1 "));
}

#[tokio::test]
async fn without_its_milter_session_a_message_of_both_protocols_is_deferred_and_counts_nothing() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    // The milter's connection breaks, and Postfix goes on without it (milter_default_action = accept).
    drop(both.mta);
    until("the milter session is gone", async || running.engine.sessions.is_empty()).await;
    assert_eq!(counts(&running).await, (0, 0));
    assert_eq!(both.smtpd.ask(&mail.at_recipient("b@dest.example")).await, "DUNNO");
    let answer = both.smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await;
    assert!(
        answer.starts_with("451 4.3.0 Cannot decide: the MTA asks both protocols, but the milter session"),
        "{answer}"
    );
    assert_eq!(counts(&running).await, (0, 0));
    assert!(running.holds_nothing().await);
    // Once a message came without a milter session from the beginning, the MTA is known to ask the policy service alone.
    let mail = both.smtpd.next_mail();
    assert_eq!(both.smtpd.ask(&mail.at_recipient("b@dest.example")).await, "DUNNO");
    assert_eq!(both.smtpd.ask(&mail.at_end(&["b@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (1, 0));
}

#[tokio::test]
async fn a_milter_session_that_appears_late_takes_over_and_nothing_stays_held() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut smtpd = running.smtpd(1);
    let mail = smtpd.next_mail();
    smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 1));
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    mta.mail("ann@acme.example").await;
    smtpd.ask(&mail.at_recipient("b@dest.example")).await;
    assert_eq!(counts(&running).await, (0, 0), "the milter counts, and nothing twice");
    mta.recipient("b@dest.example").await;
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await, "DUNNO");
    assert_eq!(mta.end().await.1, Answer::Continue);
    assert_eq!(counts(&running).await, (1, 0));
    // Also when it appears at the end only.
    let mail = Mail { port: 5000, ..smtpd.next_mail() };
    smtpd.ask(&mail.at_recipient("c@dest.example")).await;
    let mut late = Mta::open(&milter.path, Kind::Postfix, Client { port: 5000, ..Client::default() }).await;
    late.mail("ann@acme.example").await;
    assert_eq!(smtpd.ask(&mail.at_end(&["c@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&running).await, (1, 0));
}

#[tokio::test]
async fn a_milter_transaction_that_is_given_up_gives_back_for_both() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    both.mta.abort().await;
    until("ABORT gives back", async || counts(&running).await == (0, 0)).await;
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    assert_eq!(counts(&running).await, (0, 1));
    both.mta.quit().await;
    until("QUIT gives back", async || running.holds_nothing().await).await;
}

#[tokio::test]
async fn abandoned_instances_of_a_session_that_a_milter_counts_count_nothing() {
    for mode in ["auto", "rcpt"] {
        let running = installation(&format!("policy.count_at = \"{mode}\"")).run();
        let milter = running.start_milter();
        let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
        let mut smtpd = running.smtpd(1);
        // This MTA does not ask the policy service at the end.
        for sent in 1..=3 {
            let mail = smtpd.next_mail();
            mta.mail("ann@acme.example").await;
            smtpd.ask(&mail.at_recipient("a@dest.example")).await;
            mta.recipient("a@dest.example").await;
            mta.end().await;
            assert_eq!(counts(&running).await, (sent, 0), "{mode}");
        }
        running.policy.finish().await;
        assert_eq!(counts(&running).await, (3, 0), "{mode}");
        assert!(!running.log_lines().iter().any(|line| line.contains("END-OF-MESSAGE")), "{mode}: nothing to warn of");
    }
}

#[tokio::test]
async fn limits_that_others_reach_meanwhile_are_refused_by_both() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    running.pass_time(Duration::from_secs(600));
    let mut other = running.smtpd(2);
    let others = Mail { port: 9, server: "198.51.100.26".into(), ..other.next_mail() };
    let all: Vec<String> = (0..10).map(|n| format!("r{n}@dest.example")).collect();
    other.ask(&others.at_end(&all.iter().map(String::as_str).collect::<Vec<_>>())).await;
    let refused = both.recipient(&mail, "b@dest.example").await.unwrap_err();
    assert!(refused.starts_with("policy: 450 4.7.1 Daily"), "{refused}");
    assert_eq!(both.smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    assert!(both.mta.end().await.1.reply().starts_with("450 4.7.1 Daily"));
    assert_eq!(counts(&running).await, (10, 0));
}

#[tokio::test]
async fn an_idle_milter_session_of_another_service_does_not_keep_the_policy_service_from_counting() {
    let running = installation("").run();
    let milter = running.start_milter();
    // Same client and port, and an MTA too old to name its own: only that the milter is in no transaction tells.
    for server_port in [587, 0] {
        let client = Client { server_port: if server_port == 0 { 0 } else { 25 }, ..Client::default() };
        let idle = Mta::open(&milter.path, Kind::Postfix, client).await;
        let mut smtpd = running.smtpd(server_port.into());
        let before = counts(&running).await.0;
        let mail = Mail { server_port, ..smtpd.next_mail() };
        for recipient in RECIPIENTS {
            assert_eq!(smtpd.ask(&mail.at_recipient(recipient)).await, "DUNNO");
        }
        assert_eq!(counts(&running).await, (before, 3), "{server_port}");
        assert_eq!(smtpd.ask(&mail.at_end(&RECIPIENTS)).await, "DUNNO");
        assert_eq!(counts(&running).await, (before + 3, 0), "{server_port}");
        drop(idle);
        until("the session is closed", async || running.engine.sessions.is_empty()).await;
    }
}

#[tokio::test]
async fn behind_a_proxy_filter_no_milter_hears_of_the_end_and_the_policy_service_counts() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut both = both(&running, &milter).await;
    for sent in 1..=3 {
        let mail = Mail { queue_id: String::new(), ..both.smtpd.next_mail() };
        both.mta.mail("ann@acme.example").await;
        for recipient in RECIPIENTS {
            both.recipient(&mail, recipient).await.unwrap();
        }
        assert_eq!(both.smtpd.ask(&mail.at_end(&RECIPIENTS)).await, "DUNNO");
        assert_eq!(both.smtpd.ask(&mail.at_end(&RECIPIENTS)).await, "DUNNO", "a lost answer");
        assert_eq!(counts(&running).await, (3 * sent, 0));
        both.mta.abort().await;
        assert_eq!(counts(&running).await, (3 * sent, 0), "the milter releases nothing");
    }
    assert_eq!(running.used("ann@acme.example", LimitName::UserUniques).await, 3);
    let given_up = running.log_lines().into_iter().filter(|line| line.contains("given-up")).count();
    assert_eq!(given_up, 0, "{:#?}", running.log_lines());
    // The limit holds: 9 of 10 are counted.
    let mail = Mail { queue_id: String::new(), ..both.smtpd.next_mail() };
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    assert!(both.recipient(&mail, "b@dest.example").await.is_err());
}

#[tokio::test]
async fn behind_a_proxy_filter_what_had_to_be_rewritten_is_refused_at_its_end() {
    for (mode, answer) in [("auto", "450 4.7.1 "), ("continue", "DUNNO"), ("reject", "550 5.7.1 ")] {
        let running = installation(&format!("policy.on_rewrite = \"{mode}\"")).run();
        let milter = running.start_milter();
        let mut both = both(&running, &milter).await;
        let mail = Mail { queue_id: String::new(), sender: "x@stranger.example".into(), ..both.smtpd.next_mail() };
        both.mta.mail("x@stranger.example").await;
        if mode != "reject" {
            both.recipient(&mail, "a@dest.example").await.unwrap();
        }
        let said = both.smtpd.ask(&mail.at_end(&["a@dest.example"])).await;
        assert!(said.starts_with(answer), "{mode}: {said}");
        both.mta.abort().await;
        assert_eq!(counts(&running).await, (u64::from(answer == "DUNNO"), 0), "{mode}");
    }
}

#[tokio::test]
async fn a_milter_that_is_listed_twice_counts_once() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut first = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    let mut second = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    for sent in 1..=2 {
        for mta in [&mut first, &mut second] {
            mta.mail("ann@acme.example").await;
        }
        // Five of ten: what the first holds would leave no room for the second.
        for n in 0..5 {
            for mta in [&mut first, &mut second] {
                assert_eq!(mta.recipient(&format!("r{n}@dest.example")).await, Answer::Continue, "{n}");
            }
        }
        assert_eq!(counts(&running).await, (5 * (sent - 1), 5));
        for mta in [&mut first, &mut second] {
            assert_eq!(mta.end().await.1, Answer::Continue);
        }
        assert_eq!(counts(&running).await, (5 * sent, 0));
    }
    let warnings = running.log_lines().into_iter().filter(|line| line.contains("listed twice")).count();
    assert_eq!(warnings, 1, "{:#?}", running.log_lines());
    // The first is lost: then the second counts.
    running.pass_time(Duration::from_secs(86_400));
    for mta in [&mut first, &mut second] {
        mta.mail("ann@acme.example").await;
        mta.recipient("a@dest.example").await;
    }
    first.quit().await;
    until("it is closed", async || running.engine.sessions.len() == 1).await;
    assert_eq!(second.end().await.1, Answer::Continue);
    assert_eq!(counts(&running).await, (1, 0));
}

#[tokio::test]
async fn where_no_port_is_known_the_queue_id_tells_that_it_is_one_message() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client { port: 0, ..Client::default() }).await;
    let mut smtpd = running.smtpd(1);
    for sent in 1..=2 {
        mta.mail("ann@acme.example").await;
        let mail = Mail { port: 0, queue_id: mta.queue_id_of_message(), ..smtpd.next_mail() };
        assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
        assert_eq!(mta.end().await.1, Answer::Continue);
        assert_eq!(counts(&running).await, (sent, 0));
    }
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 2);
}

#[tokio::test]
async fn after_a_restart_a_message_whose_milter_session_was_cut_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let setup = installation("");
    let before = setup.run();
    before.policy.remember_mtas_in(folder.path());
    let writer = tokio::spawn({
        let policy = before.policy.clone();
        async move { policy.remember_mtas().await }
    });
    let milter = before.start_milter();
    let mut both = both(&before, &milter).await;
    let mail = both.smtpd.next_mail();
    both.mta.mail("ann@acme.example").await;
    both.recipient(&mail, "a@dest.example").await.unwrap();
    let file = folder.path().join("mtas-with-milter");
    until("it is on disk", async || std::fs::read_to_string(&file).is_ok_and(|text| text == "198.51.100.25 25\n"))
        .await;
    writer.abort();

    let after = setup.run();
    after.policy.remember_mtas_in(folder.path());
    let _milter = after.start_milter();
    let mut smtpd = after.smtpd(1);
    let answer = smtpd.ask(&mail.at_end(&["a@dest.example"])).await;
    assert!(answer.starts_with("451 4.3.0 "), "{answer}");
    assert_eq!(counts(&after).await, (0, 0));
    // More recipients of such a message: they have a queue ID already.
    let mail = Mail { port: 4712, ..smtpd.next_mail() };
    let more = mail.request("RCPT", "b@dest.example", 0, "").replace("queue_id=\n", "queue_id=3F2A1C0\n");
    assert_eq!(smtpd.ask(&more).await, "DUNNO");
    assert!(smtpd.ask(&mail.at_end(&["a@dest.example", "b@dest.example"])).await.starts_with("451 4.3.0 "));
    assert_eq!(counts(&after).await, (0, 0));
    // Exempt clients are not ours to judge, and another service of the MTA asks the policy service alone.
    let exempt = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&exempt.at_end(&["a@dest.example"])).await, "DUNNO");
    let submission = Mail { server_port: 587, ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&submission.at_end(&["a@dest.example"])).await, "DUNNO");
    assert_eq!(counts(&after).await, (1, 0));
}
