//! Many requests at once to the shared store: they share calls, each gets its own response, and none affects another.

use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, START, runtime};
use relaykeeper::clock::ManualClock;
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerAnswer, LedgerError, RecipientKey, ReservationId};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// More than go in one call, and than a connection takes at once.
const MANY: u64 = 300;

const EACH: [(Flavour, Kind); 2] = [(Flavour::Redis, Kind::Single), (Flavour::Valkey, Kind::Single)];

fn open(servers: &Servers) -> Ledger {
    Ledger::open_shared(&servers.urls(), OnOutage::Defer, RESERVATION_TIMEOUT).unwrap()
}

fn at_most(max: u64) -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |name| match name {
        LimitName::CustomerDay => Limit::of(max),
        _ => Limit::UNLIMITED,
    })
}

fn user(customer: &str, user: &str) -> Parties {
    Parties { customer: customer.into(), user: Some(user.into()), login: None }
}

async fn used_and_reserved(ledger: &Ledger, customer: &str) -> (u64, u64) {
    let subject = Subject { kind: SubjectKind::Customer, customer: customer.into(), name: customer.into() };
    let usage = ledger.usage(&subject, &at_most(MANY)).await.unwrap();
    (usage[0].used, usage[0].reserved)
}

type Reserved = (ReservationId, Parties, Result<LedgerAnswer, LedgerError>);

/// At once, each by a session of its own.
fn reserve(ledger: &Ledger, max: u64, whose: impl Fn(u64) -> Parties) -> JoinSet<Reserved> {
    let mut sessions = JoinSet::new();
    for n in 0..MANY {
        let (ledger, parties) = (ledger.clone(), whose(n));
        sessions.spawn(async move {
            let id = ledger.new_reservation();
            let answer = ledger.reserve(id, &parties, &at_most(max), RecipientKey(n)).await;
            (id, parties, answer)
        });
    }
    sessions
}

fn calls(servers: &Servers) -> u64 {
    let text = servers.cli(0, &["info", "commandstats"]);
    let line = text.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts ran");
    let number = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next());
    number.and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn many_at_once_take_few_calls_and_are_decided_one_by_one() {
    for (flavour, kind) in EACH {
        let servers = Servers::start(flavour, kind, &[]);
        runtime().block_on(async {
            let ledger = open(&servers);
            ledger.ready().await.unwrap();
            servers.cli(0, &["config", "resetstat"]);
            let all = reserve(&ledger, MANY - 7, |n| user("acme", &format!("u{}", n % 5))).join_all().await;
            let fit = all.iter().filter(|(_, _, answer)| answer.as_ref().unwrap().fits()).count() as u64;
            assert_eq!(fit, MANY - 7);
            assert!(calls(&servers) < MANY / 5, "{} calls", calls(&servers));
            assert_eq!(used_and_reserved(&ledger, "acme").await, (0, MANY - 7));

            let mut commits = JoinSet::new();
            for (n, (id, parties, answer)) in all.into_iter().enumerate() {
                // Released and counted by turns; what was refused has nothing to release.
                let ledger = ledger.clone();
                commits.spawn(async move {
                    if !answer.unwrap().fits() || n % 2 == 0 {
                        return ledger.release(id, &parties);
                    }
                    let kept = AcceptedRecipients { named: &[RecipientKey(n as u64 + 1000)], unnamed: 0 };
                    assert!(ledger.commit(id, &parties, &at_most(MANY), kept).await.unwrap().fits());
                });
            }
            let sent = commits.len() as u64;
            commits.join_all().await;
            let (used, reserved) = used_and_reserved(&ledger, "acme").await;
            assert_eq!(reserved, 0);
            assert!((sent / 2 - 7..=sent / 2).contains(&used), "{used}");
        });
    }
}

#[test]
fn what_many_held_comes_back_by_itself_a_32nd_of_the_time_late_at_most() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    let clock = Arc::new(ManualClock::at(START));
    let opened =
        Ledger::open_shared_with_clock(&servers.urls(), "rk:", OnOutage::Defer, RESERVATION_TIMEOUT, clock.clone());
    let ledger = opened.unwrap();
    runtime().block_on(async {
        for n in 0..MANY {
            let (id, ann) = (ledger.new_reservation(), user("acme", "ann"));
            assert!(ledger.reserve(id, &ann, &at_most(MANY), RecipientKey(n)).await.unwrap().fits());
            clock.advance(Duration::from_millis(500));
        }
        assert_eq!(used_and_reserved(&ledger, "acme").await, (0, MANY));
        // All of them began within 150 s: the first has ended, the last has not.
        clock.set(START.plus(RESERVATION_TIMEOUT + RESERVATION_TIMEOUT / 32));
        let (_, left) = used_and_reserved(&ledger, "acme").await;
        assert!((MANY - 38..MANY).contains(&left), "{left}");
        clock.set(START.plus(Duration::from_secs(150) + RESERVATION_TIMEOUT + RESERVATION_TIMEOUT / 32));
        assert_eq!(used_and_reserved(&ledger, "acme").await, (0, 0));
        let answer = ledger.reserve(ledger.new_reservation(), &user("acme", "ann"), &at_most(1), RecipientKey(0)).await;
        assert!(answer.unwrap().fits());
    });
}

