//! How the shared store is: what is away, and what waits for it.

use super::store::SharedStore;
use crate::config::OnOutage;
use crate::ledger::{Gauges, Outage, Readiness};
use std::sync::Arc;
use tokio::sync::watch;

impl SharedStore {
    /// What is away and why, and changes of that.
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.0.client.outage()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.client.advice()
    }

    /// How many messages that were counted here are to be merged, and changes of that; and how many were merged. `None`
    /// where nothing is counted here.
    pub fn counted_here(&self) -> Option<(watch::Receiver<u64>, u64)> {
        self.0.local.as_ref().map(|local| (local.waiting(), local.merged()))
    }

    pub fn gauges(&self) -> Gauges {
        let outage = self.0.client.outage().borrow().clone();
        let (parts, parts_away, customers_held_up) = self.0.client.how_many();
        let here = self.0.local.as_ref().map_or(0, |local| *local.waiting().borrow());
        Gauges {
            parts: parts as u64,
            parts_away: if outage.as_ref().is_some_and(|outage| !outage.in_part) { parts } else { parts_away } as u64,
            away_seconds: outage.map_or(0, |outage| outage.since.elapsed().as_secs()),
            customers_held_up: customers_held_up as u64,
            messages_to_count: here + self.0.backlog.len() as u64,
            messages_lost: self.0.backlog.lost(),
        }
    }

    /// Whether all is well, for `status`.
    pub fn readiness(&self) -> Readiness {
        let outage = self.0.client.outage().borrow().clone();
        let (waiting, lost) = (self.0.backlog.len(), self.0.backlog.lost());
        let here = self.0.local.as_ref().map(|local| *local.waiting().borrow());
        let degraded = |what: std::fmt::Arguments| Readiness::Degraded(what.to_string().into());
        match outage {
            Some(outage) if let Some(waiting) = here => degraded(format_args!(
                "{outage}; decided by the last known counts; messages counted here since: {waiting}"
            )),
            None if let Some(waiting @ 1..) = here => {
                degraded(format_args!("messages counted here that are still to be merged: {waiting}"))
            }
            Some(outage) if self.0.on_outage == OnOutage::Accept => {
                degraded(format_args!("{outage}; messages that passed and are still to be counted: {waiting}"))
            }
            Some(outage) if outage.in_part => degraded(format_args!("{outage}")),
            Some(outage) => Readiness::Failed(outage.why),
            None if lost > 0 => degraded(format_args!("messages that passed and were never counted: {lost}")),
            None if self.0.client.is_connecting() => Readiness::Loading { done: 0, of: 0 },
            None => Readiness::Ready,
        }
    }
}
