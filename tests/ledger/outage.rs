//! The shared store is unreachable, and `on_outage = "local"`: what is decided meanwhile, and that all of it is counted in the
//! end, each message once.

use crate::crash::{folder_of_worker, worker_by};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, START, runtime};
use relaykeeper::clock::ManualClock;
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, LimitUsage, Readiness, RecipientKey};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What outlives a SIGKILL of the server.
pub(crate) const ON_DISK: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

const URLS: &str = "RELAYKEEPER_TEST_REDIS";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub(crate) fn open(urls: &[String], folder: &Path) -> Ledger {
    Ledger::open_shared_with_folder(urls, OnOutage::Local, folder, RESERVATION_TIMEOUT).expect("the folder is good")
}

/// Ten recipients of the customer a day, four messages of a user.
fn limits() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |name| match name {
        LimitName::CustomerDay => Limit::of(10),
        LimitName::UserMessages => Limit::of(4),
        LimitName::UserUniques => Limit::of(8),
        _ => Limit::UNLIMITED,
    })
}

fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

fn parties(user: &str) -> Parties {
    Parties { customer: "acme".into(), user: Some(user.into()), login: None }
}

/// A message to recipients that are reserved first. Those that did not fit are left out; `None`: none did.
pub(crate) async fn send(ledger: &Ledger, user: &str, recipients: std::ops::Range<u64>) -> Option<u64> {
    try_to_send(ledger, user, recipients).await.expect("it decides")
}

pub(crate) async fn try_to_send(
    ledger: &Ledger,
    user: &str,
    recipients: std::ops::Range<u64>,
) -> Result<Option<u64>, LedgerError> {
    let (id, parties, mut named) = (ledger.new_reservation(), parties(user), Vec::new());
    for recipient in recipients.map(RecipientKey) {
        if ledger.reserve(id, &parties, &limits(), recipient).await?.fits() {
            named.push(recipient);
        }
    }
    if named.is_empty() {
        return Ok(None);
    }
    let kept = AcceptedRecipients { named: &named, unnamed: 0 };
    let answer = ledger.commit(id, &parties, &limits(), kept).await?;
    assert!(answer.fits(), "all of it was reserved: {answer:?}");
    Ok(Some(named.len() as u64))
}

async fn usage(ledger: &Ledger, kind: SubjectKind, name: &str) -> Vec<LimitUsage> {
    let subject = Subject { kind, customer: "acme".into(), name: name.into() };
    ledger.usage(&subject, &limits()).await.expect("it tells")
}

/// Recipients of the customer in a day: used and reserved.
pub(crate) async fn of_customer(ledger: &Ledger) -> (u64, u64) {
    let usage = usage(ledger, SubjectKind::Customer, "acme").await;
    (usage[0].used, usage[0].reserved)
}

/// Messages and different recipients of a user: used.
async fn of_user(ledger: &Ledger, user: &str) -> [u64; 2] {
    let usage = usage(ledger, SubjectKind::User, user).await;
    [usage[0].used, usage[1].used]
}

/// As another daemon sees it.
pub(crate) async fn on_the_server(servers: &Servers) -> (u64, u64) {
    let other = Ledger::open_shared(&servers.urls(), OnOutage::Defer, RESERVATION_TIMEOUT).expect("the URLs are good");
    of_customer(&other).await
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn until_ready(ledger: &Ledger) {
    let _ = ledger.ready().await;
    until("all is merged", async || ledger.health().readiness == Readiness::Ready).await;
}

fn to_merge(ledger: &Ledger) -> u64 {
    *ledger.counted_locally().expect("it counts here").0.borrow()
}

/// Sends until the store is known to be unreachable: the first requests wait for a response.
async fn until_unreachable(ledger: &Ledger) {
    until("it is known to be unreachable", async || {
        let _ = ledger.look(None, &parties("nobody"), &limits(), &[RecipientKey(0)]).await;
        matches!(ledger.health().readiness, Readiness::Degraded(_))
    })
    .await;
}

#[test]
fn it_goes_on_from_what_was_known_and_merges_what_it_counted() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let (servers, folder) = (Servers::start(flavour, Kind::Single, &ON_DISK), folder());
        runtime().block_on(async {
            let ledger = open(&servers.urls(), folder.path());
            assert_eq!(send(&ledger, "ann", 0..3).await, Some(3));
            assert_eq!(send(&ledger, "bob", 0..2).await, Some(2));
            servers.kill(0);
            assert_eq!(send(&ledger, "ann", 3..5).await, Some(2));
            assert_eq!(of_customer(&ledger).await, (7, 0));
            assert_eq!(of_user(&ledger, "ann").await, [2, 5]);
            assert_eq!(send(&ledger, "ann", 5..9).await, Some(3), "ten for the customer, eight different ones for her");
            assert_eq!(send(&ledger, "bob", 5..6).await, None);
            let Readiness::Degraded(why) = ledger.health().readiness else { panic!("it is unreachable") };
            assert!(why.contains("decisions are based on the last known usage; messages counted locally: 2"), "{why}");
            servers.start_again(0);
            until_ready(&ledger).await;
            assert_eq!(on_the_server(&servers).await, (10, 0), "{flavour:?}");
            assert_eq!(of_user(&ledger, "ann").await, [3, 8]);
            assert_eq!(send(&ledger, "bob", 5..6).await, None, "the store decides again");
            assert_eq!((to_merge(&ledger), ledger.counted_locally().map(|(_, merged)| merged)), (0, Some(2)));
        });
    }
}

