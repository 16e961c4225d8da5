//! The network between daemons and their store is cut, so that packets vanish, and restored: whatever passed is counted once, even
//! if its packets arrive after all.

use crate::network::{Lost, Network};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness, RecipientKey};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Messages under way at once.
const SESSIONS: u64 = 16;

fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann".into()), login: None }
}

/// What became of one daemon's messages.
#[derive(Default)]
struct Books {
    passed: Cell<u64>,
    /// Nobody knows whether they are counted.
    unsure: Cell<u64>,
    deferred: Cell<u64>,
    is_over: Cell<bool>,
}

/// Sends until it is over.
async fn send(ledger: &Ledger, books: &Books, session: u64) {
    let add = |number: &Cell<u64>| number.set(number.get() + 1);
    for n in 0.. {
        if books.is_over.get() {
            return;
        }
        let (id, key) = (ledger.new_reservation(), RecipientKey(session << 32 | n));
        if ledger.reserve(id, &parties(), &unlimited(), key).await.is_err() {
            add(&books.deferred);
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        match ledger.commit(id, &parties(), &unlimited(), AcceptedRecipients { named: &[key], unnamed: 0 }).await {
            Ok(answer) => {
                assert!(answer.fits());
                add(&books.passed);
            }
            Err(_) => add(&books.unsure),
        }
        // In step with the others, also where nothing is waited for.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Some sessions send until the other is done, and end what they have begun.
async fn while_sending(ledger: &Ledger, books: &Books, other: impl Future<Output = ()>) {
    let mut sessions: Vec<_> = (0..SESSIONS).map(|session| Box::pin(send(ledger, books, session))).collect();
    let sending = std::future::poll_fn(|context| {
        sessions.retain_mut(|session| session.as_mut().poll(context).is_pending());
        if sessions.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    let other = async {
        other.await;
        books.is_over.set(true);
    };
    tokio::join!(sending, other);
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Recipients of the customer: used and reserved.
async fn counted(ledger: &Ledger) -> Result<(u64, u64), LedgerError> {
    let customer = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
    let usage = ledger.usage(&customer, &unlimited()).await?;
    Ok((usage[0].used, usage[0].reserved))
}

/// Another daemon, which sends from the store's side of the network, until it is told to stop.
fn send_beside(servers: &Servers, network: &Network, passed: &AtomicU64, stop: &AtomicBool) {
    network.enter(0);
    runtime().block_on(async {
        let ledger = Ledger::open_shared(&servers.urls(), OnOutage::Defer, RESERVATION_TIMEOUT).unwrap();
        while !stop.load(SeqCst) {
            let key = RecipientKey(u64::MAX - passed.load(SeqCst));
            let kept = AcceptedRecipients { named: &[key], unnamed: 0 };
            let answer = ledger.commit(ledger.new_reservation(), &parties(), &unlimited(), kept).await;
            assert!(answer.expect("it is on the store's side").fits());
            passed.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// One daemon is cut off from the store, and another is not.
fn cut_off(flavour: Flavour, on_outage: OnOutage, lost: Lost) {
    let Some(network) = Network::new(2) else { return };
    let servers = Servers::start_in(vec![network.place(0)], flavour, Kind::Single, &[]);
    let (folder, of_other, stop) = (tempfile::tempdir().unwrap(), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| send_beside(&servers, &network, &of_other, &stop));
        let stopping = Stop(&stop);
        network.enter(1);
        runtime().block_on(async {
            let urls = servers.urls();
            let ledger = match on_outage {
                OnOutage::Local => {
                    Ledger::open_shared_with_folder(&urls, on_outage, folder.path(), RESERVATION_TIMEOUT).unwrap()
                }
                _ => Ledger::open_shared(&urls, on_outage, RESERVATION_TIMEOUT).unwrap(),
            };
            let books = Books::default();
            let in_all = || books.passed.get() + books.deferred.get();
            while_sending(&ledger, &books, async {
                until("it sends", async || books.passed.get() > 100).await;
                network.cut(1, lost);
                until("it is unreachable", async || ledger.outage().unwrap().borrow().is_some()).await;
                let (before, before_of_other) = (in_all(), of_other.load(SeqCst));
                // Far more than sessions that wait for an answer would come to.
                until("it goes on", async || in_all() > before + 500).await;
                until("the other goes on", async || of_other.load(SeqCst) > before_of_other + 20).await;
                match on_outage {
                    OnOutage::Local => assert!(matches!(ledger.health().readiness, Readiness::Degraded(_))),
                    _ => assert!(matches!(ledger.health().readiness, Readiness::Failed(_))),
                }
                network.heal(1, lost);
                until("it is back", async || ledger.outage().unwrap().borrow().is_none()).await;
                let before = books.passed.get();
                until("it sends again", async || books.passed.get() > before + 100).await;
            })
            .await;
            until("all is merged", async || ledger.health().readiness == Readiness::Ready).await;
            drop(stopping);
            other.join().unwrap();
            let of_other = of_other.load(SeqCst);
            let expected = books.passed.get() + of_other..=books.passed.get() + of_other + books.unsure.get();
            let at_once = counted(&ledger).await.unwrap().0;
            // What was under way when it was cut comes after all, on connections that were given up.
            until("nothing is under way", async || !Network::has_unsent()).await;
            let later = counted(&ledger).await.unwrap().0;
            println!(
                "{on_outage:?} {lost:?}: {} and {of_other} passed, {} unsure, {} deferred: {at_once}, {later} counted",
                books.passed.get(),
                books.unsure.get(),
                books.deferred.get()
            );
            assert!(expected.contains(&later), "{expected:?}: {at_once}, {later}");
            assert!(on_outage == OnOutage::Defer || books.unsure.get() + books.deferred.get() == 0);
        });
    });
}

#[test]
fn a_daemon_that_is_cut_off_decides_here_and_merges_each_message_once() {
    cut_off(Flavour::Redis, OnOutage::Local, Lost::All);
}

#[test]
fn a_daemon_that_hears_no_answers_counts_each_message_once() {
    cut_off(Flavour::Valkey, OnOutage::Local, Lost::ToIt);
}

#[test]
fn a_daemon_that_is_cut_off_defers_at_once_and_counts_nothing_twice() {
    cut_off(Flavour::Redis, OnOutage::Defer, Lost::All);
}
