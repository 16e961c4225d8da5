//! The node of a Cluster that has `rk:store`, the key that all daemons hash recipients with, is unreachable when a daemon starts:
//! it is read from a copy on another node, and without a copy nothing is counted.

use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use crate::unreachable_node::{WITHOUT_FAILOVER, customers, open, until, until_ready};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, LedgerError, Readiness};

const KEY: &str = "rk:store";
const ANOTHER: &str = "relaykeeper 1 000102030405060708090a0b0c0d0e0f";

/// The master that has a key.
fn master_of(servers: &Servers, key: &str) -> usize {
    servers.cli(0, &["cluster", "keyslot", key]).parse::<usize>().unwrap() * 3 / 16384
}

/// All copies, each with the master that has it.
fn copies(servers: &Servers) -> Vec<(usize, String)> {
    let of = |master| {
        let keys = servers.cli(master, &["--scan", "--pattern", "rk:store:*"]);
        keys.lines().map(|key| (master, key.to_owned())).collect::<Vec<_>>()
    };
    (0..3).flat_map(of).collect()
}

async fn until_copied(servers: &Servers, secret: &str) {
    let is_copied = async || {
        let copies = copies(servers);
        copies.len() == 16 && copies.iter().all(|(master, copy)| servers.cli(*master, &["get", copy]) == secret)
    };
    until("all copies say what the key says", is_copied).await;
}

/// A message of a user to an address.
async fn write(ledger: &Ledger, customer: &str, address: &str) -> Result<(), LedgerError> {
    let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
    let parties = Parties { customer: customer.into(), user: Some("ann".into()), login: None };
    let kept = AcceptedRecipients { named: &[ledger.recipient_key(address)], unnamed: 0 };
    ledger.commit(ledger.new_reservation(), &parties, &unlimited, kept).await.map(drop)
}

/// Messages and different recipients of the user.
async fn written(ledger: &Ledger, customer: &str) -> [u64; 2] {
    let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
    let user = Subject { kind: SubjectKind::User, customer: customer.into(), name: "ann".into() };
    let usage = ledger.usage(&user, &unlimited).await.unwrap();
    [usage[0].used, usage[1].used]
}

/// After a daemon has started and ended: customers of the nodes that stay, one of the node that will fail, and that node's number.
async fn after_a_first_daemon(servers: &Servers) -> (Vec<String>, String, usize) {
    let (master, mut customers) = (master_of(servers, KEY), customers(servers).to_vec());
    let ledger = open(servers, OnOutage::Defer, "".as_ref());
    for customer in &customers {
        write(&ledger, customer, "a@dest.example").await.unwrap();
    }
    until_copied(servers, &servers.cli(master, &["get", KEY])).await;
    let unreachable = customers.remove(master);
    (customers, unreachable, master)
}

#[test]
fn a_daemon_starts_without_the_part_that_has_the_key() {
    for (flavour, on_outage) in [(Flavour::Redis, OnOutage::Defer), (Flavour::Valkey, OnOutage::Local)] {
        let (servers, folder) =
            (Servers::start(flavour, Kind::Cluster, &WITHOUT_FAILOVER), tempfile::tempdir().unwrap());
        runtime().block_on(async {
            let (well, unreachable, master) = after_a_first_daemon(&servers).await;
            servers.pause(master);
            let ledger = open(&servers, on_outage, folder.path());
            ledger.ready().await.unwrap();
            for customer in &well {
                write(&ledger, customer, "a@dest.example").await.expect("its node is reachable");
                assert_eq!(written(&ledger, customer).await, [2, 1], "the recipient is known by the same name");
            }
            assert_eq!(write(&ledger, &unreachable, "a@dest.example").await.is_ok(), on_outage == OnOutage::Local);
            let why = ledger.outage().unwrap().borrow().clone().unwrap();
            assert!(why.in_part && why.why.contains(&servers.port(master).to_string()), "{why}");
            servers.resume(master);
            until_ready(&ledger).await;
            write(&ledger, &unreachable, "a@dest.example").await.unwrap();
            let passed = if on_outage == OnOutage::Local { 3 } else { 2 };
            assert_eq!(written(&ledger, &unreachable).await, [passed, 1]);
        });
    }
}

#[test]
fn without_a_copy_nothing_is_counted_and_it_is_told_what_is_missing() {
    let servers = Servers::start(Flavour::Redis, Kind::Cluster, &WITHOUT_FAILOVER);
    runtime().block_on(async {
        let (well, _, master) = after_a_first_daemon(&servers).await;
        // As an earlier version left it.
        for (master, copy) in copies(&servers) {
            servers.cli(master, &["del", &copy]);
        }
        servers.pause(master);
        let ledger = open(&servers, OnOutage::Defer, "".as_ref());
        until("it has looked", async || ledger.ready().await.is_err() && ledger.outage().unwrap().borrow().is_some())
            .await;
        assert!(write(&ledger, &well[0], "b@dest.example").await.is_err());
        let Readiness::Failed(why) = ledger.health().readiness else { panic!("{:?}", ledger.health()) };
        let port = servers.port(master);
        assert!(
            why.contains(&format!("127.0.0.1:{port}: "))
                && why.contains("it holds the key rk:store, which is needed to count anything"),
            "{why}"
        );
        servers.resume(master);
        until_ready(&ledger).await;
        write(&ledger, &well[0], "a@dest.example").await.unwrap();
        assert_eq!(written(&ledger, &well[0]).await, [2, 1]);
        until_copied(&servers, &servers.cli(master, &["get", KEY])).await;
    });
}

