//! What others call: the books, and the store behind them.

use super::local::book::{Book, Counting};
use super::local::sqlite::{self, Journal, Recorded};
use super::ranking::{Leaders, RankBy};
use super::shared::SharedStore;
use super::{
    AcceptedRecipients, Foreseen, Gauges, LedgerAnswer, LedgerError, LedgerSize, LimitUsage, Outage, Ranking,
    RecipientKey, ReservationId,
};
use crate::clock::{Clock, Moment};
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
    book: Arc<Book>,
    clock: Arc<dyn Clock>,
    next_reservation: AtomicU64,
    /// Keeps recipients' addresses from being guessed by who reads the store.
    hash_key: [u8; 16],
    store: Store,
}

/// What is behind the books.
#[derive(Debug)]
pub(super) enum Store {
    Memory,
    Embedded(Journal),
    /// Decides by itself; nothing is in the books.
    /// What waits for it is boxed: its futures are large, and would make those of the other stores large too.
    Shared(SharedStore),
}

/// How the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub readiness: Readiness,
    /// `memory`, `embedded`, `redis`.
    pub store: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It is still reading what it had counted: so many messages of about so many.
    Loading {
        done: u64,
        of: u64,
    },
    /// Decisions are made, but the store does not take counts.
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
    pub(super) fn with(book: Arc<Book>, clock: Arc<dyn Clock>, hash_key: [u8; 16], store: Store) -> Ledger {
        let next_reservation = AtomicU64::new(1);
        Ledger { inner: Arc::new(Inner { book, clock, next_reservation, hash_key, store }) }
    }

    /// A recipient as the ledger remembers it, from its canonical address.
    pub fn recipient_key(&self, canonical_address: &str) -> RecipientKey {
        let mut hasher = match &self.inner.store {
            Store::Shared(store) => SipHasher13::new_with_key(&store.hash_key()),
            _ => SipHasher13::new_with_key(&self.inner.hash_key),
        };
        hasher.write(canonical_address.as_bytes());
        RecipientKey(hasher.finish())
    }

    pub fn new_reservation(&self) -> ReservationId {
        ReservationId(self.inner.next_reservation.fetch_add(1, Ordering::Relaxed))
    }

    /// Says on whose accounts something will be asked. Where there are millions, they are at hand when it is: the processor
    /// fetches them from memory while other work is done. Changes nothing, and takes no time to speak of.
    pub fn foresee(&self, parties: &Parties, when: Foreseen) {
        if !matches!(self.inner.store, Store::Shared(_)) {
            self.inner.book.foresee(parties, when);
        }
    }

    /// Reserves one more recipient for a transaction, and its message with the first: all limits, or nothing. A
    /// recipient that it holds already is free.
    ///
    /// # Errors
    /// [`LedgerError::Loading`] after 20 s of waiting for the store to be loaded.
    pub async fn reserve(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        recipient: RecipientKey,
    ) -> Result<LedgerAnswer, LedgerError> {
        if let Store::Shared(store) = &self.inner.store {
            return Box::pin(store.reserve(id, parties, limits, recipient)).await;
        }
        self.ready().await?;
        Ok(self.inner.book.reserve(self.now(), id, parties, limits, recipient))
    }

    /// Whether these would fit, as one message; reserves nothing. What the reservation `except` holds is taken as its own.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn look(
        &self,
        except: Option<ReservationId>,
        parties: &Parties,
        limits: &CustomerLimits,
        recipients: &[RecipientKey],
    ) -> Result<LedgerAnswer, LedgerError> {
        if let Store::Shared(store) = &self.inner.store {
            return Box::pin(store.look(except, parties, limits, recipients)).await;
        }
        self.ready().await?;
        Ok(self.inner.book.look(self.now(), except, parties, limits, recipients))
    }

    /// The message is accepted: when this returns `Ok` with an answer that fits, it is counted and, with `sync = "full"`,
    /// on disk. The reservation ends in any case. What it does not hold, and everything if it ended before, is decided
    /// anew: all, or nothing.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]: the store did not take it, and it is not counted.
    pub async fn commit(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        self.commit_with(id, parties, limits, kept, true).await
    }

    /// As [`Ledger::commit`], where no reply waits for it: it returns before the message is on disk, which it is a moment
    /// later, together with others.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn commit_unhurried(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
    ) -> Result<LedgerAnswer, LedgerError> {
        self.commit_with(id, parties, limits, kept, false).await
    }

    async fn commit_with(
        &self,
        id: ReservationId,
        parties: &Parties,
        limits: &CustomerLimits,
        kept: AcceptedRecipients<'_>,
        hurried: bool,
    ) -> Result<LedgerAnswer, LedgerError> {
        let book = &self.inner.book;
        let journal = match &self.inner.store {
            Store::Memory => return Ok(book.commit(self.now(), id, parties, limits, kept, Counting::Only, |_| {})),
            Store::Shared(store) => return Box::pin(store.commit(id, parties, limits, kept)).await,
            Store::Embedded(journal) => journal,
        };
        journal.ready().await?;
        if let Err(error) = journal.room().await {
            book.release(id, parties);
            return Err(error);
        }
        let mut recorded = Recorded::Done;
        let counting = journal.counting();
        let record = |entry| recorded = journal.record(entry, hurried);
        let answer = book.commit(self.now(), id, parties, limits, kept, counting, record);
        match recorded {
            Recorded::Done => Ok(answer),
            Recorded::Waits(outcome) => sqlite::outcome(outcome).await.map(|()| answer),
            Recorded::Closed(ticket) => {
                book.give_up(ticket);
                Err(sqlite::unavailable("it is closed"))
            }
        }
    }

    /// The transaction is over without acceptance. May be called at any time, also twice, or after [`Ledger::commit`].
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        match &self.inner.store {
            Store::Shared(store) => store.release(id, parties),
            _ => self.inner.book.release(id, parties),
        }
    }

    /// How much is used and held of each limit of a subject.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        if let Store::Shared(store) = &self.inner.store {
            return Box::pin(store.usage(subject, limits)).await;
        }
        self.ready().await?;
        Ok(self.inner.book.usage(self.now(), subject, limits))
    }

    /// The subjects that have used most of a limit, at most so many, the most first.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn top(&self, limit: LimitName, most: usize) -> Result<Ranking, LedgerError> {
        self.ranking(limit, most, &|_, used| used as f64).await
    }

    /// The subjects that rank highest among those that have used something of a limit, at most `most`: for `quota top`. Looks at
    /// all there are, a few at a time; of a shared store, on those of its nodes that are available.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn ranking(&self, limit: LimitName, most: usize, by: RankBy<'_>) -> Result<Ranking, LedgerError> {
        let mut leaders = Leaders::new(most, by);
        let missing = match &self.inner.store {
            Store::Shared(store) => Box::pin(store.rank(limit, &mut leaders)).await?,
            _ => {
                self.ready().await?;
                self.inner.book.rank(self.now(), limit, &mut leaders);
                Vec::new()
            }
        };
        Ok(Ranking { most: leaders.into_ranking(), missing })
    }

    /// How much is in memory; `None` where another keeps it.
    pub fn size(&self) -> Option<LedgerSize> {
        (!matches!(self.inner.store, Store::Shared(_))).then(|| self.inner.book.size())
    }

    /// What is away of a store that is shared, and changes of that.
    pub fn outage(&self) -> Option<watch::Receiver<Option<Outage>>> {
        match &self.inner.store {
            Store::Shared(store) => Some(store.outage()),
            _ => None,
        }
    }

    /// How a shared store is, in numbers.
    pub fn gauges(&self) -> Option<Gauges> {
        match &self.inner.store {
            Store::Shared(store) => Some(store.gauges()),
            _ => None,
        }
    }

    /// What an administrator should change at the servers of a store that is shared, and changes of that.
    pub fn advice(&self) -> Option<watch::Receiver<Option<Arc<str>>>> {
        match &self.inner.store {
            Store::Shared(store) => Some(store.advice()),
            _ => None,
        }
    }

    /// Where a shared store may be away: how many messages were counted here that are to be merged, and changes of that; and
    /// how many were merged since the start.
    pub fn counted_here(&self) -> Option<(watch::Receiver<u64>, u64)> {
        match &self.inner.store {
            Store::Shared(store) => store.counted_here(),
            _ => None,
        }
    }

    /// Forgets what is counted for a subject: of a customer the customer's own counts, not those of its users.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn reset(&self, subject: &Subject, why: &str) -> Result<(), LedgerError> {
        let book = &self.inner.book;
        let journal = match &self.inner.store {
            Store::Memory => {
                book.reset(subject, |_| {});
                return Ok(());
            }
            Store::Shared(store) => return Box::pin(store.reset(subject)).await,
            Store::Embedded(journal) => journal,
        };
        journal.ready().await?;
        journal.room().await?;
        let mut recorded = Recorded::Done;
        let mut record = |number| recorded = journal.record_reset(subject.clone(), why.to_owned(), number);
        match journal.counting() {
            // In the order in which messages were counted.
            Counting::Only | Counting::Now => book.reset(subject, |number| record(Some(number))),
            // The writer has the books forget when it is written, between the messages before and after.
            Counting::WhenSettled => record(None),
        }
        match recorded {
            Recorded::Waits(outcome) => sqlite::outcome(outcome).await,
            Recorded::Done | Recorded::Closed(_) => Err(sqlite::unavailable("it is closed")),
        }
    }

    /// The time, on the ledger's own time line.
    pub fn now(&self) -> Moment {
        self.inner.clock.now()
    }

    /// What the wall clock shows, or will show, at that moment: milliseconds since 1970.
    pub fn wall(&self, moment: Moment) -> i64 {
        match &self.inner.store {
            // The server's time line is its wall clock.
            Store::Shared(_) => moment.0 as i64,
            _ => self.inner.clock.wall(moment),
        }
    }

    pub fn health(&self) -> Health {
        match &self.inner.store {
            Store::Memory => Health { readiness: Readiness::Ready, store: "memory" },
            Store::Embedded(journal) => Health { readiness: journal.readiness(), store: "embedded" },
            Store::Shared(store) => Health { readiness: store.readiness(), store: "redis" },
        }
    }

    /// Waits until what was counted is loaded. Whoever asks anything else waits for it too.
    ///
    /// # Errors
    /// [`LedgerError::Loading`] after 20 s; [`LedgerError::Unavailable`] if it cannot be loaded.
    pub async fn ready(&self) -> Result<(), LedgerError> {
        match &self.inner.store {
            Store::Memory => Ok(()),
            Store::Embedded(journal) => journal.ready().await,
            Store::Shared(store) => Box::pin(store.ready()).await,
        }
    }

    /// Waits until everything that was committed is on disk, and takes no more.
    pub async fn close(&self) {
        match &self.inner.store {
            Store::Memory => {}
            Store::Embedded(journal) => journal.close().await,
            Store::Shared(store) => Box::pin(store.close()).await,
        }
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
        let kept = AcceptedRecipients { named: &[a, b], unnamed: 0 };
        assert!(ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
        let id = ledger.new_reservation();
        let refused = ledger.reserve(id, &parties, &limits, c).await.unwrap();
        assert_eq!(refused.over[0].used, 2);
        assert!(!refused.over[0].only_reservations());
        assert_eq!(refused.over[0].fits_at, Some(Moment::from_seconds(1_700_086_400)));
        assert!(ledger.reserve(id, &parties, &limits, a).await.unwrap().fits());
    }

    #[tokio::test]
    async fn what_comes_near_a_limit_is_told_with_the_commit() {
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
            let (id, kept) = (ledger.new_reservation(), AcceptedRecipients { named: keys, unnamed: 0 });
            let near = ledger.commit(id, &parties, &limits, kept).await.unwrap().near;
            near.iter().map(|near| (near.limit, near.taken, near.max)).collect::<Vec<_>>()
        };
        for keys in [&[a, b][..], &[b, a], &[a, b]] {
            assert_eq!(commit(keys).await, []);
        }
        assert_eq!(commit(&[a]).await, []);
        assert_eq!(commit(&[a]).await, []);
        // What others hold is taken, too.
        let other = ledger.new_reservation();
        ledger.reserve(other, &parties, &limits, c).await.unwrap();
        let near = commit(&[a]).await;
        assert_eq!(near, [(LimitName::UserUniques, 3, 3), (LimitName::CustomerDay, 10, 10)]);
    }
}
