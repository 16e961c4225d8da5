//! Where jobs wait for the writer.
//!
//! `tests/handover.rs` includes this file with another `sync` beside it, and tries the orders in which threads can get here.

use super::sync::{Condvar, Mutex, Notify};
use std::time::{Duration, Instant};

/// How many jobs are worth a transaction of their own.
pub(super) const ENOUGH: usize = 4096;

pub(super) trait Awaited {
    /// Somebody waits for it to be done.
    fn is_awaited(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    /// For the writer.
    wake: Condvar,
    /// With this many queued there is no room for more.
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

/// How long the writer waits for jobs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first job.
    pub idle: Duration,
    /// For more, after the first, unless there are `enough`, or somebody waits for one.
    pub linger: Duration,
    pub enough: usize,
}

impl<J> Queue<J> {
    /// `most`: with this many queued there is no room for more.
    pub fn new(most: usize) -> Queue<J> {
        let waiting = Waiting { jobs: Vec::new(), awaited: false, closing: false };
        Queue { waiting: Mutex::new(waiting), wake: Condvar::new(), most, room: Notify::new() }
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

    /// Moves all queued jobs to the end of `jobs`. True: the queue is closed, and these are the last ones.
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

    /// Accepts no more jobs, and has the writer end once it has written those that are queued.
    pub fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_one();
        self.room.notify_waiters();
    }
}

impl<J: Awaited> Queue<J> {
    /// # Errors
    /// The queue is closed: the job comes back.
    pub fn push(&self, job: J) -> Result<(), J> {
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            return Err(job);
        }
        let first_awaited = job.is_awaited() && !waiting.awaited;
        waiting.awaited |= first_awaited;
        waiting.jobs.push(job);
        // What the writer may be waiting for: the first job, the first one that is awaited, enough of them.
        let wake = first_awaited || waiting.jobs.len() == 1 || waiting.jobs.len() == ENOUGH;
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }
}
