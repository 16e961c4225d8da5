//! What every store does, and the stores there are.

use super::api::{CommitRequest, LookRequest, ReserveRequest};
use super::local::{EmbeddedStore, MemoryStore};
use super::ranking::Leaders;
use super::shared::SharedStore;
use super::{Foreseen, Health, LedgerAnswer, LedgerError, LedgerSize, LimitUsage, MissingNode, ReservationId};
use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject};

/// Where usage and reservations are kept. [`Ledger`](super::Ledger) says what each method promises to its callers.
pub(super) trait Store {
    async fn reserve(&self, request: ReserveRequest<'_>) -> Result<LedgerAnswer, LedgerError>;
    async fn look(&self, request: LookRequest<'_>) -> Result<LedgerAnswer, LedgerError>;
    async fn commit(&self, request: CommitRequest<'_>) -> Result<LedgerAnswer, LedgerError>;
    fn release(&self, id: ReservationId, parties: &Parties);

    async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError>;
    /// Offers all that have used something of a limit for a ranking. Returns the nodes that did not respond.
    async fn rank(&self, limit: LimitName, leaders: &mut Leaders<'_>) -> Result<Vec<MissingNode>, LedgerError>;
    async fn reset(&self, subject: &Subject, why: &str) -> Result<(), LedgerError>;

    async fn ready(&self) -> Result<(), LedgerError>;
    async fn close(&self);
    fn health(&self) -> Health;
    /// `None`: it is kept elsewhere.
    fn size(&self) -> Option<LedgerSize>;

    /// What recipients' addresses are hashed with.
    fn hash_key(&self) -> [u8; 16];
    fn now(&self) -> Moment;
    /// Of a moment in an answer.
    fn wall(&self, moment: Moment) -> i64;
    fn wall_now(&self) -> i64 {
        self.wall(self.now())
    }

    /// Gets a transaction's accounts into the processor's cache.
    fn foresee(&self, _parties: &Parties, _when: Foreseen) {}
}

#[derive(Debug)]
pub(super) enum AnyStore {
    Memory(MemoryStore),
    Embedded(EmbeddedStore),
    Shared(SharedStore),
}

/// Calls the same method of whichever store it is.
///
/// Futures of the shared store are large, so it boxes them itself: those of the other stores stay small and unboxed.
macro_rules! each_store {
    ($store:expr, $name:ident => $call:expr) => {
        match $store {
            AnyStore::Memory($name) => $call,
            AnyStore::Embedded($name) => $call,
            AnyStore::Shared($name) => $call,
        }
    };
}

impl Store for AnyStore {
    async fn reserve(&self, request: ReserveRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        each_store!(self, store => store.reserve(request).await)
    }

    async fn look(&self, request: LookRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        each_store!(self, store => store.look(request).await)
    }

    async fn commit(&self, request: CommitRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        each_store!(self, store => store.commit(request).await)
    }

    fn release(&self, id: ReservationId, parties: &Parties) {
        each_store!(self, store => store.release(id, parties));
    }

    async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        each_store!(self, store => store.usage(subject, limits).await)
    }

    async fn rank(&self, limit: LimitName, leaders: &mut Leaders<'_>) -> Result<Vec<MissingNode>, LedgerError> {
        each_store!(self, store => store.rank(limit, leaders).await)
    }

    async fn reset(&self, subject: &Subject, why: &str) -> Result<(), LedgerError> {
        each_store!(self, store => store.reset(subject, why).await)
    }

    async fn ready(&self) -> Result<(), LedgerError> {
        each_store!(self, store => store.ready().await)
    }

    async fn close(&self) {
        each_store!(self, store => store.close().await);
    }

    fn health(&self) -> Health {
        each_store!(self, store => store.health())
    }

    fn size(&self) -> Option<LedgerSize> {
        each_store!(self, store => store.size())
    }

    fn hash_key(&self) -> [u8; 16] {
        each_store!(self, store => store.hash_key())
    }

    fn now(&self) -> Moment {
        each_store!(self, store => store.now())
    }

    fn wall(&self, moment: Moment) -> i64 {
        each_store!(self, store => store.wall(moment))
    }

    fn wall_now(&self) -> i64 {
        each_store!(self, store => store.wall_now())
    }

    fn foresee(&self, parties: &Parties, when: Foreseen) {
        each_store!(self, store => store.foresee(parties, when));
    }
}
