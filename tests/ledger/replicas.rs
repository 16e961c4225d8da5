//! `min-replicas-to-write`: a master without its replicas accepts nothing. That is an outage like any other.

use crate::failover::await_replica;
use crate::network::{Lost, Network};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness, RecipientKey};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const ONE_REPLICA: [&str; 6] =
    ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1", "--repl-ping-replica-period", "1"];

/// More than could wait for an answer one after the other.
const MANY: u64 = 100;
const AT_ONCE: Duration = Duration::from_secs(20);

fn parties() -> Parties {
    Parties { customer: "acme".into(), user: Some("ann".into()), login: None }
}

fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

async fn send(ledger: &Ledger, recipient: u64) -> Result<(), LedgerError> {
    let (id, key) = (ledger.new_reservation(), RecipientKey(recipient));
    assert!(ledger.reserve(id, &parties(), &unlimited(), key).await?.fits());
    assert!(
        ledger.commit(id, &parties(), &unlimited(), AcceptedRecipients { named: &[key], unnamed: 0 }).await?.fits()
    );
    Ok(())
}

async fn counted(ledger: &Ledger) -> u64 {
    let customer = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
    ledger.usage(&customer, &unlimited()).await.expect("it is there")[0].used
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_ready(ledger: &Ledger) {
    until("all is well and merged", async || ledger.health().readiness == Readiness::Ready).await;
}

async fn until_it_refuses(servers: &Servers) {
    let refuses = async || servers.try_cli(0, &["set", "probe", "x"]).is_err_and(|why| why.contains("NOREPLICAS"));
    until("the master takes nothing more", refuses).await;
}

fn local(urls: &[String], folder: &Path) -> Ledger {
    Ledger::open_shared_with_folder(urls, OnOutage::Local, folder, RESERVATION_TIMEOUT).expect("the folder is good")
}

#[test]
fn a_master_without_replicas_is_away_until_it_has_one() {
    let (servers, folder) =
        (Servers::start(Flavour::Redis, Kind::Sentinel, &ONE_REPLICA), tempfile::tempdir().unwrap());
    let urls = [format!("redis://127.0.0.1:{}", servers.port(0))];
    runtime().block_on(async {
        let defers = Ledger::open_shared(&urls, OnOutage::Defer, RESERVATION_TIMEOUT).unwrap();
        let goes_on = local(&urls, folder.path());
        send(&defers, 0).await.unwrap();
        send(&goes_on, 1).await.unwrap();
        let (id, key) = (defers.new_reservation(), RecipientKey(2));
        assert!(defers.reserve(id, &parties(), &unlimited(), key).await.unwrap().fits());
        servers.kill(1);
        until_it_refuses(&servers).await;
        let began = Instant::now();
        let Err(LedgerError::Unavailable(why)) =
            defers.commit(id, &parties(), &unlimited(), AcceptedRecipients { named: &[key], unnamed: 0 }).await
        else {
            panic!("it counts nothing")
        };
        assert!(why.message().contains("NOREPLICAS") && why.is_transient(), "{why}");
        for n in 0..MANY {
            assert!(send(&defers, 10 + n).await.is_err());
            send(&goes_on, 1000 + n).await.unwrap();
        }
        assert!(began.elapsed() < AT_ONCE, "nobody waited: {:?}", began.elapsed());
        for ledger in [&defers, &goes_on] {
            let why = ledger.outage().unwrap().borrow().clone().expect("it is unreachable");
            assert!(why.to_string().contains("NOREPLICAS"), "{why}");
        }
        servers.start_again(1);
        until_ready(&defers).await;
        until_ready(&goes_on).await;
        assert_eq!(counted(&defers).await, 2 + MANY, "each that passed once");
    });
}

/// What a daemon elsewhere is told to do; it answers with a number.
enum Order {
    /// So many messages, from the first recipient on.
    Send(u64, u64),
    /// To merge all that it counted; how much is counted then.
    Merge,
}

fn daemon_elsewhere(
    network: &Network,
    member: usize,
    urls: &[String],
    mut orders: UnboundedReceiver<Order>,
    done: &UnboundedSender<u64>,
) {
    network.enter(member);
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let ledger = local(urls, folder.path());
        while let Some(order) = orders.recv().await {
            let answer = match order {
                Order::Send(first, number) => {
                    for n in first..first + number {
                        send(&ledger, n).await.expect("it decides here if need be");
                    }
                    number
                }
                Order::Merge => {
                    until_ready(&ledger).await;
                    counted(&ledger).await
                }
            };
            done.send(answer).expect("somebody asked");
        }
    });
}

#[test]
fn a_master_that_is_cut_off_with_a_daemon_loses_nothing_and_counts_nothing_twice() {
    let Some(network) = Network::new(2) else { return };
    // The master, one sentinel and this daemon on one side; the replica, two sentinels and another daemon on the other.
    let places = [0, 1, 0, 1, 1].map(|member| network.place(member));
    let servers = Servers::start_in(places.to_vec(), Flavour::Valkey, Kind::Sentinel, &ONE_REPLICA);
    let (urls, folder) = (servers.urls(), tempfile::tempdir().unwrap());
    let (order, orders) = unbounded_channel();
    let (done, mut answers) = unbounded_channel();
    std::thread::scope(|scope| {
        // Dropped in any case: then the other ends, too.
        let order = order;
        scope.spawn(|| daemon_elsewhere(&network, 1, &urls, orders, &done));
        network.enter(0);
        runtime().block_on(async {
            let ledger = local(&urls, folder.path());
            let mut other = async |what: Order| {
                order.send(what).unwrap_or_else(|_| panic!("it is there"));
                tokio::time::timeout(Duration::from_secs(60), answers.recv())
                    .await
                    .expect("in time")
                    .expect("it is there")
            };
            for n in 0..20 {
                send(&ledger, n).await.unwrap();
            }
            other(Order::Send(100, 20)).await;
            await_replica(&servers, 0, 1);
            network.cut(0, Lost::All);
            until_it_refuses(&servers).await;
            for n in 1000..1000 + MANY {
                send(&ledger, n).await.unwrap();
            }
            other(Order::Send(2000, MANY)).await;
            let is_promoted = async || servers.cli(1, &["role"]).starts_with("master");
            until("the replica is promoted", is_promoted).await;
            for n in 3000..3000 + MANY {
                send(&ledger, n).await.unwrap();
            }
            other(Order::Send(4000, MANY)).await;
            network.heal(0, Lost::All);
            let of_other = other(Order::Merge).await;
            until_ready(&ledger).await;
            println!("{of_other} counted before all are merged");
            until("nothing is under way", async || !Network::has_unsent()).await;
            assert_eq!(counted(&ledger).await, 40 + 4 * MANY);
            assert_eq!(other(Order::Merge).await, 40 + 4 * MANY);
        });
    });
}
