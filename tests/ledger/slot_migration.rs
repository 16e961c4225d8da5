//! A slot of a Cluster is migrating to another master, and stays so: a new customer is served by that master at once; one whose
//! keys are on both is treated as `on_outage` says, at once; all others notice nothing, those of the same slot included.

use crate::failover::{begin_to_move, move_all};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::runtime;
use crate::unreachable_node::{AT_ONCE, MANY, counted, meanwhile, open, send, until, until_ready};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties};
use relaykeeper::ledger::{AcceptedRecipients, Ranking, Readiness, RecipientKey};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Instant;

/// They lie in one slot.
const KNOWN: &str = "customer319";
const NEW: &str = "customer2002";
const DIVIDED: &str = NEW;
/// Elsewhere.
const OTHER: &str = "customer0";

fn slot_of(servers: &Servers, customer: &str) -> String {
    servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{customer}}}:c")])
}

/// A Cluster, and the slot of the two customers with the masters that it migrates from and to.
fn cluster(flavour: Flavour) -> (Servers, String, usize, usize) {
    let servers = Servers::start(flavour, Kind::Cluster, &[]);
    let slot = slot_of(&servers, KNOWN);
    assert!(slot == slot_of(&servers, NEW) && slot != slot_of(&servers, OTHER));
    let from = slot.parse::<usize>().unwrap() * 3 / 16384;
    (servers, slot, from, (from + 1) % 3)
}

fn keys_of(servers: &Servers, node: usize, customer: &str) -> Vec<String> {
    let keys = servers.cli(node, &["--scan", "--pattern", &format!("rk:{{{customer}}}:*")]);
    keys.lines().map(str::to_owned).collect()
}

#[test]
fn a_new_customer_whose_slot_moves_is_served_at_once() {
    for flavour in [Flavour::Redis, Flavour::Valkey] {
        let (servers, slot, from, to) = cluster(flavour);
        runtime().block_on(async {
            let [one, other] = [(); 2].map(|()| open(&servers, OnOutage::Defer, "".as_ref()));
            assert!(send(&one, KNOWN, 1, 1 << 40).await.unwrap());
            begin_to_move(&servers, &slot, from, to);
            assert_eq!(counted(&other, NEW).await.unwrap(), 0);
            assert_eq!(one.top(LimitName::CustomerDay, 10).await.unwrap().most.len(), 1, "it has sent nothing");
            for n in 0..5 {
                assert!(send(&one, NEW, n, 10).await.unwrap());
                assert!(send(&other, NEW, n + 5, 10).await.unwrap());
            }
            assert!(!send(&one, NEW, 11, 10).await.unwrap(), "the limit holds");
            let why = one.outage().unwrap().borrow().clone();
            assert!(why.is_none(), "{why:?}");
            assert!(keys_of(&servers, from, NEW).is_empty());
            move_all(&servers, &slot, from, to);
            for key in keys_of(&servers, to, NEW) {
                assert!(servers.cli(to, &["ttl", &key]).parse::<i64>().unwrap() > 0, "{key} expires");
            }
            assert!(!send(&other, NEW, 12, 10).await.unwrap(), "the limit still holds");
            let new = open(&servers, OnOutage::Defer, "".as_ref());
            assert_eq!((counted(&new, NEW).await.unwrap(), counted(&new, KNOWN).await.unwrap()), (10, 1));
        });
    }
}

