//! Merging: has the servers count, once they are reachable, what was counted locally.

use super::local_counts::LocalCounts;
use super::outage_file::Message;
use crate::clock::Moment;
use crate::ledger::AcceptedRecipients;
use crate::ledger::shared::remote::{LateMessage, Remote};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How many messages are sent at once.
const CHUNK: usize = 256;

/// How often last-known usage is saved. A crash of this machine and of the servers at the same time loses what is younger.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub(super) struct Merger {
    pub counts: Arc<LocalCounts>,
    pub remote: Arc<Remote>,
}

/// Merges whenever there is something to merge and a server is reachable, as long as the daemon runs.
pub(super) async fn merge(merger: Merger) {
    let (counts, client) = (&merger.counts, &merger.remote.client);
    let mut changes = client.changes();
    let mut tick = interval(SAVE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut knows_hash_key = false;
    loop {
        let has_work = merger.has_work() || !knows_hash_key;
        let is_reachable = tokio::select! {
            () = client.reachable(), if has_work => true,
            () = counts.work.notified(), if !has_work => {
                // While a node is unreachable, every message that is counted locally is notified.
                if client.is_any_unreachable() {
                    sleep(PAUSE).await;
                }
                false
            }
            _ = changes.changed() => {
                if knows_hash_key {
                    counts.save_hash_key(*client.hash_key());
                }
                counts.save_last_known();
                false
            }
            _ = tick.tick() => {
                counts.save_last_known();
                false
            }
        };
        if is_reachable {
            knows_hash_key = true;
            counts.save_hash_key(*client.hash_key());
            if !merger.merge_all().await {
                sleep(PAUSE).await;
            }
        }
    }
}

impl Merger {
    /// Something can be merged.
    fn has_work(&self) -> bool {
        !self.remote.client.are_all_unreachable()
            && self.counts.has_work(|customer| !self.remote.is_unreachable(customer))
    }

    /// False: something that can be merged is left.
    async fn merge_all(&self) -> bool {
        self.counts.finish_idle();
        let mut is_complete = true;
        let mut failed: HashSet<Arc<str>> = HashSet::new();
        let mut after = 0;
        loop {
            let Ok(messages) = self.counts.read_unmerged(after, CHUNK).await else { return false };
            let Some(last) = messages.last() else { break };
            after = last.id;
            let can_be_sent = |customer: &Arc<str>| !failed.contains(customer) && !self.remote.is_unreachable(customer);
            let messages: Vec<_> =
                messages.into_iter().filter(|message| can_be_sent(&message.parties.customer)).collect();
            let (merged, not_merged) = self.send(messages).await;
            is_complete &= not_merged.is_empty();
            failed.extend(not_merged);
            if merged.is_empty() {
                // Other nodes of a Cluster may be well, but so many failures are enough.
                if failed.len() > CHUNK {
                    break;
                }
                continue;
            }
            // Before the servers are told that these will not be sent again.
            if self.counts.set_merged(merged).await.is_err() {
                return false;
            }
        }
        is_complete && self.release().await && !self.has_work()
    }

    /// Returns the messages that the servers have counted, and the customers of the others.
    async fn send(&self, messages: Vec<Message>) -> (Vec<Message>, Vec<Arc<str>>) {
        // All before this one are merged, and never sent again.
        let mut first: HashMap<Arc<str>, u64> = HashMap::new();
        let mut sending = JoinSet::new();
        for message in messages {
            let oldest = *first.entry(message.parties.customer.clone()).or_insert(message.id);
            let merger = self.clone();
            sending.spawn(async move { (merger.count(&message, oldest).await, message) });
        }
        let (mut merged, mut failed) = (Vec::new(), Vec::new());
        while let Some(sent) = sending.join_next().await {
            match sent {
                Ok((true, message)) => merged.push(message),
                Ok((false, message)) => failed.push(message.parties.customer),
                Err(_) => {}
            }
        }
        (merged, failed)
    }

    async fn count(&self, message: &Message, oldest: u64) -> bool {
        let [a, b, c, d, e, f, ..] = message.transaction;
        let (daemon, nonce, oldest_nonce) = match message.nonce {
            // Other messages with that daemon's nonces may be sent again, too.
            Some(nonce) => ([a, b, c, d, e, f], nonce, 0),
            None => (self.counts.merges_as, message.id, oldest),
        };
        let named = message.keys.len() as u64;
        let unnamed = message.recipients.saturating_sub(named).min(u32::MAX.into()) as u32;
        let late = LateMessage {
            transaction: message.transaction,
            daemon,
            nonce,
            oldest_nonce,
            parties: &message.parties,
            recipients: AcceptedRecipients { named: &message.keys, unnamed },
            age: self.counts.now().since(Moment::from_seconds(message.at.into())),
        };
        self.remote.commit_late(late).await.is_ok()
    }

    /// Releases reservations of transactions that ended during the outage.
    async fn release(&self) -> bool {
        let mut is_complete = true;
        for (transaction, parties) in self.counts.take_releases() {
            let is_unreachable = self.remote.is_unreachable(&parties.customer);
            if !is_complete || is_unreachable || self.remote.release(transaction, &parties).await.is_err() {
                is_complete &= is_unreachable;
                self.counts.release_later(transaction, &parties);
            }
        }
        is_complete
    }
}
