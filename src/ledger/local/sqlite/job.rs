//! What the writer is given to write.

use super::queue::Awaited;
use crate::directory::Subject;
use crate::ledger::local::book::Entry;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the writer is to write.
#[derive(Debug)]
pub(super) struct Job {
    pub what: What,
    /// Told the outcome. Whoever hung up waits no longer, and has told nobody that the message was accepted.
    pub waiter: Option<oneshot::Sender<Outcome>>,
}

/// Written, or why not.
pub(super) type Outcome = Result<(), Arc<str>>;

#[derive(Debug)]
pub(super) enum What {
    Message(Entry),
    Reset {
        subject: Subject,
        why: String,
        /// The account's number, if the books have forgotten its counts already; else the writer has them forget.
        done: Option<Option<u64>>,
    },
}

impl Awaited for Job {
    fn is_awaited(&self) -> bool {
        self.waiter.is_some()
    }
}
