//! Telling the store, when it is back, what was counted here.

use super::file::Message;
use super::local_counts::LocalCounts;
use crate::directory::{CustomerLimits, Limit};
use crate::ledger::AcceptedRecipients;
use crate::ledger::shared::client::Client;
use crate::ledger::shared::protocol::keys;
use crate::ledger::shared::protocol::request::{CommitDetails, Request, UsageReport};
use crate::ledger::shared::protocol::scripts;
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// So many messages are on their way at once.
const AT_ONCE: usize = 256;

/// How often what is known is written; a crash of this machine and of the store at the same time loses what is younger.
const KEEP_KNOWN: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What merges: for as long as the daemon runs.
#[derive(Clone, Debug)]
pub(in crate::ledger::shared) struct Merger {
    pub local: Arc<LocalCounts>,
    pub client: Arc<Client>,
    pub prefix: String,
    pub reservation_timeout: Duration,
}

/// Merges whenever there is something to merge and the store is there.
pub(in crate::ledger::shared) async fn merge(merger: Merger) {
    let (local, client) = (&merger.local, &merger.client);
    let mut changes = client.changes();
    let mut tick = interval(KEEP_KNOWN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut knows_key = false;
    loop {
        let has_work = merger.has_work() || !knows_key;
        let is_up = tokio::select! {
            () = client.up(), if has_work => true,
            () = local.work.notified(), if !has_work => {
                // While a part is away every message that is counted here says so.
                if client.is_any_away() {
                    sleep(PAUSE).await;
                }
                false
            }
            _ = changes.changed() => {
                if knows_key {
                    local.keep_hash_key(*client.hash_key());
                }
                local.keep_known();
                false
            }
            _ = tick.tick() => {
                local.keep_known();
                false
            }
        };
        if is_up {
            knows_key = true;
            local.keep_hash_key(*client.hash_key());
            if !merger.merge_all().await {
                sleep(PAUSE).await;
            }
        }
    }
}

impl Merger {
    /// The part that has the customer is.
    fn is_away(&self, customer: &str) -> bool {
        self.client.is_away(|| keys::of_customer(&self.prefix, customer))
    }

    /// Something can be merged.
    fn has_work(&self) -> bool {
        !self.client.is_all_away() && self.local.has_work(|customer| !self.is_away(customer))
    }

    /// False: something is left that can be merged.
    async fn merge_all(&self) -> bool {
        self.local.finish_idle();
        let mut is_all = true;
        let mut failed: HashSet<Arc<str>> = HashSet::new();
        let mut after = 0;
        loop {
            let Ok(messages) = self.local.journal.read(after, AT_ONCE).await else { return false };
            let Some(last) = messages.last() else { break };
            after = last.id;
            let can_be_sent = |customer: &Arc<str>| !failed.contains(customer) && !self.is_away(customer);
            let messages: Vec<_> =
                messages.into_iter().filter(|message| can_be_sent(&message.parties.customer)).collect();
            let (merged, not_merged) = self.send(messages).await;
            is_all &= not_merged.is_empty();
            failed.extend(not_merged);
            if merged.is_empty() {
                // In a cluster others may be well, but not so many in vain.
                if failed.len() > AT_ONCE {
                    break;
                }
                continue;
            }
            // Before the store is told that these are not sent again.
            if self.local.journal.merged(merged.iter().map(|message| message.id).collect()).await.is_err() {
                return false;
            }
            self.local.are_merged(&merged);
        }
        is_all && self.release().await && !self.has_work()
    }

    /// Those that the store has counted, and the customers of the others.
    async fn send(&self, messages: Vec<Message>) -> (Vec<Message>, Vec<Arc<str>>) {
        // All before this are merged, and never sent again.
        let mut first: HashMap<Arc<str>, u64> = HashMap::new();
        let mut sending = JoinSet::new();
        for message in messages {
            let unsettled = *first.entry(message.parties.customer.clone()).or_insert(message.id);
            let merger = self.clone();
            sending.spawn(async move { (merger.count(&message, unsettled).await, message) });
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

    async fn count(&self, message: &Message, unsettled: u64) -> bool {
        let unlimited = CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED);
        let now = self.local.now();
        let age = now.since(crate::clock::Moment::from_seconds(message.at.into()));
        let [a, b, c, d, e, f, ..] = message.transaction;
        let (daemon, nonce, unsettled) = match message.nonce {
            // Others under that name may come again, too.
            Some(nonce) => ([a, b, c, d, e, f], nonce, 0),
            None => (self.local.merges_as, message.id, unsettled),
        };
        let named = message.keys.len() as u64;
        let unnamed = message.recipients.saturating_sub(named).min(u32::MAX.into()) as u32;
        let request = Request::commit(
            &self.prefix,
            message.transaction,
            daemon,
            &message.parties,
            &unlimited,
            self.reservation_timeout,
            AcceptedRecipients { named: &message.keys, unnamed },
            CommitDetails { age, nonce, unsettled, usage_report: UsageReport::Nothing },
        );
        self.client.ask(&scripts::COMMIT, request).await.is_ok()
    }

    /// What the store holds for transactions that ended meanwhile.
    async fn release(&self) -> bool {
        let mut is_all = true;
        for (transaction, parties) in self.local.take_releases() {
            let request = Request::release(&self.prefix, transaction, &parties);
            let is_away = self.is_away(&parties.customer);
            if !is_all || is_away || self.client.ask(&scripts::RELEASE, request).await.is_err() {
                is_all &= is_away;
                self.local.release_later(transaction, &parties);
            }
        }
        is_all
    }
}
