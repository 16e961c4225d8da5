//! Where accepted messages wait for the writer.
//!
//! `tests/handover.rs` takes this file with another `sync` beside it, and tries in what orders threads can get here.

use super::sync::{Condvar, Mutex, Notify};
use std::time::{Duration, Instant};

/// So many are worth a transaction of their own.
pub(super) const ENOUGH: usize = 4096;

/// What can be queued.
pub(super) trait Awaited {
    /// Somebody waits for it to be done.
    fn is_awaited(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    /// For the writer.
    wake: Condvar,
    /// More than so many waiting, and callers wait before they add to them.
    most: usize,
    room: Notify,
}

#[derive(Debug)]
struct Waiting<J> {
    jobs: Vec<J>,
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

impl<J: Awaited> Queue<J> {
    /// `most`: when so many wait there is no room for more.
    pub fn new(most: usize) -> Queue<J> {
        let waiting = Waiting { jobs: Vec::new(), awaited: false, closing: false };
        Queue { waiting: Mutex::new(waiting), wake: Condvar::new(), most, room: Notify::new() }
    }

    /// Whether it was taken: not if the store is being closed.
    #[must_use]
    pub fn push(&self, job: J) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            return false;
        }
        let first_awaited = job.is_awaited() && !waiting.awaited;
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
        self.waiting.lock().jobs.len() < self.most
    }

    /// Moves what waits to the end of `jobs`, and tells whether the store is being closed.
    pub fn take(&self, jobs: &mut Vec<J>, patience: Patience) -> bool {
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
        let was_full = waiting.jobs.len() >= self.most;
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