#[test]
fn a_refusal_says_how_much_of_the_whole_limit_is_used() {
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Single, &[]), folder());
    let clock = Arc::new(ManualClock::at(START));
    runtime().block_on(async {
        let urls = servers.urls();
        let opened = Ledger::open_shared_or_local_with_clock(&urls, folder.path(), RESERVATION_TIMEOUT, clock.clone());
        let ledger = opened.expect("the folder is good");
        assert_eq!(send(&ledger, "ann", 0..6).await, Some(6));
        servers.kill(0);
        assert_eq!(send(&ledger, "bob", 0..3).await, Some(3));
        let look = async |recipients: u64| {
            let keys: Vec<_> = (20..20 + recipients).map(RecipientKey).collect();
            ledger.look(None, &parties("bob"), &limits(), &keys).await.expect("it decides").over
        };
        let refused = look(2).await;
        assert_eq!((refused[0].limit, refused[0].used, refused[0].max), (LimitName::CustomerDay, 9, 10));
        assert!(!refused[0].never_fits() && refused[0].fits_at.is_some());
        assert!(look(11).await.iter().any(|standing| standing.never_fits()));
        // Last known usage counts for a day from when it was reported, local counts from when they were counted.
        clock.advance(Duration::from_secs(86_500));
        assert_eq!(of_customer(&ledger).await, (0, 0));
        assert!(look(2).await.is_empty());
    });
}

#[test]
fn a_daemon_that_is_restarted_meanwhile_knows_what_was_counted_and_what_was_known() {
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Single, &ON_DISK), folder());
    let urls = servers.urls();
    runtime().block_on(async {
        let ledger = open(&urls, folder.path());
        assert_eq!(send(&ledger, "ann", 0..3).await, Some(3));
        let address = ledger.recipient_key("a@dest.example");
        servers.kill(0);
        assert_eq!(send(&ledger, "bob", 0..4).await, Some(4));
        ledger.close().await;
        drop(ledger);
        for round in 1..=2 {
            let ledger = open(&urls, folder.path());
            assert_eq!(ledger.recipient_key("a@dest.example"), address, "hashed as the store has them hashed");
            assert_eq!((to_merge(&ledger), of_customer(&ledger).await), (round, (6 + round, 0)));
            assert_eq!((of_user(&ledger, "ann").await, of_user(&ledger, "bob").await), ([1, 3], [round, 3 + round]));
            assert_eq!(send(&ledger, "bob", 3 + round..4 + round).await, Some(1));
            ledger.close().await;
        }
        servers.start_again(0);
        let ledger = open(&urls, folder.path());
        until_ready(&ledger).await;
        assert_eq!(on_the_server(&servers).await, (9, 0));
        assert_eq!(of_user(&ledger, "bob").await, [3, 6]);
        ledger.close().await;
        drop(ledger);
        // Away again: the next start knows all of it, and nothing twice.
        servers.kill(0);
        let ledger = open(&urls, folder.path());
        assert_eq!((to_merge(&ledger), of_customer(&ledger).await), (0, (9, 0)));
        assert_eq!(send(&ledger, "eve", 0..2).await, Some(1));
    });
}

