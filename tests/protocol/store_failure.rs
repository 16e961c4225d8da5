//! The store is down: what cannot be decided is deferred, unless the operator chose to accept.

use crate::common::installation::Running;
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::smtpd::Mail;
use crate::common::until;
use crate::installation;
use relaykeeper::clock::ManualClock;
use relaykeeper::config::Sync;
use relaykeeper::ledger::Ledger;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

#[derive(Clone, Copy, Debug)]
enum Broken {
    /// It can be read and takes no counts, as on a full disk.
    TakesNothing,
    /// What was counted cannot be read.
    CannotBeRead,
}

async fn run(broken: Broken, more: &str) -> (TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let store = Ledger::open(folder.path(), Sync::Full, Duration::from_secs(600)).unwrap();
    store.ready().await.unwrap();
    store.close().await;
    drop(store);
    if let Broken::CannotBeRead = broken {
        let file = rusqlite::Connection::open(folder.path().join("ledger.db")).unwrap();
        file.execute_batch("DROP VIEW IF EXISTS messages; DROP TABLE message;").unwrap();
    }
    let ledger = Ledger::open_read_only(folder.path()).unwrap();
    let clock = Arc::new(ManualClock::default());
    (folder, installation(more).run_with(ledger, clock))
}

fn is_undecided(reply: &str) -> bool {
    reply.starts_with("451 4.3.0 Cannot decide: ") && reply.contains("try again later") && reply.ends_with(']')
}

#[tokio::test]
async fn counts_that_are_not_taken_defer_the_message() {
    let (_folder, running) = run(Broken::TakesNothing, "").await;
    let milter = running.start_milter();
    for kind in [Kind::Postfix, Kind::Sendmail] {
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        mta.mail("ann@acme.example").await;
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        let (_, answer) = mta.end().await;
        assert!(is_undecided(answer.reply()), "{answer:?}");
        mta.quit().await;
    }
    let mut smtpd = running.smtpd(1);
    let mail = Mail { port: 1, ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.at_recipient("a@dest.example")).await, "DUNNO");
    let answer = smtpd.ask(&mail.at_end(&["a@dest.example"])).await;
    assert!(is_undecided(&answer), "{answer}");
    assert_eq!(running.counted_and_reserved("acme").await, (0, 0));
    let deferred = |line: &String| line.contains("verdict=defer reason=cannot-decide customer=acme");
    assert_eq!(running.log_lines().iter().filter(|line| deferred(line)).count(), 3);
}

#[tokio::test]
async fn counts_that_are_not_taken_let_the_message_pass_where_the_operator_says_so() {
    let (_folder, running) = run(Broken::TakesNothing, "relay.on_failure = \"accept\"").await;
    let milter = running.start_milter();
    for kind in [Kind::Postfix, Kind::Sendmail] {
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        mta.mail("x@stranger.example").await;
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        assert_eq!(mta.end().await, (vec!["postmaster@acme.example".to_owned()], Answer::Continue));
        mta.quit().await;
    }
    assert_eq!(running.counted_and_reserved("acme").await, (0, 0));
    let passed = |line: &String| line.contains("verdict=accept reason=on-failure customer=acme");
    assert_eq!(running.log_lines().iter().filter(|line| passed(line)).count(), 2, "and it is said");
}

#[tokio::test]
async fn a_store_that_cannot_be_read_defers_every_recipient() {
    let (_folder, running) = run(Broken::CannotBeRead, "").await;
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    mta.mail("ann@acme.example").await;
    let answer = mta.recipient("a@dest.example").await;
    assert!(is_undecided(answer.reply()), "{answer:?}");
    let mut smtpd = running.smtpd(1);
    let mail = Mail { port: 1, ..smtpd.next_mail() };
    let answer = smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    assert!(is_undecided(&answer), "{answer}");
    let answer = smtpd.ask(&mail.at_end(&["a@dest.example"])).await;
    assert!(is_undecided(&answer), "{answer}");
    // What the rules alone decide is decided.
    let stranger = Mail { client: "203.0.113.1".into(), ..smtpd.next_mail() };
    assert!(smtpd.ask(&stranger.at_recipient("a@dest.example")).await.starts_with("550 5.7.1 "));
    let exempt = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&exempt.at_recipient("a@dest.example")).await, "DUNNO");
}

#[tokio::test]
async fn a_store_that_cannot_be_read_lets_mail_pass_where_the_operator_says_so_and_the_other_rules_hold() {
    let (_folder, running) = run(Broken::CannotBeRead, "relay.on_failure = \"accept\"").await;
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    mta.mail("x@stranger.example").await;
    for n in 0..100 {
        assert_eq!(mta.recipient(&format!("r{n}@dest.example")).await, Answer::Continue);
    }
    assert!(mta.recipient("r100@dest.example").await.reply().starts_with("452 4.5.3 Your message has too many"));
    assert_eq!(mta.end().await, (vec!["postmaster@acme.example".to_owned()], Answer::Continue));
    mta.mail("").await;
    assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
    assert!(mta.recipient("b@dest.example").await.reply().starts_with("452 4.5.3 "));
    mta.quit().await;
    let mut smtpd = running.smtpd(1);
    let mail = Mail { port: 1, ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.request("RCPT", "a@dest.example", 0, "relay")).await, "OK");
    assert_eq!(smtpd.ask(&mail.at_end(&["a@dest.example"])).await, "DUNNO");
    until("nothing is open", async || running.engine.open_transactions.count() == 0).await;
    // A refused sender is refused all the same.
    let foreign = Mail { sender: "x@stranger.example".into(), port: 1, ..smtpd.next_mail() };
    assert!(smtpd.ask(&foreign.at_recipient("a@dest.example")).await.starts_with("450 4.7.1 Sender"));
}
