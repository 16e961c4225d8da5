//! A slot of a Cluster is migrating to another master, and stays so: a new customer, whose keys are on neither, is treated as
//! `on_outage` says, at once; all others notice nothing, those of the same slot included.

use crate::failover::{begin_to_move, move_all};
use crate::redis::{Flavour, Kind, Servers};
use crate::stores::runtime;
use crate::unreachable_node::{AT_ONCE, MANY, counted, meanwhile, open, send, until, until_ready};
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties};
use relaykeeper::ledger::{AcceptedRecipients, Readiness, RecipientKey};
use std::cell::Cell;
use std::time::Instant;

/// They lie in one slot.
const KNOWN: &str = "customer319";
const NEW: &str = "customer2002";
/// Elsewhere.
const OTHER: &str = "customer0";

fn slot_of(servers: &Servers, customer: &str) -> String {
    servers.cli(0, &["cluster", "keyslot", &format!("rk:{{{customer}}}:c")])
}

/// What the new customer gets while the slot moves.
async fn blocked(on_outage: OnOutage, flavour: Flavour) {
    let (servers, folder) = (Servers::start(flavour, Kind::Cluster, &[]), tempfile::tempdir().unwrap());
    let slot = slot_of(&servers, KNOWN);
    assert!(slot == slot_of(&servers, NEW) && slot != slot_of(&servers, OTHER));
    let from = slot.parse::<usize>().unwrap() * 3 / 16384;
    let to = (from + 1) % 3;
    let (ledger, well) = (open(&servers, on_outage, folder.path()), [KNOWN, OTHER].map(str::to_owned));
    for customer in &well {
        assert!(send(&ledger, customer, 1, 1 << 40).await.unwrap());
    }
    begin_to_move(&servers, &slot, from, to);
    let (passed, mut here) = (Cell::new(0), 0);
    let began = Instant::now();
    let first = meanwhile(&ledger, &well, &passed, send(&ledger, NEW, 0, 1 << 40)).await;
    println!("{on_outage:?}: first {first:?} after {:?}, others {}", began.elapsed(), passed.get());
    assert_eq!(first.is_err(), on_outage == OnOutage::Defer);
    here += u64::from(first.is_ok());
    let began = Instant::now();
    meanwhile(&ledger, &well, &passed, async {
        for n in 1..=MANY {
            let then = send(&ledger, NEW, n, 1 << 40).await;
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
    let keys = [from, to].map(|node| servers.cli(node, &["--scan", "--pattern", &format!("rk:{{{NEW}}}:*")]));
    assert_eq!(keys, ["", ""], "nothing is counted where it could be lost");
    meanwhile(&ledger, &well, &passed, async {
        move_all(&servers, &slot, from, to);
        until_ready(&ledger).await;
    })
    .await;
    let other = open(&servers, OnOutage::Defer, folder.path());
    until("what passed is counted", async || counted(&other, NEW).await.is_ok_and(|counted| counted >= here)).await;
    assert_eq!(counted(&other, NEW).await.unwrap(), here, "each once");
    let of_others = counted(&other, KNOWN).await.unwrap() + counted(&other, OTHER).await.unwrap();
    // Each time that it stops one may be under way.
    assert!((passed.get() + 2..=passed.get() + 5).contains(&of_others), "{of_others} {}", passed.get());
    assert!(!send(&ledger, NEW, 1000, here).await.unwrap(), "the store decides again");
    assert!(send(&ledger, NEW, 1000, 1 << 40).await.unwrap());
}

#[test]
fn a_new_customer_whose_slot_moves_is_deferred_at_once() {
    runtime().block_on(blocked(OnOutage::Defer, Flavour::Valkey));
}

#[test]
fn a_new_customer_whose_slot_moves_passes_at_once() {
    runtime().block_on(blocked(OnOutage::Accept, Flavour::Redis));
}

#[test]
fn a_new_customer_whose_slot_moves_is_decided_here_at_once() {
    runtime().block_on(blocked(OnOutage::Local, Flavour::Redis));
}

#[test]
fn a_slot_that_does_not_move_after_all_keeps_its_customers() {
    let (servers, folder) = (Servers::start(Flavour::Valkey, Kind::Cluster, &[]), tempfile::tempdir().unwrap());
    let slot = slot_of(&servers, NEW);
    let from = slot.parse::<usize>().unwrap() * 3 / 16384;
    let to = (from + 1) % 3;
    runtime().block_on(async {
        let ledger = open(&servers, OnOutage::Local, folder.path());
        assert!(send(&ledger, KNOWN, 1, 1 << 40).await.unwrap());
        begin_to_move(&servers, &slot, from, to);
        assert!(send(&ledger, NEW, 1, 1 << 40).await.unwrap());
        let top = ledger.top(LimitName::CustomerDay, 10).await.unwrap();
        assert_eq!(top.most.iter().map(|(subject, _)| &*subject.name).collect::<Vec<_>>(), [KNOWN]);
        // A new user is as a new customer.
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let parties = Parties { customer: KNOWN.into(), user: Some("bob".into()), login: None };
        let (id, kept) = (ledger.new_reservation(), AcceptedRecipients { named: &[RecipientKey(1)], unnamed: 0 });
        assert!(ledger.commit(id, &parties, &unlimited, kept).await.unwrap().fits());
        let top = ledger.top(LimitName::CustomerDay, 10).await.unwrap();
        assert!(top.most.is_empty() && top.missing.len() == 1, "{top:?}");
        assert!(top.missing[0].why.starts_with(&format!("slot {slot} is migrating")), "{top:?}");
        for node in [to, from] {
            servers.cli(node, &["cluster", "setslot", &slot, "stable"]);
        }
        until_ready(&ledger).await;
        let other = open(&servers, OnOutage::Defer, folder.path());
        assert_eq!((counted(&other, NEW).await.unwrap(), counted(&other, KNOWN).await.unwrap()), (1, 2));
    });
}
