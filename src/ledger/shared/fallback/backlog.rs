//! Messages that passed while the store was away (`on_outage = "accept"`): counted when it is back.

use crate::ledger::RecipientKey;

use crate::directory::Parties;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// So many are remembered; what is beyond stays uncounted.
const MOST: usize = 200_000;

#[derive(Debug, Default)]
pub(in crate::ledger::shared) struct Backlog {
    waiting: Mutex<Waiting>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<UncountedMessage>,
    /// Somebody sees to it that they are counted.
    is_attended: bool,
}

/// What is to be counted.
pub(in crate::ledger::shared) enum Next {
    Message(UncountedMessage),
    /// None of those that are left, as things stand.
    Later,
    /// All are counted, and the caller need not attend to it any more.
    None,
}

/// A message that passed.
#[derive(Clone, Debug)]
pub(in crate::ledger::shared) struct UncountedMessage {
    pub parties: Parties,
    pub named: Vec<RecipientKey>,
    pub unnamed: u32,
    pub nonce: u64,
    pub at: Instant,
}

impl Backlog {
    /// Adds one; true if the caller has to see to it that it is counted, because nobody does yet. The message itself
    /// comes back if there is no room.
    pub fn push(&self, message: UncountedMessage) -> Result<bool, UncountedMessage> {
        let mut waiting = self.waiting.lock();
        if waiting.messages.len() >= MOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(message);
        }
        waiting.messages.push_back(message);
        Ok(!std::mem::replace(&mut waiting.is_attended, true))
    }

    /// The next one of those that can be counted. One caller at a time.
    pub fn next(&self, can_be_counted: impl Fn(&UncountedMessage) -> bool) -> Next {
        let mut waiting = self.waiting.lock();
        for _ in 0..waiting.messages.len() {
            match waiting.messages.front() {
                Some(next) if can_be_counted(next) => return Next::Message(next.clone()),
                _ => waiting.messages.rotate_left(1),
            }
        }
        waiting.is_attended = !waiting.messages.is_empty();
        if waiting.is_attended { Next::Later } else { Next::None }
    }

    /// What was the next one is not counted yet: others come first.
    pub fn put_off(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.messages.is_empty() {
            waiting.messages.rotate_left(1);
        }
    }

    /// What was the next one is counted.
    pub fn counted(&self) {
        self.waiting.lock().messages.pop_front();
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().messages.len()
    }

    /// Messages that will never be counted.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
