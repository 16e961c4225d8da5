//! A node of a Cluster is unreachable, and no replica takes over: its customers are treated as `on_outage` says, at once; the
//! other nodes' customers notice nothing.

use crate::network::{Lost, Network};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness, RecipientKey, ReservationId};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

/// The other nodes go on, and no replica is promoted.
pub const WITHOUT_FAILOVER: [&str; 4] =
    ["--cluster-require-full-coverage", "no", "--cluster-replica-no-failover", "yes"];

/// The master that goes.
const AWAY: usize = 0;

/// More requests than could wait for a response one after the other.
pub const MANY: u64 = 200;
/// What those take at most if none waits: long enough for a slow machine, and far from `MANY` times a second.
pub const AT_ONCE: Duration = Duration::from_secs(20);

pub fn open(servers: &Servers, on_outage: OnOutage, folder: &Path) -> Ledger {
    let urls = servers.urls();
    match on_outage {
        OnOutage::Local => Ledger::open_shared_with_folder(&urls, on_outage, folder, RESERVATION_TIMEOUT),
        _ => Ledger::open_shared(&urls, on_outage, RESERVATION_TIMEOUT),
    }
    .expect("the URLs and the folder are good")
}

/// A customer of each master.
pub fn customers(servers: &Servers) -> [String; 3] {
    [0, 1, 2].map(|master: usize| {
        let lies_there = |name: &String| {
            let slot = servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{name}}}:c")]);
            slot.parse::<usize>().unwrap() * 3 / 16384 == master
        };
        (0..).map(|n| format!("customer{n}")).find(lies_there).expect("there is one")
    })
}

fn parties(customer: &str) -> Parties {
    Parties { customer: customer.into(), user: Some("ann".into()), login: None }
}

fn limits(day: u64) -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |name| match name {
        LimitName::CustomerDay => Limit::of(day),
        _ => Limit::UNLIMITED,
    })
}

/// A message to one recipient; whether it passed.
pub async fn send(ledger: &Ledger, customer: &str, recipient: u64, day: u64) -> Result<bool, LedgerError> {
    match begin(ledger, customer, recipient, day).await? {
        Some(id) => end(ledger, id, customer, recipient, day).await.map(|()| true),
        None => Ok(false),
    }
}

async fn begin(
    ledger: &Ledger,
    customer: &str,
    recipient: u64,
    day: u64,
) -> Result<Option<ReservationId>, LedgerError> {
    let (id, key) = (ledger.new_reservation(), RecipientKey(recipient));
    let answer = ledger.reserve(id, &parties(customer), &limits(day), key).await?;
    Ok(answer.fits().then_some(id))
}

async fn end(ledger: &Ledger, id: ReservationId, customer: &str, recipient: u64, day: u64) -> Result<(), LedgerError> {
    let kept = AcceptedRecipients { named: &[RecipientKey(recipient)], unnamed: 0 };
    let answer = ledger.commit(id, &parties(customer), &limits(day), kept).await?;
    assert!(answer.fits(), "it was reserved: {answer:?}");
    Ok(())
}

