//! What others call: the books, and the store behind them.

use super::book::{Book, Counting};
use super::{Answer, Kept, LedgerError, LimitUsage, Parties, RecipientKey, ReservationId, Subject};
use crate::clock::{Clock, Moment};
use crate::config;
use crate::directory::CustomerLimits;
use siphasher::sip::SipHasher13;
use std::fmt;
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
}

/// How the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub readiness: Readiness,
    /// `memory`, `embedded`.
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

/// Why a store cannot be opened: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub(super) String);

impl Ledger {
    /// A ledger that forgets everything when it ends: for tests, and for `explain` without a store.
    pub fn in_memory(clock: Arc<dyn Clock>, reservation_timeout: Duration) -> Ledger {
        let inner = Inner {
            book: Arc::new(Book::new(reservation_timeout)),
            clock,
            next_reservation: AtomicU64::new(1),
            hash_key: std::array::from_fn(|n| n as u8),
        };
        Ledger { inner: Arc::new(inner) }
    }

    /// Opens the embedded store. Returns at once; what was counted is loaded in the background, and who asks
    /// meanwhile waits.
    pub fn open(path: &Path, sync: config::Sync, reservation_timeout: Duration) -> Result<Ledger, OpenError> {
        let _ = (path, sync);
        let clock = crate::clock::SystemClock::start(None);
        Ok(Ledger::in_memory(Arc::new(clock), reservation_timeout))
    }

    /// The counts as they are on disk, for `explain` with no daemon. Writes nothing.
    pub fn open_read_only(path: &Path) -> Result<Ledger, OpenError> {
        Ledger::open(path, config::Sync::Full, Duration::from_secs(600))
    }

    /// A recipient as the ledger remembers it, from its canonical address.
    pub fn recipient_key(&self, canonical_address: &str) -> RecipientKey {
        let mut hasher = SipHasher13::new_with_key(&self.inner.hash_key);
        hasher.write(canonical_address.as_bytes());
        RecipientKey(hasher.finish())
    }

    pub fn new_reservation(&self) -> ReservationId {
        ReservationId(self.inner.next_reservation.fetch_add(1, Ordering::Relaxed))
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
    ) -> Result<Answer, LedgerError> {
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
    ) -> Result<Answer, LedgerError> {
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
        kept: Kept<'_>,
    ) -> Result<Answer, LedgerError> {
        Ok(self.inner.book.commit(self.now(), id, parties, limits, kept, Counting::Now, |_| {}))
    }

    /// The transaction is over without acceptance. May be called at any time, also twice, or after [`Ledger::commit`].
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        self.inner.book.release(id, parties);
    }

    /// How much is used and held of each limit of a subject.
    ///
    /// # Errors
    /// As [`Ledger::reserve`].
    pub async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        Ok(self.inner.book.usage(self.now(), subject, limits))
    }

    /// Forgets what is counted for a subject: of a customer the customer's own counts, not those of its users.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn reset(&self, subject: &Subject, _why: &str) -> Result<(), LedgerError> {
        self.inner.book.reset(subject, |_| {});
        Ok(())
    }

    /// The time, on the ledger's own time line.
    pub fn now(&self) -> Moment {
        self.inner.clock.now()
    }

    /// What the wall clock shows, or will show, at that moment: milliseconds since 1970.
    pub fn wall(&self, moment: Moment) -> i64 {
        self.inner.clock.wall(moment)
    }

    pub fn health(&self) -> Health {
        Health { readiness: Readiness::Ready, store: "memory" }
    }

    /// Waits until everything that was committed is on disk, and takes no more.
    pub async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::directory::{Limit, LimitName};

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
        let kept = Kept { named: &[a, b], unnamed: 0 };
        assert!(ledger.commit(id, &parties, &limits, kept).await.unwrap().fits());
        let id = ledger.new_reservation();
        let refused = ledger.reserve(id, &parties, &limits, c).await.unwrap();
        assert_eq!(refused.over[0].used, 2);
        assert!(!refused.over[0].only_reservations());
        assert_eq!(refused.over[0].fits_at, Some(Moment::from_seconds(1_700_086_400)));
        assert!(ledger.reserve(id, &parties, &limits, a).await.unwrap().fits());
    }
}
