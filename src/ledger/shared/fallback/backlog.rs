//! What the servers are told once they are reachable: messages that were accepted uncounted meanwhile (`on_outage = "accept"`), and
//! reservations of transactions that ended without the servers hearing of it.

use crate::directory::Parties;
use crate::ledger::shared::protocol::request::TransactionId;
use crate::ledger::shared::remote::{LateMessage, Remote};
use crate::ledger::{AcceptedRecipients, RecipientKey};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many messages are remembered; further ones stay uncounted.
const MAX_MESSAGES: usize = 200_000;

/// How many ended reservations are remembered; further ones expire.
const MAX_RELEASES: usize = 20_000;

/// How many requests are sent at once. Mail that passes meanwhile shares the connection with them.
const AT_ONCE: usize = 16;

/// After a request that failed.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(in crate::ledger::shared) struct Backlog {
    queue: Mutex<Queue>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Customers with something in the queue, in the order of their turns.
    customers: VecDeque<Arc<str>>,
    entries: HashMap<Arc<str>, VecDeque<Entry>>,
    /// Not counted yet: in the queue, or being sent.
    messages: usize,
    /// In the queue, or being sent.
    releases: usize,
    /// A task is sending them.
    is_attended: bool,
}

#[derive(Debug)]
enum Entry {
    Message(UncountedMessage),
    Release(TransactionId, Parties),
}

#[derive(Debug)]
pub(in crate::ledger::shared) struct UncountedMessage {
    pub parties: Parties,
    /// Without repeats.
    pub named: Vec<RecipientKey>,
    pub unnamed: u32,
    /// The server may have a reservation of it.
    pub transaction: TransactionId,
    /// The server may have counted it under this number already. `None`: it was never sent. The server remembers all numbers
    /// from the oldest one on that may be sent again, so the fewer messages have one, the better.
    pub nonce: Option<u64>,
    pub at: Instant,
}

/// What can be sent now.
enum Next {
    Entries(Vec<Entry>),
    /// All that is left belongs to customers whose nodes are unreachable.
    NoneReachable,
    /// Nothing is left, and the task ends.
    Empty,
}

impl Backlog {
    /// Counts a message once the servers are reachable.
    pub fn count_later(self: &Arc<Self>, message: UncountedMessage, remote: &Arc<Remote>) {
        self.send_later(Entry::Message(message), remote);
    }

    /// Releases the reservation of a transaction that has ended, once the servers are reachable.
    pub fn release_later(self: &Arc<Self>, transaction: TransactionId, parties: &Parties, remote: &Arc<Remote>) {
        self.send_later(Entry::Release(transaction, parties.clone()), remote);
    }

    /// How many messages are not counted yet.
    pub fn len(&self) -> usize {
        self.queue.lock().messages
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

    fn send_later(self: &Arc<Self>, entry: Entry, remote: &Arc<Remote>) {
        let mut queue = self.queue.lock();
        match queue.add(entry) {
            Ok(()) if std::mem::replace(&mut queue.is_attended, true) => {}
            Ok(()) => drop(tokio::spawn(self.clone().send_all(remote.clone()))),
            Err(Entry::Message(lost)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                lost.nonce.into_iter().for_each(|nonce| remote.nonces.retire(&lost.parties.customer, nonce));
            }
            Err(Entry::Release(..)) => {}
        }
    }

    async fn send_all(self: Arc<Self>, remote: Arc<Remote>) {
        let mut changes = remote.client.changes();
        loop {
            let next = self.queue.lock().next(&remote);
            let entries = match next {
                Next::Entries(entries) => entries,
                Next::NoneReachable => {
                    let _ = changes.changed().await;
                    continue;
                }
                Next::Empty => return,
            };
            let mut sending = JoinSet::new();
            for entry in entries {
                let remote = remote.clone();
                sending.spawn(async move { send(entry, &remote).await });
            }
            let sent = sending.join_all().await;
            let has_failed = sent.iter().any(|(_, is_done)| !is_done);
            self.queue.lock().sent(sent);
            if has_failed {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the servers have done what the entry is for.
async fn send(mut entry: Entry, remote: &Remote) -> (Entry, bool) {
    let is_done = match &mut entry {
        Entry::Message(message) => count(message, remote).await,
        Entry::Release(transaction, parties) => remote.release(*transaction, parties).await.is_ok(),
    };
    (entry, is_done)
}

async fn count(message: &mut UncountedMessage, remote: &Remote) -> bool {
    let customer = &message.parties.customer;
    let nonce = *message.nonce.get_or_insert_with(|| remote.nonces.issue(customer).stay_pending());
    let late = LateMessage {
        transaction: message.transaction,
        daemon: remote.daemon,
        nonce,
        oldest_nonce: remote.nonces.oldest_pending(customer),
        parties: &message.parties,
        recipients: AcceptedRecipients { named: &message.named, unnamed: message.unnamed },
        age: message.at.elapsed(),
    };
    let is_counted = remote.commit_late(late).await.is_ok();
    if is_counted {
        remote.nonces.retire(customer, nonce);
    }
    is_counted
}

impl Entry {
    fn customer(&self) -> &Arc<str> {
        match self {
            Entry::Message(message) => &message.parties.customer,
            Entry::Release(_, parties) => &parties.customer,
        }
    }
}

impl Queue {
    /// If there is no room, the entry comes back.
    fn add(&mut self, entry: Entry) -> Result<(), Entry> {
        let (number, most) = match &entry {
            Entry::Message(_) => (&mut self.messages, MAX_MESSAGES),
            Entry::Release(..) => (&mut self.releases, MAX_RELEASES),
        };
        if *number >= most {
            return Err(entry);
        }
        *number += 1;
        let is_urgent = matches!(&entry, Entry::Message(message) if message.nonce.is_some());
        self.insert(entry, is_urgent);
        Ok(())
    }

    /// These were sent; those that failed are their customers' next.
    fn sent(&mut self, sent: Vec<(Entry, bool)>) {
        for (entry, is_done) in sent {
            match (is_done, &entry) {
                (false, _) => self.insert(entry, true),
                (true, Entry::Message(_)) => self.messages -= 1,
                (true, Entry::Release(..)) => self.releases -= 1,
            }
        }
    }

    fn insert(&mut self, entry: Entry, in_front: bool) {
        let customer = entry.customer().clone();
        let entries = self.entries.entry(customer.clone()).or_insert_with(|| {
            self.customers.push_back(customer);
            VecDeque::new()
        });
        if in_front { entries.push_front(entry) } else { entries.push_back(entry) }
    }

    /// Takes out what is sent next: customers whose nodes are reachable by turns.
    fn next(&mut self, remote: &Remote) -> Next {
        let (mut taken, mut unreachable) = (Vec::new(), 0);
        while taken.len() < AT_ONCE && unreachable < self.customers.len() {
            let Some(customer) = self.customers.pop_front() else { break };
            if remote.is_unreachable(&customer) {
                unreachable += 1;
                self.customers.push_back(customer);
                continue;
            }
            let Some(entries) = self.entries.get_mut(&customer) else { continue };
            taken.extend(entries.pop_front());
            if entries.is_empty() {
                self.entries.remove(&customer);
            } else {
                self.customers.push_back(customer);
            }
        }
        self.is_attended = !taken.is_empty() || !self.customers.is_empty();
        match (taken.is_empty(), self.is_attended) {
            (false, _) => Next::Entries(taken),
            (true, true) => Next::NoneReachable,
            (true, false) => Next::Empty,
        }
    }
}