#[test]
fn what_is_open_when_it_goes_and_when_it_comes_back_is_counted_once() {
    let (servers, folder) = (Servers::start(Flavour::Valkey, Kind::Single, &[]), folder());
    runtime().block_on(async {
        let ledger = open(&servers.urls(), folder.path());
        let reserve = async |user: &str, recipients: std::ops::Range<u64>| {
            let id = ledger.new_reservation();
            for key in recipients.map(RecipientKey) {
                assert!(ledger.reserve(id, &parties(user), &limits(), key).await.expect("it decides").fits());
            }
            id
        };
        let commit = async |id, user: &str, recipients: std::ops::Range<u64>| {
            let named: Vec<_> = recipients.map(RecipientKey).collect();
            let kept = AcceptedRecipients { named: &named, unnamed: 0 };
            ledger.commit(id, &parties(user), &limits(), kept).await.expect("it decides").fits()
        };
        let (kept, given_up) = (reserve("ann", 0..3).await, reserve("bob", 0..2).await);
        servers.pause(0);
        until_unreachable(&ledger).await;
        // What is open is reserved locally, too.
        assert_eq!(of_customer(&ledger).await, (0, 5));
        let (begun_here, begun_and_given_up) = (reserve("eve", 0..2).await, reserve("eve", 2..5).await);
        assert!(!ledger.look(None, &parties("eve"), &limits(), &[RecipientKey(9)]).await.unwrap().fits());
        assert!(commit(kept, "ann", 0..3).await);
        ledger.release(given_up, &parties("bob"));
        servers.resume(0);
        until_ready(&ledger).await;
        until("what ended meanwhile is released", async || on_the_server(&servers).await == (3, 0)).await;
        assert!(commit(begun_here, "eve", 0..2).await, "decided anew, on the server");
        ledger.release(begun_and_given_up, &parties("eve"));
        assert_eq!(on_the_server(&servers).await, (5, 0));
        assert_eq!(send(&ledger, "bob", 0..9).await, Some(5));
    });
}

#[test]
fn a_commit_that_was_perhaps_counted_is_counted_once() {
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Single, &[]), folder());
    runtime().block_on(async {
        let ledger = open(&servers.urls(), folder.path());
        assert_eq!(send(&ledger, "ann", 0..1).await, Some(1));
        let id = ledger.new_reservation();
        assert!(ledger.reserve(id, &parties("ann"), &limits(), RecipientKey(1)).await.unwrap().fits());
        // The request reaches a server that hangs: it is served after nobody waits for it any more.
        servers.pause(0);
        let kept = AcceptedRecipients { named: &[RecipientKey(1)], unnamed: 0 };
        assert!(ledger.commit(id, &parties("ann"), &limits(), kept).await.unwrap().fits());
        assert_eq!(to_merge(&ledger), 1);
        servers.resume(0);
        until_ready(&ledger).await;
        assert_eq!(on_the_server(&servers).await, (2, 0));
        assert_eq!(of_user(&ledger, "ann").await, [2, 2]);
    });
}

#[test]
fn two_daemons_merge_what_each_has_counted() {
    let (servers, folders) = (Servers::start(Flavour::Redis, Kind::Single, &ON_DISK), [folder(), folder()]);
    runtime().block_on(async {
        let [one, other] = [0, 1].map(|nth: usize| open(&servers.urls(), folders[nth].path()));
        assert_eq!(send(&one, "ann", 0..2).await, Some(2));
        assert_eq!(send(&other, "bob", 0..2).await, Some(2));
        servers.kill(0);
        let (of_one, of_other) = tokio::join!(send(&one, "ann", 2..9), send(&other, "bob", 2..9));
        // Each knows the usage that it was last told: neither knows of the other's two.
        assert_eq!((of_one, of_other), (Some(6), Some(6)), "eight different recipients");
        assert_eq!(send(&other, "eve", 0..5).await, None);
        servers.start_again(0);
        until_ready(&one).await;
        until_ready(&other).await;
        assert_eq!(on_the_server(&servers).await, (16, 0), "each had let ten through at most");
        assert_eq!((send(&one, "eve", 0..1).await, send(&other, "eve", 0..1).await), (None, None));
    });
}

#[test]
fn a_cluster_that_goes_away_and_comes_back() {
    let (servers, folder) = (Servers::start(Flavour::Valkey, Kind::Cluster, &[]), folder());
    runtime().block_on(async {
        let ledger = open(&servers.urls(), folder.path());
        assert_eq!(send(&ledger, "ann", 0..3).await, Some(3));
        (0..6).for_each(|node| servers.pause(node));
        assert_eq!(send(&ledger, "ann", 3..5).await, Some(2));
        assert_eq!(send(&ledger, "bob", 0..9).await, Some(5));
        (0..6).for_each(|node| servers.resume(node));
        until_ready(&ledger).await;
        until("the cluster agrees again", async || on_the_server(&servers).await == (10, 0)).await;
    });
}

