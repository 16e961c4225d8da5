//! Daemons that share their counts in Redis or Valkey, and what becomes of mail while the store is away.

use crate::administration::Administrator;
use crate::common::installation::Running;
use crate::common::redis::{Flavour, Kind, Servers};
use crate::common::smtpd::Mail;
use crate::common::until;
use crate::{ACME, installation};
use relaykeeper::clock::{Clock, ManualClock, Moment};
use relaykeeper::config::OnOutage;
use relaykeeper::ledger::{Ledger, Readiness};
use serde_json::json;
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
    // With "everysec", a server whose disk is slow acknowledges what it has not written yet: what it had counted would be lost.
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let servers = Servers::start(Flavour::Valkey, Kind::Single, &options);
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

#[tokio::test]
async fn an_administrator_accepts_the_new_time_of_a_server_whose_clock_jumped() {
    let servers = Servers::start(Flavour::Valkey, Kind::Single, &[]);
    let clocks = [(); 2].map(|()| Arc::new(ManualClock::at(Moment::from_seconds(1_800_000_000))));
    let both = clocks.clone().map(|clock| clock as Arc<dyn Clock>);
    let opened =
        Ledger::open_shared_with_clocks(&servers.urls(), OnOutage::Defer, None, Duration::from_secs(600), both);
    let [server, _] = clocks;
    let running = installation("").run_with(opened.unwrap(), Arc::new(ManualClock::default()));
    let mut administrator = Administrator::of(&running);
    let reset = json!({ "command": "clock-reset", "why": "NTP was off" });
    assert_eq!(send(&running, 1, 4).await, 4);
    let answer = administrator.ask(reset.clone()).await;
    assert_eq!(answer["answer"], "no");
    let words = "no server's clock has jumped, as far as this daemon knows: nothing to accept";
    assert_eq!(answer["words"], words);
    server.advance(Duration::from_secs(86_400));
    let mut smtpd = running.smtpd(7);
    let mail = Mail { port: 7, ..smtpd.next_mail() };
    let answer = smtpd.ask(&mail.at_recipient("a@dest.example")).await;
    assert!(answer.starts_with("451 4.3.0 Cannot decide: the store is unavailable"), "{answer}");
    let status = administrator.ask(json!({ "command": "status" })).await;
    let store = status["status"]["store"].as_str().unwrap();
    assert_eq!(
        store,
        "failed: the server's clock jumped forward by 1 day: correct it (chronyd, ntpd), or, if the new time is right, run \"relaykeeper quota reset --clock\""
    );
    let answer = administrator.ask(reset).await;
    assert_eq!(answer["words"], "the clock of the server is accepted: 2 accounts were moved forward by 1 day");
    let ledger = &running.engine.ledger;
    until("it is ready", async || ledger.health().readiness == Readiness::Ready).await;
    assert_eq!(running.counted_and_reserved("acme").await, (4, 0));
    assert_eq!(send(&running, 1, 8).await, 6, "ten is the limit");
    let lines = running.log_lines();
    let logged = |line: &&String| line.contains("event=clock-reset") && line.contains("why=\"NTP was off\"");
    assert_eq!(lines.iter().filter(logged).count(), 1, "{lines:?}");
}
