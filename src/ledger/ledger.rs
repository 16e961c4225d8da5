//! The ledger as other modules see it.

use super::api::{CommitRequest, LookRequest, ReserveRequest};
use super::ranking::{Leaders, RankBy};
use super::shared::SharedStore;
use super::store::{AnyStore, Store};
use super::{
    AcceptedRecipients, Foreseen, Gauges, LedgerAnswer, LedgerError, LedgerSize, LimitUsage, Outage, Ranking,
    RecipientKey, ReservationId, StoreError,
};
use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject};
use siphasher::sip::SipHasher13;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// The ledger. A clone is the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    next_reservation: AtomicU64,
    store: AnyStore,
}

/// Whether the ledger works, and with which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub readiness: Readiness,
    /// `memory`, `embedded`, `redis`.
    pub store: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// What was counted before the start is still being read.
    Loading {
        /// Messages read so far.
        done: u64,
        /// About how many there are.
        of: u64,
    },
    /// Decisions are made, but the store does not accept counts.
    Degraded(Arc<str>),
    /// No decision can be made.
    Failed(Arc<str>),
}

/// `ready`, or what is wrong.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.readiness {
            Readiness::Ready => f.write_str("ready"),
            Readiness::Loading { done, of } => write!(f, "loading: {done} of about {of} messages"),
            Readiness::Degraded(why) => write!(f, "degraded: {why}"),
            Readiness::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl Ledger {
    pub(super) fn with(store: AnyStore) -> Ledger {
        Ledger { inner: Arc::new(Inner { next_reservation: AtomicU64::new(1), store }) }
    }

    /// A recipient as the ledger remembers it, from its canonical address.
    pub fn recipient_key(&self, canonical_address: &str) -> RecipientKey {
        // Keyed, so that addresses cannot be guessed by whoever can read the store.
        let mut hasher = SipHasher13::new_with_key(&self.inner.store.hash_key());
        hasher.write(canonical_address.as_bytes());
        RecipientKey(hasher.finish())
    }

    pub fn new_reservation(&self) -> ReservationId {
        ReservationId(self.inner.next_reservation.fetch_add(1, Ordering::Relaxed))
    }

    /// Announces a call for these accounts, so that the processor fetches them from memory while other work is done. That
    /// matters where there are millions of accounts. Changes nothing, and costs next to nothing.
    pub fn foresee(&self, parties: &Parties, when: Foreseen) {
        self.inner.store.foresee(parties, when);
    }

    /// Reserves one more recipient for a transaction, and with the first its message: against all limits, or not at all. A
    /// recipient that the transaction has reserved already is free.
    ///
    /// # Errors
    /// [`LedgerError::Loading`] if the store is not loaded within 20 s; [`LedgerError::Unavailable`] if a shared store is
    /// unreachable and `on_outage = "defer"`.
    pub async fn reserve(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipient: RecipientKey,
    ) -> Result<LedgerAnswer, LedgerError> {
        self.inner.store.reserve(ReserveRequest { id, parties, limits, recipient }).await
    }

    /// Whether these recipients would fit, as one message. Reserves nothing. What the transaction `own` has reserved counts as
    /// the message's own.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn look(
        &self,
        own: Option<ReservationId>,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Result<LedgerAnswer, LedgerError> {
        self.inner.store.look(LookRequest { own, parties, limits, recipients }).await
    }

    /// Counts an accepted message: once this returns `Ok` with an answer that fits, it is counted and, with `sync = "full"`,
    /// on disk. The reservation ends in any case. Whatever it does not cover (all, if it expired before) is checked against the
    /// limits again: all fits, or nothing is counted.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]: the store did not accept it, and it is not counted.
    pub async fn commit(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: AcceptedRecipients<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        self.inner.store.commit(CommitRequest { id, parties, limits, recipients, is_awaited: true }).await
    }

    /// As [`Ledger::commit`] where no reply waits for it: the message is written to disk a moment later, together with others.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn commit_unhurried(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: AcceptedRecipients<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        self.inner.store.commit(CommitRequest { id, parties, limits, recipients, is_awaited: false }).await
    }

    /// Ends a transaction without acceptance: its reservation is released. May be called at any time, also twice, or after
    /// [`Ledger::commit`].
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        self.inner.store.release(id, parties);
    }

    /// What is used and reserved of each limit of a subject.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        self.inner.store.usage(subject, limits).await
    }

    /// The subjects that have used the most of a limit, at most `most`, the most first.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn top(&self, limit: LimitName, most: usize) -> Result<Ranking, LedgerError> {
        self.ranking(limit, most, &|_, used| used as f64).await
    }

    /// The subjects that rank highest among those that have used something of a limit, at most `most`: for `quota top`. Looks at
    /// all accounts, a few at a time; of a shared store, on the nodes that respond.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn ranking(&self, limit: LimitName, most: usize, by: RankBy<'_>) -> Result<Ranking, LedgerError> {
        let mut leaders = Leaders::new(most, by);
        let missing = self.inner.store.rank(limit, &mut leaders).await?;
        Ok(Ranking { most: leaders.into_ranking(), missing })
    }

    /// Forgets a subject's usage: of a customer the customer's own counts, not those of its users.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn reset(&self, subject: &Subject, why: &str) -> Result<(), LedgerError> {
        self.inner.store.reset(subject, why).await
    }

    /// Believes the servers of a shared store whose clocks have jumped, and moves what they have counted to their new time. What
    /// was done, one line for each server.
    ///
    /// # Errors
    /// No clock has jumped, the store is not shared, or a server cannot be reached or refuses.
    pub async fn accept_clocks(&self) -> Result<Vec<String>, StoreError> {
        match self.shared() {
            Some(store) => store.accept_clocks().await,
            None => Err(StoreError::permanent("only the servers of a shared store have clocks that can be accepted")),
        }
    }

    /// How much is in memory; `None` for a shared store.
    pub fn size(&self) -> Option<LedgerSize> {
        self.inner.store.size()
    }

    /// What of a shared store is unreachable, and changes of that.
    pub fn outage(&self) -> Option<watch::Receiver<Option<Outage>>> {
        self.shared().map(SharedStore::outage)
    }

    /// A shared store in numbers.
    pub fn gauges(&self) -> Option<Gauges> {
        self.shared().map(SharedStore::gauges)
    }

    /// What an administrator should change at the servers of a shared store, and changes of that.
    pub fn advice(&self) -> Option<watch::Receiver<Option<Arc<str>>>> {
        self.shared().map(SharedStore::advice)
    }

    /// With `on_outage = "local"`: how many messages were counted locally and are not merged yet, and changes of that; and how
    /// many were merged since the start.
    pub fn counted_locally(&self) -> Option<(watch::Receiver<u64>, u64)> {
        self.shared().and_then(SharedStore::counted_locally)
    }

    fn shared(&self) -> Option<&SharedStore> {
        match &self.inner.store {
            AnyStore::Shared(store) => Some(store),
            AnyStore::Memory(_) | AnyStore::Embedded(_) => None,
        }
    }

    /// The time, on the ledger's own time line.
    pub fn now(&self) -> Moment {
        self.inner.store.now()
    }

    /// What the wall clock shows, or will show, at a moment in an answer: milliseconds since 1970.
    pub fn wall(&self, moment: Moment) -> i64 {
        self.inner.store.wall(moment)
    }

    /// What the wall clock shows now.
    pub fn wall_time(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.inner.store.wall_now()).unwrap_or_default()
    }

    pub fn health(&self) -> Health {
        self.inner.store.health()
    }

    /// Waits until the store is loaded, or connected. All other calls wait for it, too.
    ///
    /// # Errors
    /// [`LedgerError::Loading`] after 20 s; [`LedgerError::Unavailable`] if it cannot be loaded or connected.
    pub async fn ready(&self) -> Result<(), LedgerError> {
        self.inner.store.ready().await
    }

    /// Waits until everything that was committed is on disk, and accepts no more.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::directory::Limit;
    use std::time::Duration;

    #[tokio::test]
    async fn a_message_is_reserved_then_counted() {
        let clock = Arc::new(ManualClock::at(Moment::from_seconds(1_700_000_000)));
        let ledger = Ledger::in_memory(clock.clone(), Duration::from_secs(600));
        let limits = CustomerLimits::new(Limit::UNLIMITED, |name| match name {
            LimitName::UserUniques => Limit::of(2),
            _ => Limit::UNLIMITED,
        });
        let parties = Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: None };
        let id = ledger.new_reservation();
        let [a, b, c] = ["a@x.example", "b@x.example", "c@x.example"].map(|address| ledger.recipient_key(address));
        assert!(ledger.reserve(id, &parties, &limits, a).await.unwrap().fits());
        assert!(ledger.reserve(id, &parties, &limits, b).await.unwrap().fits());
        assert!(ledger.reserve(id, &parties, &limits, b).await.unwrap().fits());
        let refused = ledger.reserve(id, &parties, &limits, c).await.unwrap();
        assert!(refused.over[0].never_fits());
        let recipients = AcceptedRecipients { named: &[a, b], unnamed: 0 };
        assert!(ledger.commit(id, &parties, &limits, recipients).await.unwrap().fits());
        let id = ledger.new_reservation();
        let refused = ledger.reserve(id, &parties, &limits, c).await.unwrap();
        assert_eq!(refused.over[0].used, 2);
        assert!(!refused.over[0].only_reservations());
        assert_eq!(refused.over[0].fits_at, Some(Moment::from_seconds(1_700_086_400)));
        assert!(ledger.reserve(id, &parties, &limits, a).await.unwrap().fits());
    }

    #[tokio::test]
    async fn a_commit_reports_limits_that_are_near() {
        let clock = Arc::new(ManualClock::at(Moment::from_seconds(1_700_000_000)));
        let ledger = Ledger::in_memory(clock.clone(), Duration::from_secs(600));
        let limits = CustomerLimits::new(Limit::UNLIMITED, |name| match name {
            LimitName::CustomerDay | LimitName::UserMessages => Limit::of(10),
            LimitName::UserUniques => Limit::of(3),
            _ => Limit::UNLIMITED,
        })
        .with_warnings(&[90]);
        let parties = Parties { customer: "acme".into(), user: Some("ann@acme.example".into()), login: None };
        let [a, b, c] = ["a@x.example", "b@x.example", "c@x.example"].map(|address| ledger.recipient_key(address));
        let commit = async |keys: &[RecipientKey]| {
            let (id, recipients) = (ledger.new_reservation(), AcceptedRecipients { named: keys, unnamed: 0 });
            let near = ledger.commit(id, &parties, &limits, recipients).await.unwrap().near;
            near.iter().map(|near| (near.limit, near.taken, near.max)).collect::<Vec<_>>()
        };
        for keys in [&[a, b][..], &[b, a], &[a, b]] {
            assert_eq!(commit(keys).await, []);
        }
        assert_eq!(commit(&[a]).await, []);
        assert_eq!(commit(&[a]).await, []);
        // What others have reserved counts, too.
        let other = ledger.new_reservation();
        ledger.reserve(other, &parties, &limits, c).await.unwrap();
        let near = commit(&[a]).await;
        assert_eq!(near, [(LimitName::UserUniques, 3, 3), (LimitName::CustomerDay, 10, 10)]);
    }
}
