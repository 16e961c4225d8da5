//! Daemons that share their counts in Redis or Valkey, and what becomes of mail while the store is away.

use crate::common::installation::Running;
use crate::common::redis::{Flavour, Kind, Servers};
use crate::common::smtpd::Mail;
use crate::common::until;
use crate::{ACME, installation};
use relaykeeper::clock::ManualClock;
use relaykeeper::config::OnOutage;
use relaykeeper::ledger::{Ledger, Readiness};
use std::sync::Arc;
use std::time::Duration;

/// A daemon that uses the servers.
fn daemon(servers: &Servers, on_outage: OnOutage) -> Running {
    let ledger = Ledger::open_shared(&servers.urls(), on_outage, Duration::from_secs(600)).unwrap();
    installation("").run_with(ledger, Arc::new(ManualClock::default()))
}

/// Sends messages from several connections at once. How many were accepted.
async fn send(running: &Running, connections: u32, messages: u32) -> u32 {
    let mut accepted = 0;
    let mut smtpds: Vec<_> = (1..=connections).map(|pid| running.smtpd(pid)).collect();
    for message in 0..messages {
        let mut begun = Vec::new();
        for (pid, smtpd) in (1..).zip(&mut smtpds) {
            let mail = Mail { port: pid, ..smtpd.next_mail() };
            let recipient = format!("r{pid}.{message}@dest.example");
            let answer = smtpd.ask(&mail.at_recipient(&recipient)).await;
            if answer == "DUNNO" {
                begun.push((smtpd, mail, recipient));
            } else {
                assert!(answer.starts_with("450 4.7.1 Daily SMTP relay limit exceeded for customer"), "{answer}");
            }
        }
        for (smtpd, mail, recipient) in begun {
            assert_eq!(smtpd.ask(&mail.at_end(&[&recipient])).await, "DUNNO", "it was reserved");
            accepted += 1;
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_that_race_for_one_limit_never_let_one_more_through() {
    assert!(ACME.contains("recipients_per_day = 10\n"));
    for (flavour, kind) in [(Flavour::Redis, Kind::Single), (Flavour::Valkey, Kind::Cluster)] {
        let servers = Servers::start(flavour, kind, &[]);
        let (one, other) = (daemon(&servers, OnOutage::Defer), daemon(&servers, OnOutage::Defer));
        let (of_one, of_other) = tokio::join!(send(&one, 4, 5), send(&other, 4, 5));
        assert_eq!(of_one + of_other, 10, "{flavour:?} {kind:?}");
        assert_eq!(one.counted_and_reserved("acme").await, (10, 0));
        assert_eq!(other.counted_and_reserved("acme").await, (10, 0));
    }
}

#[tokio::test]
async fn while_the_store_is_away_mail_is_deferred_at_once() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    let running = daemon(&servers, OnOutage::Defer);
    assert_eq!(send(&running, 1, 2).await, 2);
    servers.pause(0);
    let mut smtpd = running.smtpd(7);
    let mail = Mail { port: 7, ..smtpd.next_mail() };
    let answer = smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    assert!(answer.starts_with("451 4.3.0 Cannot decide: the store is unavailable"), "{answer}");
    let ledger = &running.engine.ledger;
    until("it is known to be away", async || matches!(ledger.health().readiness, Readiness::Failed(_))).await;
    let asked = std::time::Instant::now();
    for n in 0..100 {
        let mail = Mail { port: 7, ..smtpd.next_mail() };
        let answer = smtpd.ask(&mail.at_recipient(&format!("r{n}@dest.example"))).await;
        assert!(answer.starts_with("451 4.3.0 "), "{answer}");
    }
    assert!(asked.elapsed() < crate::common::PATIENCE, "a hundred deadlines would take longer");
    servers.resume(0);
    until("it is back", async || ledger.health().readiness == Readiness::Ready).await;
    assert_eq!(send(&running, 1, 3).await, 3);
    // The question that nobody waited for any more may have been answered in the end: it holds one, for a while.
    let (counted, reserved) = running.counted_and_reserved("acme").await;
    assert!(counted == 5 && reserved <= 1, "{counted} {reserved}");
}

#[tokio::test]
async fn mail_that_passed_while_the_store_was_away_is_counted_once_it_is_back() {
    let servers = Servers::start(Flavour::Valkey, Kind::Single, &["--appendonly", "yes"]);
    let running = daemon(&servers, OnOutage::Accept);
    assert_eq!(send(&running, 1, 2).await, 2);
    servers.kill(0);
    assert_eq!(send(&running, 2, 3).await, 6);
    let ledger = &running.engine.ledger;
    until("it is known to be away", async || matches!(ledger.health().readiness, Readiness::Degraded(_))).await;
    servers.start_again(0);
    until("all is counted", async || {
        ledger.health().readiness == Readiness::Ready && running.counted_and_reserved("acme").await == (8, 0)
    })
    .await;
    assert_eq!(send(&running, 1, 3).await, 2, "ten is the limit");
}