#[test]
fn one_that_goes_wrong_harms_no_other() {
    for (flavour, kind) in EACH {
        let servers = Servers::start(flavour, kind, &[]);
        runtime().block_on(async {
            let ledger = open(&servers);
            ledger.ready().await.unwrap();
            // No script can read that.
            for what in ["u", "u+"] {
                servers.cli(0, &["sadd", &format!("rk:{{acme}}:{what}:bad"), "member"]);
            }
            let all =
                reserve(&ledger, MANY, |n| user("acme", if n % 10 == 3 { "bad" } else { "good" })).join_all().await;
            for (_, parties, answer) in all {
                match answer {
                    Ok(answer) => assert!(answer.fits() && parties.user.as_deref() == Some("good")),
                    Err(why) => {
                        assert!(why.to_string().contains("WRONGTYPE"), "{why}");
                        assert_eq!(parties.user.as_deref(), Some("bad"));
                    }
                }
            }
            assert_eq!(used_and_reserved(&ledger, "acme").await, (0, MANY * 9 / 10));
        });
    }
}

#[test]
fn who_is_gone_leaves_no_gap() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    runtime().block_on(async {
        let ledger = open(&servers);
        ledger.ready().await.unwrap();
        // One goes at once, the others wait for it: some of them, and that one, are gone before it is answered.
        let mut staying = JoinSet::new();
        let mut leaving = Vec::new();
        for n in 0..MANY {
            let ledger = ledger.clone();
            let session = async move {
                let id = ledger.new_reservation();
                ledger.reserve(id, &user("acme", "ann"), &at_most(MANY), RecipientKey(n)).await
            };
            if n % 3 == 0 {
                let mut session = Box::pin(session);
                let asked = std::future::poll_fn(|context| std::task::Poll::Ready(session.as_mut().poll(context)));
                assert!(asked.await.is_pending());
                leaving.push(session);
            } else {
                staying.spawn(session);
            }
        }
        tokio::task::yield_now().await;
        drop(leaving);
        while let Some(answer) = staying.join_next().await {
            assert!(answer.unwrap().unwrap().fits());
        }
        // Those that were gone may have been asked, or not.
        let (_, reserved) = used_and_reserved(&ledger, "acme").await;
        assert!((MANY * 2 / 3..=MANY).contains(&reserved), "{reserved}");
    });
}

#[test]
fn a_server_that_forgets_the_scripts_is_told_them_again() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    runtime().block_on(async {
        let ledger = open(&servers);
        ledger.ready().await.unwrap();
        for round in 1..=5 {
            let sessions = reserve(&ledger, 5 * MANY, |n| user("acme", &format!("u{round}.{n}")));
            tokio::task::yield_now().await;
            servers.cli(0, &["script", "flush"]);
            for (_, _, answer) in sessions.join_all().await {
                assert!(answer.unwrap().fits());
            }
            assert_eq!(used_and_reserved(&ledger, "acme").await, (0, round * MANY));
        }
    });
}

#[test]
fn what_is_released_first_is_free_for_what_is_asked_next() {
    let servers = Servers::start(Flavour::Valkey, Kind::Single, &[]);
    runtime().block_on(async {
        let ledger = open(&servers);
        ledger.ready().await.unwrap();
        // Each customer has room for one; its session gives that back and takes it again, while others do the same.
        let mut sessions = JoinSet::new();
        for n in 0..50 {
            let ledger = ledger.clone();
            sessions.spawn(async move {
                let parties = user(&format!("customer{n}"), "ann");
                for round in 0..20 {
                    let id = ledger.new_reservation();
                    let answer = ledger.reserve(id, &parties, &at_most(1), RecipientKey(round)).await;
                    assert!(answer.unwrap().fits(), "customer{n}, {round}");
                    ledger.release(id, &parties);
                }
            });
        }
        sessions.join_all().await;
    });
}

#[test]
fn customers_of_a_cluster_are_asked_about_one_by_one() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let servers = Servers::start(flavour, Kind::Cluster, &[]);
        runtime().block_on(async {
            let ledger = open(&servers);
            ledger.ready().await.unwrap();
            let all = reserve(&ledger, MANY, |n| user(&format!("customer{}", n % 50), "ann")).join_all().await;
            assert!(all.into_iter().all(|(_, _, answer)| answer.unwrap().fits()));
            for n in 0..50 {
                assert_eq!(used_and_reserved(&ledger, &format!("customer{n}")).await, (0, MANY / 50));
            }
        });
    }
}

#[test]
fn a_server_that_hangs_fails_all_in_time_and_serves_all_afterwards() {
    let servers = Servers::start(Flavour::Redis, Kind::Single, &[]);
    runtime().block_on(async {
        let ledger = open(&servers);
        ledger.ready().await.unwrap();
        servers.pause(0);
        let deadline =
            tokio::time::timeout(Duration::from_secs(30), reserve(&ledger, MANY, |_| user("acme", "ann")).join_all());
        for (_, _, answer) in deadline.await.expect("nobody waits for ever") {
            assert!(answer.is_err());
        }
        servers.resume(0);
        ledger.ready().await.ok();
        while ledger
            .reserve(ledger.new_reservation(), &user("other", "ann"), &at_most(9), RecipientKey(0))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let all = reserve(&ledger, 3 * MANY, |_| user("acme", "ann")).join_all().await;
        assert!(all.into_iter().all(|(_, _, answer)| answer.unwrap().fits()));
    });
}
