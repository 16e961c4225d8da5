//! Messages that passed while the store was away (`on_outage = "accept"`): counted when it is back.

use crate::ledger::{Parties, RecipientKey};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// So many are remembered; what is beyond stays uncounted.
const MOST: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Passed>,
    /// Somebody sees to it that they are counted.
    is_attended: bool,
    put_off: usize,
}

/// A message that passed.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub parties: Parties,
    pub named: Vec<RecipientKey>,
    pub unnamed: u32,
    pub nonce: u64,
    pub at: Instant,
}

impl Backlog {
    /// Adds one; true if the caller has to see to it that it is counted, because nobody does yet. The message itself
    /// comes back if there is no room.
    pub fn push(&self, message: Passed) -> Result<bool, Passed> {
        let mut waiting = self.waiting.lock();
        if waiting.messages.len() >= MOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(message);
        }
        waiting.messages.push_back(message);
        Ok(!std::mem::replace(&mut waiting.is_attended, true))
    }

    /// The next one. `None`: all are counted, and the caller need not attend to it any more.
    pub fn next(&self) -> Option<Passed> {
        let mut waiting = self.waiting.lock();
        let next = waiting.messages.front().cloned();
        waiting.is_attended = next.is_some();
        next
    }

    /// The next one cannot be counted yet: others come first. True if none of them is left that was not tried since the last
    /// was counted.
    pub fn put_off(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.put_off += 1;
        if let Some(message) = waiting.messages.pop_front() {
            waiting.messages.push_back(message);
        }
        waiting.put_off >= waiting.messages.len()
    }

    /// The next one is counted.
    pub fn counted(&self) {
        let mut waiting = self.waiting.lock();
        waiting.messages.pop_front();
        waiting.put_off = 0;
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().messages.len()
    }

    /// Messages that will never be counted.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
