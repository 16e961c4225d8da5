//! The state of the shared store, for `status`, the log and monitoring.

use super::fallback::Fallback;
use super::store::SharedStore;
use crate::ledger::{Gauges, Outage, Readiness};
use std::sync::Arc;
use tokio::sync::watch;

impl SharedStore {
    /// What is unreachable and why, and changes of that.
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.remote.client.outage()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.remote.client.advice()
    }

    /// How many messages were counted locally and are not merged yet, and changes of that; and how many were merged. `None`
    /// without `on_outage = "local"`.
    pub fn counted_locally(&self) -> Option<(watch::Receiver<u64>, u64)> {
        match &self.fallback {
            Fallback::Local(local) => Some((local.shared_counts().unmerged(), local.shared_counts().merged())),
            Fallback::Defer(_) | Fallback::Accept(_) => None,
        }
    }

    pub fn gauges(&self) -> Gauges {
        let outage = self.outage().borrow().clone();
        let counts = self.remote.client.node_counts();
        let is_whole_store = outage.as_ref().is_some_and(|outage| !outage.in_part);
        let (messages_to_count, messages_lost) = match &self.fallback {
            Fallback::Local(local) => (*local.shared_counts().unmerged().borrow(), 0),
            Fallback::Accept(backlog) | Fallback::Defer(backlog) => (backlog.len() as u64, backlog.lost()),
        };
        Gauges {
            parts: counts.nodes as u64,
            parts_away: if is_whole_store { counts.nodes } else { counts.unreachable } as u64,
            away_seconds: outage.map_or(0, |outage| outage.since.elapsed().as_secs()),
            customers_held_up: counts.blocked_customers as u64,
            messages_to_count,
            messages_lost,
            times_emptied: self.remote.client.times_emptied(),
        }
    }

    pub(super) fn readiness(&self) -> Readiness {
        let outage = self.outage().borrow().clone();
        let degraded = |what: std::fmt::Arguments| Readiness::Degraded(what.to_string().into());
        match (outage, &self.fallback) {
            (Some(outage), Fallback::Local(local)) => {
                let counts = local.shared_counts();
                let (unmerged, error) = (*counts.unmerged().borrow(), counts.degraded());
                let cannot_count = error.map_or_else(String::new, |error| format!("; cannot count locally: {error}"));
                degraded(format_args!(
                    "{outage}; decisions are based on the last known usage; messages counted locally: {unmerged}{cannot_count}"
                ))
            }
            (Some(outage), Fallback::Accept(backlog)) => {
                degraded(format_args!("{outage}; messages accepted and not counted yet: {}", backlog.len()))
            }
            (Some(outage), Fallback::Defer(_)) if outage.in_part => degraded(format_args!("{outage}")),
            (Some(outage), Fallback::Defer(_)) => Readiness::Failed(outage.why),
            (None, Fallback::Local(local)) if let unmerged @ 1.. = *local.shared_counts().unmerged().borrow() => {
                degraded(format_args!("messages counted locally that are not merged yet: {unmerged}"))
            }
            (None, Fallback::Local(local)) if let Some(error) = local.shared_counts().degraded() => {
                degraded(format_args!("usage cannot be saved for an outage: {error}"))
            }
            (None, Fallback::Accept(backlog)) if backlog.lost() > 0 => {
                degraded(format_args!("messages accepted and never counted: {}", backlog.lost()))
            }
            (None, _) if self.remote.client.is_connecting() => Readiness::Loading { done: 0, of: 0 },
            (None, _) => Readiness::Ready,
        }
    }
}
