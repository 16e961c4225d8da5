//! A ledger that forgets everything when it ends.

use super::book::{Book, Counting};
use crate::clock::{Clock, Moment};
use crate::directory::{CustomerLimits, LimitName, Parties, Subject};
use crate::ledger::api::{CommitRequest, LookRequest, ReserveRequest};
use crate::ledger::ranking::Leaders;
use crate::ledger::store::Store;
use crate::ledger::{
    Foreseen, Health, LedgerAnswer, LedgerError, LedgerSize, LimitUsage, MissingNode, Readiness, ReservationId,
};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(in crate::ledger) struct MemoryStore {
    book: Book,
    clock: Arc<dyn Clock>,
}

/// Nothing outlives the process, so the key need not be secret.
const HASH_KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>, reservation_timeout: Duration) -> MemoryStore {
        MemoryStore { book: Book::new(reservation_timeout), clock }
    }
}

impl Store for MemoryStore {
    async fn reserve(&self, request: ReserveRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        Ok(self.book.reserve(self.now(), request))
    }

    async fn look(&self, request: LookRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        Ok(self.book.look(self.now(), request))
    }

    async fn commit(&self, request: CommitRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        Ok(self.book.commit(self.now(), request, Counting::Only, |_| {}))
    }

    fn release(&self, id: ReservationId, parties: &Parties) {
        self.book.release(id, parties);
    }

    async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        Ok(self.book.usage(self.now(), subject, limits))
    }

    async fn rank(&self, limit: LimitName, leaders: &mut Leaders<'_>) -> Result<Vec<MissingNode>, LedgerError> {
        self.book.rank(self.now(), limit, leaders);
        Ok(Vec::new())
    }

    async fn reset(&self, subject: &Subject, _why: &str) -> Result<(), LedgerError> {
        self.book.reset(subject, |_| {});
        Ok(())
    }

    async fn ready(&self) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn close(&self) {}

    fn health(&self) -> Health {
        Health { readiness: Readiness::Ready, store: "memory" }
    }

    fn size(&self) -> Option<LedgerSize> {
        Some(self.book.size())
    }

    fn hash_key(&self) -> [u8; 16] {
        HASH_KEY
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall(&self, moment: Moment) -> i64 {
        self.clock.wall(moment)
    }

    fn foresee(&self, parties: &Parties, when: Foreseen) {
        self.book.foresee(parties, when);
    }
}