#[test]
fn what_the_key_says_holds_over_all_copies() {
    let (servers, folder) =
        (Servers::start(Flavour::Redis, Kind::Cluster, &WITHOUT_FAILOVER), tempfile::tempdir().unwrap());
    runtime().block_on(async {
        let (well, _, master) = after_a_first_daemon(&servers).await;
        let secret = servers.cli(master, &["get", KEY]);
        for (master, copy) in copies(&servers) {
            servers.cli(master, &["set", &copy, ANOTHER]);
        }
        servers.pause(master);
        let ledger = open(&servers, OnOutage::Local, folder.path());
        ledger.ready().await.unwrap();
        until("the node is known to be unreachable", async || ledger.outage().unwrap().borrow().is_some()).await;
        let name = ledger.recipient_key("a@dest.example");
        servers.resume(master);
        until("it goes by the key", async || ledger.recipient_key("a@dest.example") != name).await;
        until_copied(&servers, &secret).await;
        assert_eq!(servers.cli(master, &["get", KEY]), secret);
        write(&ledger, &well[0], "a@dest.example").await.unwrap();
        assert_eq!(written(&ledger, &well[0]).await, [2, 1]);
        until_ready(&ledger).await;
        let name = ledger.recipient_key("a@dest.example");
        ledger.close().await;
        drop(ledger);
        (0..3).for_each(|master| servers.pause(master));
        let ledger = open(&servers, OnOutage::Local, folder.path());
        assert_eq!(ledger.recipient_key("a@dest.example"), name, "also on disk");
    });
}

/// The daemons agree on how the recipient is called, and report so often that the store was emptied.
async fn until_agreed(daemons: &[&Ledger], times_emptied: u64) {
    let names = || daemons.iter().map(|ledger| ledger.recipient_key("a@dest.example")).collect::<Vec<_>>();
    until("they agree, and report it", async || {
        let is_reported = daemons.iter().all(|ledger| ledger.gauges().unwrap().times_emptied == times_emptied);
        is_reported && names().windows(2).all(|two| two[0] == two[1])
    })
    .await;
    for ledger in daemons {
        let advice = ledger.advice().unwrap().borrow().clone().unwrap_or_default();
        assert!(advice.starts_with("the store was emptied, or a node of it (FLUSHALL,"), "{advice}");
    }
}

#[test]
fn daemons_agree_again_on_how_to_hash_after_the_store_was_emptied() {
    for (flavour, kind) in [(Flavour::Redis, Kind::Single), (Flavour::Valkey, Kind::Cluster)] {
        let (servers, folder) = (Servers::start(flavour, kind, &[]), tempfile::tempdir().unwrap());
        runtime().block_on(async {
            let daemons =
                [open(&servers, OnOutage::Defer, "".as_ref()), open(&servers, OnOutage::Local, folder.path())];
            let [one, other] = &daemons;
            for ledger in &daemons {
                ledger.ready().await.unwrap();
                write(ledger, "acme", "a@dest.example").await.unwrap();
            }
            assert_eq!(written(one, "acme").await, [2, 1]);
            assert_eq!(one.advice().unwrap().borrow().as_deref(), None);
            let node = if kind == Kind::Cluster { master_of(&servers, KEY) } else { 0 };
            if kind == Kind::Cluster {
                until_copied(&servers, &servers.cli(node, &["get", KEY])).await;
            }
            servers.cli(node, &["flushall"]);
            let new = open(&servers, OnOutage::Defer, "".as_ref());
            new.ready().await.unwrap();
            until_agreed(&daemons.each_ref(), 1).await;
            for ledger in [one, other, &new] {
                write(ledger, "bolt", "b@dest.example").await.unwrap();
            }
            assert_eq!(written(&new, "bolt").await, [3, 1]);
            if kind == Kind::Cluster {
                until_copied(&servers, &servers.cli(node, &["get", KEY])).await;
            }
            let name = one.recipient_key("a@dest.example");
            other.close().await;
            drop((daemons, new));
            drop(servers);
            let urls = ["redis://127.0.0.1:1".to_owned()];
            let again =
                Ledger::open_shared_with_folder(&urls, OnOutage::Local, folder.path(), RESERVATION_TIMEOUT).unwrap();
            assert_eq!(again.recipient_key("a@dest.example"), name, "also on disk");
        });
    }
}

#[test]
fn a_node_that_was_emptied_is_reported_and_gets_its_copies_back() {
    let servers = Servers::start(Flavour::Redis, Kind::Cluster, &[]);
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Defer, "".as_ref());
        ledger.ready().await.unwrap();
        let (master, name) = (master_of(&servers, KEY), ledger.recipient_key("a@dest.example"));
        let secret = servers.cli(master, &["get", KEY]);
        until_copied(&servers, &secret).await;
        // Twice: the first time it may still be about to note that all of them are there.
        servers.cli((master + 1) % 3, &["flushall"]);
        until_copied(&servers, &secret).await;
        servers.cli((master + 1) % 3, &["flushall"]);
        until_agreed(&[&ledger], 1).await;
        until_copied(&servers, &secret).await;
        assert_eq!(ledger.recipient_key("a@dest.example"), name);
    });
}
