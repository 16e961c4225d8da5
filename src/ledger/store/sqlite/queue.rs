//! Where accepted messages wait for the writer.

use crate::ledger::Subject;
use crate::ledger::book::Entry;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// More than so many waiting, and callers wait before they add to them.
const ROOM: usize = 65_536;

/// So many are worth a transaction of their own.
pub(super) const ENOUGH: usize = 4096;

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

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    room: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: Vec<Job>,
    /// Somebody waits for one of them.
    awaited: bool,
    closing: bool,
}

/// How long the writer waits for work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first job.
    pub idle: Duration,
    /// For more, after the first, unless there are `enough`, or somebody waits for one.
    pub linger: Duration,
    pub enough: usize,
}

impl Queue {
    /// Whether it was taken: not if the store is being closed.
    #[must_use]
    pub fn push(&self, job: Job) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            return false;
        }
        let first_awaited = job.waiter.is_some() && !waiting.awaited;
        waiting.awaited |= first_awaited;
        waiting.jobs.push(job);
        // What the writer may sleep for: the first job, the first that is awaited, enough of them.
        let wake = first_awaited || waiting.jobs.len() == 1 || waiting.jobs.len() == ENOUGH;
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
        true
    }

    /// Waits until there is room for more.
    pub async fn room(&self) {
        while !self.has_room() {
            let room = self.room.notified();
            if self.has_room() {
                break;
            }
            room.await;
        }
    }

    pub fn has_room(&self) -> bool {
        self.waiting.lock().jobs.len() < ROOM
    }

    /// Moves what waits to the end of `jobs`, and tells whether the store is being closed.
    pub fn take(&self, jobs: &mut Vec<Job>, patience: Patience) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.is_empty() && !waiting.closing {
            self.wake.wait_for(&mut waiting, patience.idle);
        }
        if !waiting.jobs.is_empty() {
            let until = Instant::now() + patience.linger;
            while waiting.jobs.len() < patience.enough && !waiting.awaited && !waiting.closing {
                if self.wake.wait_until(&mut waiting, until).timed_out() {
                    break;
                }
            }
        }
        waiting.awaited = false;
        let was_full = waiting.jobs.len() >= ROOM;
        jobs.append(&mut waiting.jobs);
        let closing = waiting.closing;
        drop(waiting);
        if was_full {
            self.room.notify_waiters();
        }
        closing
    }

    pub fn is_closing(&self) -> bool {
        self.waiting.lock().closing
    }

    /// Takes no more, and has the writer end when it has written what waits.
    pub fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_one();
        self.room.notify_waiters();
    }
}
