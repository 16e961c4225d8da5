//! What the client publishes about the servers: what is unreachable and why, and what an administrator should change.

use super::slot_migration::BlockedCustomers;
use super::topology::Topology;
use crate::ledger::{Outage, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// How many errors an outage names; of the others it gives the number.
const MAX_NAMED: usize = 3;

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

    pub fn publish(&self, topology: &Topology, blocked: &BlockedCustomers) {
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
        let advice = topology.nodes.iter().find_map(|managed| managed.node.advice.lock().clone());
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
