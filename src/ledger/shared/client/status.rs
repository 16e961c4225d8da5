//! What the client publishes about the servers: what is unreachable and why, and what an administrator should change.

use super::slot_migration::BlockedCustomers;
use super::topology::Topology;
use crate::clock::Moment;
use crate::ledger::{Outage, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How many errors an outage names; of the others it gives the number.
const MAX_NAMED: usize = 3;

/// For how long it is reported that the store was emptied: until every window has only what was counted since.
const REPORTED: Duration = Duration::from_secs(86_400);
/// One loss is noticed at several keys, not all at the same time.
const ONE_LOSS: Duration = Duration::from_secs(30);

pub(super) struct Status {
    outage: watch::Sender<Option<Outage>>,
    advice: watch::Sender<Option<Arc<str>>>,
    changes: watch::Sender<u64>,
    /// Each node, and whether it was up, when that was last published.
    node_states: Mutex<Vec<(usize, bool)>>,
    is_any_unreachable: AtomicBool,
    /// The last request's error, if a node that is up refused it.
    refused: Mutex<Option<StoreError>>,
    has_refused: AtomicBool,
    /// When it was last noticed that the store had lost its data, and how that is reported.
    emptied: Mutex<Option<(Moment, String)>>,
    /// How often.
    times_emptied: AtomicU64,
}

impl Status {
    pub fn new() -> Status {
        Status {
            outage: watch::Sender::new(None),
            advice: watch::Sender::new(None),
            changes: watch::Sender::new(0),
            node_states: Mutex::default(),
            is_any_unreachable: AtomicBool::new(false),
            refused: Mutex::default(),
            has_refused: AtomicBool::new(false),
            emptied: Mutex::default(),
            times_emptied: AtomicU64::new(0),
        }
    }

    pub fn outage(&self) -> &watch::Sender<Option<Outage>> {
        &self.outage
    }

    pub fn advice(&self) -> &watch::Sender<Option<Arc<str>>> {
        &self.advice
    }

    /// Counts changes of what is reachable.
    pub fn changes(&self) -> &watch::Sender<u64> {
        &self.changes
    }

    /// Some node, or some customer whose slot is migrating.
    pub fn is_any_unreachable(&self) -> bool {
        self.is_any_unreachable.load(Ordering::Acquire)
    }

    /// Whether that ends an outage, so that it must be published.
    #[must_use]
    pub fn request_succeeded(&self) -> bool {
        if !self.has_refused.load(Ordering::Relaxed) {
            return false;
        }
        *self.refused.lock() = None;
        self.has_refused.store(false, Ordering::Relaxed);
        true
    }

    pub fn request_refused(&self, error: StoreError) {
        *self.refused.lock() = Some(error);
        self.has_refused.store(true, Ordering::Relaxed);
    }

    pub fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The store, or a node of it, has lost its data. `wall`: milliseconds since 1970.
    pub fn store_emptied(&self, elapsed: Moment, wall: i64) {
        let at = jiff::Timestamp::from_second(wall / 1000).unwrap_or_default();
        let words = format!(
            "the store was emptied, or a node of it (FLUSHALL, or a restart without its files), as found at {at}: what was \
             counted there before does not count"
        );
        let mut emptied = self.emptied.lock();
        if emptied.as_ref().is_some_and(|(before, _)| elapsed < before.plus(ONE_LOSS)) {
            return;
        }
        *emptied = Some((elapsed, words));
        self.times_emptied.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the store was found emptied since the start.
    pub fn times_emptied(&self) -> u64 {
        self.times_emptied.load(Ordering::Relaxed)
    }

    pub fn publish(&self, topology: &Topology, blocked: &BlockedCustomers, elapsed: Moment) {
        let nodes: Vec<StoreError> = topology.nodes.iter().filter_map(|managed| managed.node.unreachable()).collect();
        let slots = blocked.errors();
        self.is_any_unreachable.store(!nodes.is_empty() || !slots.is_empty(), Ordering::Release);
        let since = self.outage.borrow().as_ref().map_or_else(Instant::now, |before| before.since);
        let outage = if nodes.is_empty() && slots.is_empty() {
            self.refused.lock().clone().map(|error| Outage { why: error.message(), in_part: false, since })
        } else {
            let named: Vec<_> = nodes.iter().chain(&slots).take(MAX_NAMED).map(StoreError::message).collect();
            let more = nodes.len() + slots.len() - named.len();
            let why = named.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() };
            Some(Outage { why: why.into(), in_part: nodes.len() < topology.nodes.len(), since })
        };
        self.outage.send_if_modified(|before| {
            let is_news = before.is_some() != outage.is_some();
            *before = outage;
            is_news
        });
        let emptied = self.emptied.lock().clone();
        let emptied = emptied.filter(|(at, _)| elapsed < at.plus(REPORTED)).map(|(_, words)| words);
        let of_nodes = topology.nodes.iter().find_map(|managed| managed.node.advice.lock().clone());
        let advice: Vec<String> = emptied.into_iter().chain(of_nodes).collect();
        let advice = (!advice.is_empty()).then(|| advice.join("; "));
        self.advice.send_if_modified(|before| {
            let is_news = before.as_deref() != advice.as_deref();
            *before = advice.map(Into::into);
            is_news
        });
        let states =
            topology.nodes.iter().map(|managed| (Arc::as_ptr(&managed.node) as usize, managed.node.is_up())).collect();
        if *self.node_states.lock() != states {
            *self.node_states.lock() = states;
            self.changed();
        }
    }
}