#[test]
fn a_reset_waits_until_all_is_merged() {
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Single, &ON_DISK), folder());
    runtime().block_on(async {
        let ledger = open(&servers.urls(), folder.path());
        assert_eq!(send(&ledger, "ann", 0..3).await, Some(3));
        servers.kill(0);
        assert_eq!(send(&ledger, "ann", 0..1).await, Some(1), "one that was sent to before is a new one here");
        assert_eq!(of_user(&ledger, "ann").await, [2, 4]);
        let acme = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
        assert!(matches!(ledger.reset(&acme, "a test").await, Err(LedgerError::Unavailable(_))));
        servers.start_again(0);
        until_ready(&ledger).await;
        assert_eq!(of_user(&ledger, "ann").await, [2, 3]);
        ledger.reset(&acme, "a test").await.unwrap();
        servers.kill(0);
        assert_eq!(send(&ledger, "bob", 0..8).await, Some(8));
        assert_eq!(of_customer(&ledger).await, (8, 0));
    });
}

#[test]
fn a_folder_is_for_one_daemon_alone() {
    let folder = folder();
    let urls = ["redis://127.0.0.1:1".to_owned()];
    let ledger = open(&urls, folder.path());
    let second = Ledger::open_shared_with_folder(&urls, OnOutage::Local, folder.path(), RESERVATION_TIMEOUT);
    assert!(second.unwrap_err().to_string().contains("is in use by another relaykeeper"));
    drop(ledger);
    open(&urls, folder.path());
}

/// Messages of the user `ann` in the crash test, each to two recipients.
const MESSAGES: u64 = 3000;

#[test]
fn killed_again_and_again_while_it_merges_the_books_balance() {
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Single, &[]), folder());
    let urls = servers.urls();
    runtime().block_on(async {
        servers.pause(0);
        let ledger = open(&urls, folder.path());
        let commit = async |nth: u64| {
            let named = [2 * nth, 2 * nth + 1].map(RecipientKey);
            let kept = AcceptedRecipients { named: &named, unnamed: 0 };
            let id = ledger.new_reservation();
            assert!(ledger.commit(id, &parties("ann"), &unlimited(), kept).await.expect("the disk takes it").fits());
        };
        until_unreachable(&ledger).await;
        for first in (0..MESSAGES).step_by(100) {
            // Together, for the sake of time.
            let mut sending = Vec::new();
            for nth in first..first + 100 {
                sending.push(Box::pin(commit(nth)));
            }
            futures_all(sending).await;
        }
        assert_eq!(to_merge(&ledger), MESSAGES);
        ledger.close().await;
    });
    servers.resume(0);
    let mut rounds = 0;
    loop {
        let mut command = Command::new("env");
        command.arg(format!("{URLS}={}", urls[0]));
        let mut worker = worker_by(command, "outage::worker_that_merges", folder.path());
        // It is killed as soon as the server has counted more than before.
        let counted = || servers.cli(0, &["get", "rk:{acme}:u:ann"]);
        let before = counted();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut has_ended = false;
        while counted() == before && !has_ended {
            assert!(Instant::now() < deadline, "it merges");
            has_ended = worker.try_wait().expect("it is ours").is_some();
        }
        worker.kill().expect("it is ours");
        worker.wait().expect("it ended");
        rounds += 1;
        if has_ended {
            break;
        }
    }
    assert!(rounds > 3, "it was killed while it merged: {rounds}");
    runtime().block_on(async {
        let ledger = open(&urls, folder.path());
        until_ready(&ledger).await;
        assert_eq!(on_the_server(&servers).await, (2 * MESSAGES, 0), "after {rounds} rounds");
        assert_eq!(of_user(&ledger, "ann").await, [MESSAGES, 2 * MESSAGES]);
    });
}

/// Waits for all of them.
async fn futures_all(mut all: Vec<std::pin::Pin<Box<impl Future<Output = ()>>>>) {
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
#[ignore = "the process that the one above starts"]
fn worker_that_merges() {
    let (Some(folder), Ok(url)) = (folder_of_worker(), std::env::var(URLS)) else { return };
    runtime().block_on(async {
        let ledger = open(&[url], &folder);
        let _ = ledger.ready().await;
        until_ready(&ledger).await;
    });
}
