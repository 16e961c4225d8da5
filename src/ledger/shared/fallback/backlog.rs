//! Messages that were accepted while the servers were unreachable (`on_outage = "accept"`): counted later.

use crate::directory::Parties;
use crate::ledger::shared::remote::{LateMessage, Remote};
use crate::ledger::{AcceptedRecipients, RecipientKey, ReservationId};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many are remembered; further ones stay uncounted.
const MAX_MESSAGES: usize = 200_000;

/// After a message that could not be counted.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(in crate::ledger::shared) struct Backlog {
    queue: Mutex<Queue>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<UncountedMessage>,
    /// A task is counting them.
    is_attended: bool,
}

/// What can be counted now.
enum Next {
    Message(UncountedMessage),
    /// All that is left belongs to customers whose nodes are unreachable.
    NoneReachable,
    /// All are counted, and the task ends.
    Empty,
}

#[derive(Clone, Debug)]
pub(in crate::ledger::shared) struct UncountedMessage {
    pub parties: Parties,
    /// Without repeats.
    pub named: Vec<RecipientKey>,
    pub unnamed: u32,
    /// The server may have counted it under this number already.
    pub nonce: u64,
    pub at: Instant,
}

impl Backlog {
    /// Counts a message once the servers are reachable.
    pub fn count_later(self: &Arc<Self>, message: UncountedMessage, remote: &Arc<Remote>) {
        match self.push(message) {
            Ok(true) => drop(tokio::spawn(self.clone().count_all(remote.clone()))),
            Ok(false) => {}
            Err(lost) => remote.nonces.retire(&lost.parties.customer, lost.nonce),
        }
    }

    /// How many messages are not counted yet.
    pub fn len(&self) -> usize {
        self.queue.lock().messages.len()
    }

    /// How many messages will never be counted.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns when all are counted.
    pub async fn counted(&self) {
        while self.len() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Adds a message. True: the caller must start a task that counts it. If there is no room, the message comes back.
    fn push(&self, message: UncountedMessage) -> Result<bool, UncountedMessage> {
        let mut queue = self.queue.lock();
        if queue.messages.len() >= MAX_MESSAGES {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(message);
        }
        queue.messages.push_back(message);
        Ok(!std::mem::replace(&mut queue.is_attended, true))
    }

    async fn count_all(self: Arc<Self>, remote: Arc<Remote>) {
        let mut changes = remote.client.changes();
        loop {
            let message = match self.next(&remote) {
                Next::Message(message) => message,
                Next::NoneReachable => {
                    let _ = changes.changed().await;
                    continue;
                }
                Next::Empty => return,
            };
            let late = LateMessage {
                // Its reservation, if there is one, expires.
                transaction: remote.transaction(ReservationId(0)),
                daemon: remote.daemon,
                nonce: message.nonce,
                oldest_nonce: remote.nonces.oldest_pending(&message.parties.customer),
                parties: &message.parties,
                recipients: AcceptedRecipients { named: &message.named, unnamed: message.unnamed },
                age: message.at.elapsed(),
            };
            if remote.commit_late(late).await.is_ok() {
                self.queue.lock().messages.pop_front();
                remote.nonces.retire(&message.parties.customer, message.nonce);
            } else {
                self.put_off();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The first message that can be counted; it becomes the front of the queue. For one task only.
    fn next(&self, remote: &Remote) -> Next {
        let mut queue = self.queue.lock();
        for _ in 0..queue.messages.len() {
            match queue.messages.front() {
                Some(next) if !remote.is_unreachable(&next.parties.customer) => return Next::Message(next.clone()),
                _ => queue.messages.rotate_left(1),
            }
        }
        queue.is_attended = !queue.messages.is_empty();
        if queue.is_attended { Next::NoneReachable } else { Next::Empty }
    }

    /// The front of the queue could not be counted: others are tried first.
    fn put_off(&self) {
        let mut queue = self.queue.lock();
        if !queue.messages.is_empty() {
            queue.messages.rotate_left(1);
        }
    }
}