pub async fn counted(ledger: &Ledger, customer: &str) -> Result<u64, LedgerError> {
    let subject = Subject { kind: SubjectKind::Customer, customer: customer.into(), name: customer.into() };
    Ok(ledger.usage(&subject, &limits(u64::MAX >> 20)).await?[0].used)
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn until_ready(ledger: &Ledger) {
    until("all is well and merged", async || ledger.health().readiness == Readiness::Ready).await;
}

/// Sends for customers of reachable nodes until the other is done: how many of their messages passed, all of them at
/// the first try.
pub async fn meanwhile<T>(ledger: &Ledger, well: &[String], passed: &Cell<u64>, other: impl Future<Output = T>) -> T {
    let sending = async {
        for n in 0u64.. {
            for customer in well {
                assert!(send(ledger, customer, n, 1 << 40).await.expect("its node is reachable"));
                passed.set(passed.get() + 1);
            }
            // Also where nothing is asked.
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = sending => unreachable!("it never ends"),
        done = other => done,
    }
}

/// How the customer of the node that `goes` and `comes` back is treated, first and then.
async fn outage(on_outage: OnOutage, servers: &Servers, goes: impl FnOnce(), comes: impl FnOnce()) {
    let folder = tempfile::tempdir().unwrap();
    let [customer, well @ ..] = &customers(servers);
    let ledger = open(servers, on_outage, folder.path());
    for n in 0..3 {
        assert!(send(&ledger, customer, n, 1 << 40).await.unwrap());
    }
    let (passed, mut here) = (Cell::new(0), 0);
    let begun = begin(&ledger, customer, 3, 1 << 40).await.unwrap().expect("it fits");
    goes();
    let began = Instant::now();
    let first = meanwhile(&ledger, well, &passed, end(&ledger, begun, customer, 3, 1 << 40)).await;
    println!("{on_outage:?}: first {first:?} after {:?}, others {}", began.elapsed(), passed.get());
    assert_eq!(first.is_err(), on_outage == OnOutage::Defer);
    here += u64::from(first.is_ok());
    assert!(passed.get() >= 100, "the others went on while it waited: {}", passed.get());
    let began = Instant::now();
    meanwhile(&ledger, well, &passed, async {
        for n in 0..MANY {
            let then = send(&ledger, customer, 4 + n, 1 << 40).await;
            assert_eq!(then.is_err(), on_outage == OnOutage::Defer);
            here += u64::from(then.is_ok());
        }
    })
    .await;
    println!("{MANY} more after {:?}", began.elapsed());
    assert!(began.elapsed() < AT_ONCE, "they did not wait: {:?}", began.elapsed());
    let Readiness::Degraded(why) = ledger.health().readiness else { panic!("{:?}", ledger.health().readiness) };
    assert!(why.contains("part of the store is unreachable"), "{why}");
    // What is not settled yet of this customer is not remembered with the others' counts.
    let memory = servers.cli(1, &["memory", "usage", &format!("rk:{{{}}}:c", well[0])]);
    assert!(memory.parse::<u64>().unwrap() < 3_000, "{memory} bytes after {} messages", passed.get());
    comes();
    meanwhile(&ledger, well, &passed, until_ready(&ledger)).await;
    let other = open(servers, OnOutage::Defer, folder.path());
    until("the node responds", async || counted(&other, customer).await.is_ok()).await;
    until("what passed is counted", async || counted(&other, customer).await.unwrap() >= 3 + here).await;
    // The one that was deferred first was under way, and may be counted.
    let unsure = u64::from(on_outage == OnOutage::Defer);
    let in_all = counted(&other, customer).await.unwrap();
    assert!((3 + here..=3 + here + unsure).contains(&in_all), "each once: {in_all}, {here} passed here");
    let of_others = counted(&other, &well[0]).await.unwrap() + counted(&other, &well[1]).await.unwrap();
    assert!((passed.get()..=passed.get() + 3).contains(&of_others), "{of_others} {}", passed.get());
    assert!(!send(&ledger, customer, 1000, 3 + here).await.unwrap(), "the store decides again");
    assert!(send(&ledger, customer, 1000, 1 << 40).await.unwrap());
}

fn hangs(on_outage: OnOutage, flavour: Flavour) {
    let servers = Servers::start(flavour, Kind::Cluster, &WITHOUT_FAILOVER);
    runtime().block_on(outage(on_outage, &servers, || servers.pause(AWAY), || servers.resume(AWAY)));
}

#[test]
fn customers_of_a_part_that_hangs_are_deferred_at_once() {
    hangs(OnOutage::Defer, Flavour::Redis);
}

#[test]
fn customers_of_a_part_that_hangs_pass_at_once() {
    hangs(OnOutage::Accept, Flavour::Valkey);
}

#[test]
fn customers_of_a_part_that_hangs_are_decided_here_at_once() {
    hangs(OnOutage::Local, Flavour::Redis);
}

#[test]
fn customers_of_a_part_that_is_cut_off_are_decided_here_at_once() {
    let Some(network) = Network::new(2) else { return };
    let places = (0..6).map(|node| network.place(usize::from(node != AWAY))).collect();
    let servers = Servers::start_in(places, Flavour::Valkey, Kind::Cluster, &WITHOUT_FAILOVER);
    network.enter(1);
    let (goes, comes) = (|| network.cut(0, Lost::All), || network.heal(0, Lost::All));
    runtime().block_on(outage(OnOutage::Local, &servers, goes, comes));
}

#[test]
fn who_used_most_is_told_of_the_parts_that_are_there() {
    let (servers, folder) =
        (Servers::start(Flavour::Valkey, Kind::Cluster, &WITHOUT_FAILOVER), tempfile::tempdir().unwrap());
    let customers = customers(&servers);
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Defer, folder.path());
        for (n, customer) in (1..).zip(&customers) {
            for recipient in 0..n {
                assert!(send(&ledger, customer, recipient, 1 << 40).await.unwrap());
            }
        }
        let top = async || {
            let top = ledger.top(LimitName::CustomerDay, 10).await?;
            let most: Vec<_> = top.most.into_iter().map(|(subject, used)| (subject.name.to_string(), used)).collect();
            Ok::<_, LedgerError>((most, top.missing))
        };
        let used = |which: &[usize]| which.iter().map(|&n| (customers[n].clone(), n as u64 + 1)).collect::<Vec<_>>();
        assert_eq!(top().await.unwrap(), (used(&[2, 1, 0]), Vec::new()));
        servers.pause(AWAY);
        // At first it is not known to be unreachable.
        for _ in 0..3 {
            let (most, missing) = top().await.expect("two are there");
            assert_eq!(most, used(&[2, 1]));
            assert_eq!(missing.len(), 1, "{missing:?}");
            assert_eq!(missing[0].address, format!("127.0.0.1:{}", servers.port(AWAY)));
            assert!(!missing[0].why.is_empty() && !missing[0].why.contains(&missing[0].address), "{missing:?}");
        }
        servers.pause(1);
        servers.pause(2);
        until("nothing is there", async || top().await.is_err()).await;
        (0..3).for_each(|master| servers.resume(master));
        until("all are there", async || top().await.is_ok_and(|(_, missing)| missing.is_empty())).await;
        assert_eq!(top().await.unwrap().0, used(&[2, 1, 0]));
    });
}

