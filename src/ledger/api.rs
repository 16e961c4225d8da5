//! What a ledger is asked and what it answers, whichever store is behind it.

use crate::clock::Moment;
use crate::directory::{LimitName, Subject};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// How soon a transaction will ask something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// When its client has sent the next command, or at least something else has been done.
    Soon,
    /// In a moment; [`Foreseen::Soon`] was said before.
    Next,
}

/// Names one open transaction. Never used twice by one daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId(pub u64);

/// A recipient as the ledger remembers it: a keyed hash of the canonical address. The key is the store's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecipientKey(pub u64);

/// The recipients of an accepted message.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptedRecipients<'a> {
    pub named: &'a [RecipientKey],
    /// Further recipients of which only the number is known (an END-OF-MESSAGE without its RCPTs): they count for the
    /// customer, and as one message for the user, but their addresses cannot be remembered.
    pub unnamed: u32,
}

impl AcceptedRecipients<'_> {
    /// All recipients, named and unnamed.
    pub fn len(&self) -> u64 {
        self.named.len() as u64 + u64::from(self.unnamed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether it fits. Lists are empty in most answers, which then allocate nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAnswer {
    /// When this was decided, on the ledger's own time line.
    pub at: Moment,
    /// The limits that refuse, in the order of [`LimitName::ALL`]. Empty: it fits, and is reserved (or counted).
    pub over: Vec<LimitStanding>,
    /// Shadow limits that would have refused.
    pub shadow_over: Vec<LimitStanding>,
    /// Of a message that was counted: limits of which so much is used or held now that people may have to be told.
    pub near: Vec<NearLimit>,
}

/// A limit of which [`CustomerLimits::warned_from`](crate::directory::CustomerLimits::warned_from) is used or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearLimit {
    pub limit: LimitName,
    pub max: u64,
    /// Counted, and held by open transactions: no less than what will be counted when this message is.
    pub taken: u64,
}

impl LedgerAnswer {
    /// It fits.
    pub fn fitting(at: Moment) -> LedgerAnswer {
        LedgerAnswer { at, over: Vec::new(), shadow_over: Vec::new(), near: Vec::new() }
    }

    pub fn fits(&self) -> bool {
        self.over.is_empty()
    }
}

/// How things stand with one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStanding {
    pub limit: LimitName,
    pub max: u64,
    /// Counted within the window. Of unique recipients: without those that this transaction names itself.
    pub used: u64,
    /// Held by other open transactions. Of unique recipients: without those in `used` and `own`.
    pub reserved: u64,
    /// What this transaction would hold in all if it were let through, this request included. Of unique recipients: all
    /// that it names, whether they were seen before or not.
    pub own: u64,
    /// When `own` would fit if nothing else were sent; `None` when it can never fit (`own` > `max`).
    pub fits_at: Option<Moment>,
}

impl LimitStanding {
    /// The message can never fit: it asks for more than the maximum by itself.
    pub fn never_fits(&self) -> bool {
        self.own > self.max
    }

    /// Only reservations that are still open stand in the way; they may yet be given back.
    pub fn only_reservations(&self) -> bool {
        self.used + self.own <= self.max
    }
}

/// Usage of one limit as an administrator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    pub limit: LimitName,
    pub used: u64,
    pub reserved: u64,
    /// `None` is unlimited.
    pub max: Option<u64>,
    /// When one more would fit; `None` when it fits now (or never will: `max` is 0).
    pub resets_at: Option<Moment>,
}

/// How much the ledger has in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerSize {
    /// Customers of which anything counts.
    pub customers: usize,
    /// Users and logins of which anything counts.
    pub senders: usize,
    /// Open transactions that hold something.
    pub open: usize,
}

/// Why the ledger cannot answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is still reading what it had counted.
    #[error("the store is still loading")]
    Loading,
    /// The store cannot take a count now: disk full, I/O error, server away. Trying later may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Who has used most of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// The most first, each with how much.
    pub most: Vec<(Subject, u64)>,
    /// Parts of a shared store that did not answer: whoever lies there is not among them.
    pub missing: Vec<MissingNode>,
}

/// A part of a shared store that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingNode {
    /// Host and port.
    pub address: String,
    pub why: String,
}

/// What is away of a store that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub why: Arc<str>,
    /// Only a part of a Cluster: customers of the others are decided as ever.
    pub in_part: bool,
    /// Since when anything is away.
    pub since: Instant,
}

/// How a shared store is, in numbers: all are 0 where nothing is wrong, but for the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauges {
    /// Masters: one, or those of a Cluster.
    pub parts: u64,
    pub parts_away: u64,
    /// For how long anything has been away.
    pub away_seconds: u64,
    /// Customers who are treated as if their part were away, because their slot is on its way to another.
    pub customers_held_up: u64,
    /// Messages that were counted here, or passed, and that the store is still to count.
    pub messages_to_count: u64,
    /// Messages that passed while the store was away and were too many to remember.
    pub messages_lost: u64,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_part { "a part of the store is away" } else { "the store is away" };
        write!(f, "{what}: {}", self.why)
    }
}
