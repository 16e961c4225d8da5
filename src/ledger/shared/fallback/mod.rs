//! What happens to mail while the servers are unreachable (`on_outage`).
//!
//! With `local`:
//!
//! ```text
//!   the servers' responses ──► last_known: usage that was last reported ──┐
//!                                                                         ├──► local_counts: decides ──► records: on disk
//!   what was reserved and counted locally ──► a book ─────────────────────┘                                   │
//!                                                                                                              ▼
//!   the servers ◄───────────── merge: each message once, when they are reachable again ◄──────────────── outage_file
//! ```
//!
//! A customer's mail is decided locally from the first request that fails until all that was counted locally for it is
//! merged: the servers do not know all of it before. Then what was counted locally becomes last-known usage in one step.
//!
//! With `accept`, mail is accepted uncounted, and the backlog counts it later; with `defer`, too, if it has left before it was to be
//! counted. With both, the backlog also releases reservations of transactions that ended meanwhile.

mod backlog;
mod last_known;
mod local_counts;
mod merge;
mod outage_file;
mod records;

pub(super) use backlog::{Backlog, UncountedMessage};
pub(super) use local_counts::{Attempt, LocalCounts};

use super::remote::Remote;
use merge::{Merger, merge};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::AbortHandle;

#[derive(Debug)]
pub(super) enum Fallback {
    Defer(Arc<Backlog>),
    Accept(Arc<Backlog>),
    Local(LocalFallback),
}

impl Fallback {
    /// Waits until everything is on disk; what the backlog has is waited for at most for that long.
    pub async fn close(&self, timeout: Duration) {
        match self {
            Fallback::Defer(backlog) | Fallback::Accept(backlog) => {
                drop(tokio::time::timeout(timeout, backlog.counted()).await)
            }
            Fallback::Local(local) => local.counts.close().await,
        }
    }
}

/// Local counts, and the task that merges them.
#[derive(Debug)]
pub(super) struct LocalFallback {
    counts: Arc<LocalCounts>,
    merging: OnceLock<AbortHandle>,
}

impl LocalFallback {
    pub fn new(counts: Arc<LocalCounts>) -> LocalFallback {
        LocalFallback { counts, merging: OnceLock::new() }
    }

    /// Starts merging with the first call.
    pub fn counts(&self, remote: &Arc<Remote>) -> &LocalCounts {
        self.merging.get_or_init(|| {
            let merger = Merger { counts: self.counts.clone(), remote: remote.clone() };
            tokio::spawn(merge(merger)).abort_handle()
        });
        &self.counts
    }

    pub fn shared_counts(&self) -> Arc<LocalCounts> {
        self.counts.clone()
    }
}

impl Drop for LocalFallback {
    fn drop(&mut self) {
        if let Some(merging) = self.merging.get() {
            merging.abort();
        }
        self.counts.close_blocking();
    }
}