#[test]
fn a_cluster_that_stops_as_a_whole_is_away_as_a_whole() {
    // By default all masters stop when one is unreachable.
    let options = ["--cluster-replica-no-failover", "yes"];
    let (servers, folder) = (Servers::start(Flavour::Redis, Kind::Cluster, &options), tempfile::tempdir().unwrap());
    let customers = customers(&servers);
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Local, folder.path());
        for customer in &customers {
            assert!(send(&ledger, customer, 0, 1 << 40).await.unwrap());
        }
        servers.pause(AWAY);
        let mut sent = 1;
        until("all of it is unreachable", async || {
            for customer in &customers {
                assert!(send(&ledger, customer, sent, 1 << 40).await.unwrap(), "it is decided here if need be");
            }
            sent += 1;
            ledger.outage().unwrap().borrow().as_ref().is_some_and(|outage| !outage.in_part)
        })
        .await;
        let why = ledger.outage().unwrap().borrow().clone().unwrap().to_string();
        assert!(why.starts_with("the store is unreachable: ") && why.contains("ClusterDown"), "{why}");
        servers.resume(AWAY);
        until_ready(&ledger).await;
        let other = open(&servers, OnOutage::Defer, folder.path());
        for customer in &customers {
            assert_eq!(counted(&other, customer).await.unwrap(), sent, "{customer}");
        }
    });
}