/// What a customer gets whose keys are on both masters.
async fn blocked(on_outage: OnOutage, flavour: Flavour) {
    let ((servers, slot, from, to), folder) = (cluster(flavour), tempfile::tempdir().unwrap());
    let (ledger, well) = (open(&servers, on_outage, folder.path()), [KNOWN, OTHER].map(str::to_owned));
    for customer in &well {
        assert!(send(&ledger, customer, 1, 1 << 40).await.unwrap());
    }
    assert!(send(&ledger, DIVIDED, MANY + 1, 1 << 40).await.unwrap());
    begin_to_move(&servers, &slot, from, to);
    let (port, its_key) = (servers.port(to).to_string(), format!("rk:{{{DIVIDED}}}:c"));
    servers.cli(from, &["migrate", "127.0.0.1", &port, &its_key, "0", "5000"]);
    let (passed, mut here) = (Cell::new(0), 1);
    let first = meanwhile(&ledger, &well, &passed, send(&ledger, DIVIDED, 0, 1 << 40)).await;
    assert_eq!(first.is_err(), on_outage == OnOutage::Defer);
    here += u64::from(first.is_ok());
    let began = Instant::now();
    meanwhile(&ledger, &well, &passed, async {
        for n in 1..=MANY {
            let then = send(&ledger, DIVIDED, n, 1 << 40).await;
            assert_eq!(then.is_err(), on_outage == OnOutage::Defer);
            here += u64::from(then.is_ok());
            let why = ledger.outage().unwrap().borrow().clone().expect("it is reported all the time");
            assert!(why.in_part && why.why.contains(&format!("slot {slot} is migrating")), "{why}");
        }
    })
    .await;
    println!("{MANY} more after {:?}", began.elapsed());
    assert!(began.elapsed() < AT_ONCE, "they did not wait: {:?}", began.elapsed());
    assert!(matches!(ledger.health().readiness, Readiness::Degraded(_)), "{:?}", ledger.health());
    meanwhile(&ledger, &well, &passed, async {
        move_all(&servers, &slot, from, to);
        until_ready(&ledger).await;
    })
    .await;
    let other = open(&servers, OnOutage::Defer, folder.path());
    until("what passed is counted", async || counted(&other, DIVIDED).await.is_ok_and(|counted| counted >= here)).await;
    assert_eq!(counted(&other, DIVIDED).await.unwrap(), here, "each once");
    let of_others = counted(&other, KNOWN).await.unwrap() + counted(&other, OTHER).await.unwrap();
    // Each time that it stops one may be under way.
    assert!((passed.get() + 2..=passed.get() + 5).contains(&of_others), "{of_others} {}", passed.get());
    assert!(!send(&ledger, DIVIDED, 1000, here).await.unwrap(), "the store decides again");
    assert!(send(&ledger, DIVIDED, 1000, 1 << 40).await.unwrap());
}

#[test]
fn a_customer_in_the_middle_of_a_move_is_deferred_at_once() {
    runtime().block_on(blocked(OnOutage::Defer, Flavour::Valkey));
}

#[test]
fn a_customer_in_the_middle_of_a_move_passes_at_once() {
    runtime().block_on(blocked(OnOutage::Accept, Flavour::Redis));
}

#[test]
fn a_customer_in_the_middle_of_a_move_is_decided_here_at_once() {
    runtime().block_on(blocked(OnOutage::Local, Flavour::Redis));
}

#[test]
fn a_slot_that_does_not_move_after_all_keeps_its_customers() {
    let ((servers, slot, from, to), folder) = (cluster(Flavour::Valkey), tempfile::tempdir().unwrap());
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Local, folder.path());
        assert!(send(&ledger, KNOWN, 1, 1 << 40).await.unwrap());
        begin_to_move(&servers, &slot, from, to);
        assert!(send(&ledger, NEW, 1, 1 << 40).await.unwrap());
        let names =
            |top: &Ranking| top.most.iter().map(|(subject, _)| subject.name.to_string()).collect::<BTreeSet<_>>();
        let top = ledger.top(LimitName::CustomerDay, 10).await.unwrap();
        assert_eq!(names(&top), BTreeSet::from([KNOWN, NEW].map(str::to_owned)));
        // The keys of a new user of a customer that is still on the old master can be on neither.
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let parties = Parties { customer: KNOWN.into(), user: Some("bob".into()), login: None };
        let (id, kept) = (ledger.new_reservation(), AcceptedRecipients { named: &[RecipientKey(1)], unnamed: 0 });
        assert!(ledger.commit(id, &parties, &unlimited, kept).await.unwrap().fits());
        let top = ledger.top(LimitName::CustomerDay, 10).await.unwrap();
        assert!(names(&top) == BTreeSet::from([NEW.to_owned()]) && top.missing.len() == 1, "{top:?}");
        assert!(top.missing[0].why.starts_with(&format!("slot {slot} is migrating")), "{top:?}");
        // As "redis-cli --cluster fix" does.
        servers.cli(from, &["cluster", "setslot", &slot, "stable"]);
        let port = servers.port(from).to_string();
        for key in keys_of(&servers, to, NEW) {
            servers.cli(to, &["migrate", "127.0.0.1", &port, &key, "0", "5000"]);
        }
        servers.cli(to, &["cluster", "setslot", &slot, "stable"]);
        until_ready(&ledger).await;
        let other = open(&servers, OnOutage::Defer, folder.path());
        assert_eq!((counted(&other, NEW).await.unwrap(), counted(&other, KNOWN).await.unwrap()), (1, 2));
    });
}
