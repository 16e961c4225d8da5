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
    /// Whether a reply waits for it. What nobody waits for is written with what comes after it.
    pub hurried: bool,
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
    /// How many of them are hurried.
    hurried: usize,
    closing: bool,
}

/// How long the writer waits for work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first job.
    pub idle: Duration,
    /// For more, after the first, unless there are `enough`.
    pub linger: Duration,
    pub enough: usize,
    /// As `linger`, as long as nothing that waits is hurried.
    pub unhurried: Duration,
}

impl Queue {
    /// Whether it was taken: not if the store is being closed.
    #[must_use]
    pub fn push(&self, job: Job) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            return false;
        }
        waiting.hurried += usize::from(job.hurried);
        let first_hurried = job.hurried && waiting.hurried == 1;
        waiting.jobs.push(job);
        // What the writer may sleep for: the first job, the first that is hurried, enough of them.
        let wake = first_hurried || waiting.jobs.len() == 1 || waiting.jobs.len() == ENOUGH;
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
            let now = Instant::now();
            let until = |hurried: usize| now + if hurried == 0 { patience.unhurried } else { patience.linger };
            while waiting.jobs.len() < patience.enough && !waiting.closing {
                let until = until(waiting.hurried);
                if Instant::now() >= until || self.wake.wait_until(&mut waiting, until).timed_out() {
                    break;
                }
            }
        }
        let was_full = waiting.jobs.len() >= ROOM;
        jobs.append(&mut waiting.jobs);
        waiting.hurried = 0;
        let closing = waiting.closing;
        drop(waiting);
        if was_full {
            self.room.notify_waiters();
        }
        closing
    }

    /// Takes no more, and has the writer end when it has written what waits.
    pub fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_one();
        self.room.notify_waiters();
    }
}
