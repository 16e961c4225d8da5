//! Requests to a ledger and its answers, whichever store is behind it.

use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject, SubjectKind};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// How soon a transaction will call the ledger again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// After its client's next command, or at least after some other work.
    Soon,
    /// Next; [`Foreseen::Soon`] was announced before.
    Next,
}

/// One more recipient of an open transaction.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct ReserveRequest<'a> {
    pub id: ReservationId,
    pub parties: &'a Parties,
    pub limits: &'a CustomerLimits,
    pub recipient: RecipientKey,
}

/// Recipients of one message that is not reserved.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct LookRequest<'a> {
    /// What this transaction has reserved counts as the message's own.
    pub own: Option<ReservationId>,
    pub parties: &'a Parties,
    pub limits: &'a CustomerLimits,
    /// May repeat.
    pub recipients: &'a [RecipientKey],
}

/// An accepted message.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct CommitRequest<'a> {
    pub id: ReservationId,
    pub parties: &'a Parties,
    pub limits: &'a CustomerLimits,
    pub recipients: AcceptedRecipients<'a>,
    /// A reply waits until the message is on disk.
    pub is_awaited: bool,
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

/// Whether a request fits. Lists are empty in most answers, which then allocate nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerAnswer {
    /// When this was decided, on the ledger's own time line.
    pub at: Moment,
    /// The limits that refuse, in the order of [`LimitName::ALL`]. Empty: it fits, and is reserved (or counted).
    pub over: Vec<LimitStanding>,
    /// Shadow limits that would have refused.
    pub shadow_over: Vec<LimitStanding>,
    /// Of a message that was counted: limits that are now near enough to their maximum that people may have to be warned.
    pub near: Vec<NearLimit>,
}

/// A limit whose usage has reached [`CustomerLimits::warned_from`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearLimit {
    pub limit: LimitName,
    pub max: u64,
    /// Used, and reserved by open transactions: at least what will be used once this message is counted.
    pub taken: u64,
}

impl LedgerAnswer {
    /// The request fits, and no limit is near.
    pub fn fitting(at: Moment) -> LedgerAnswer {
        LedgerAnswer { at, over: Vec::new(), shadow_over: Vec::new(), near: Vec::new() }
    }

    pub fn fits(&self) -> bool {
        self.over.is_empty()
    }
}

/// One limit's usage and maximum, as a request found them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStanding {
    pub limit: LimitName,
    pub max: u64,
    /// Counted within the window. Of unique recipients: without those that this transaction names itself.
    pub used: u64,
    /// Reserved by other open transactions. Of unique recipients: without those in `used` and `own`.
    pub reserved: u64,
    /// What this transaction would have reserved in all, this request included. Of unique recipients: all that it names,
    /// whether they were seen before or not.
    pub own: u64,
    /// When `own` would fit if nothing else were sent; `None` when it can never fit (`own` > `max`).
    pub fits_at: Option<Moment>,
}

impl LimitStanding {
    /// The message can never fit: by itself it exceeds the maximum.
    pub fn never_fits(&self) -> bool {
        self.own > self.max
    }

    /// It exceeds the limit only together with open reservations, which may yet be released.
    pub fn only_reservations(&self) -> bool {
        self.used + self.own <= self.max
    }
}

/// Usage of one limit, as an administrator sees it.
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
    /// Open transactions with a reservation.
    pub open: usize,
}

/// Who has used the most of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// The most first, each with its usage.
    pub most: Vec<(Subject, u64)>,
    /// Nodes of a shared store that did not respond: customers who are stored there are missing.
    pub missing: Vec<MissingNode>,
}

/// A node of a shared store that did not respond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingNode {
    /// Host and port.
    pub address: String,
    pub why: String,
}

/// A shared store that cannot be used, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub why: Arc<str>,
    /// Only some nodes of a Cluster: the other nodes' customers are served as usual.
    pub in_part: bool,
    /// When the first of it became unreachable.
    pub since: Instant,
}

/// A shared store in numbers. All but the first are 0 as long as nothing is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauges {
    /// Masters: one, or those of a Cluster.
    pub parts: u64,
    /// Unreachable masters.
    pub parts_away: u64,
    /// For how long any master has been unreachable.
    pub away_seconds: u64,
    /// Customers that are treated as if their node were unreachable, because their slot is migrating.
    pub customers_held_up: u64,
    /// Messages that were counted locally, or accepted uncounted, and that the store does not count yet.
    pub messages_to_count: u64,
    /// Messages that were accepted during an outage and were too many to remember: they will never be counted.
    pub messages_lost: u64,
    /// How often the store, or a node of it, was found to have lost its data since the start.
    #[serde(default)]
    pub times_emptied: u64,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.in_part { "part of the store is unreachable" } else { "the store is unreachable" };
        write!(f, "{what}: {}", self.why)
    }
}

/// A subject's limits, in the order in which stores keep its windows.
pub(in crate::ledger) const fn limits_of(kind: SubjectKind) -> &'static [LimitName; 2] {
    match kind {
        SubjectKind::Customer => &[LimitName::CustomerDay, LimitName::CustomerPeak],
        SubjectKind::User => &[LimitName::UserMessages, LimitName::UserUniques],
        SubjectKind::Login => &[LimitName::LoginMessages, LimitName::LoginUniques],
    }
}
