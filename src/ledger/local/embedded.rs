//! The embedded store: the books decide, and SQLite makes accepted messages durable.

use super::book::{Book, Counting, Entry, Ticket};
use super::journal::{Journal, Options, Outcome, Start, await_outcome, store_error};
use super::sqlite::{self, Job, LedgerRecords, StoreFile, Work};
use crate::clock::{Clock, Moment};
use crate::config::Sync;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject};
use crate::ledger::api::{CommitRequest, LookRequest, ReserveRequest};
use crate::ledger::ranking::Leaders;
use crate::ledger::store::Store;
use crate::ledger::{
    Foreseen, Health, LedgerAnswer, LedgerError, LedgerSize, LimitUsage, MissingNode, ReservationId, StoreError,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::{self, Receiver};

/// With `sync = "normal"` a message is on disk within a second; it is delayed for this long, to be written together with others.
const NORMAL_LINGER: Duration = Duration::from_millis(250);
/// With `sync = "full"`, the same for a message that no reply waits for.
const FULL_LINGER: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(in crate::ledger) struct EmbeddedStore {
    book: Arc<Book>,
    clock: Arc<dyn Clock>,
    hash_key: [u8; 16],
    sync: Sync,
    journal: Journal<Job>,
}

impl EmbeddedStore {
    /// Starts loading what the file holds; requests wait until that is done. Then writes what is committed, unless the file was
    /// opened for reading only.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(file: StoreFile, sync: Sync, book: Book, clock: Arc<dyn Clock>) -> std::io::Result<EmbeddedStore> {
        let (book, hash_key) = (Arc::new(book), file.hash_key);
        let (of_thread, clock_of_thread) = (book.clone(), clock.clone());
        let options = Options {
            name: "ledger",
            linger: if sync == Sync::Full { FULL_LINGER } else { NORMAL_LINGER },
            // With `sync = "normal"` nobody would be told that it failed again.
            accepts_when_degraded: sync == Sync::Full,
        };
        let journal = Journal::start(options, move |progress| {
            let (book, clock, path) = (of_thread, clock_of_thread, file.path().to_owned());
            let failed = |error| store_error(&path, error);
            sqlite::load(&file, &book, clock.now(), progress).map_err(failed)?;
            let Some(database) = file.into_database() else { return Ok(Start::ReadOnly) };
            let next_id = LedgerRecords::next_id(&database.connection).map_err(failed)?;
            let records = LedgerRecords::new(book, clock.clone(), sync);
            Ok(Start::Write { database, records, clock, next_id })
        })?;
        Ok(EmbeddedStore { book, clock, hash_key, sync, journal })
    }

    /// Queues a message. Quick: it is called under the customer's lock. Where its outcome is awaited, its receiver is returned.
    ///
    /// # Errors
    /// The store is closed.
    fn record(&self, entry: Entry, is_awaited: bool) -> Result<Option<Receiver<Outcome<()>>>, Ticket> {
        let ticket = entry.ticket;
        let (waiter, outcome) = match is_awaited && self.sync == Sync::Full {
            true => {
                let (waiter, outcome) = oneshot::channel();
                (Some(waiter), Some(outcome))
            }
            false => (None, None),
        };
        self.journal.push(Job { work: Work::Message(entry), waiter }).map(|()| outcome).map_err(|_| ticket)
    }

    fn counting(&self) -> Counting {
        match self.sync {
            Sync::Full => Counting::WhenSettled,
            Sync::Normal => Counting::Now,
        }
    }
}

impl Store for EmbeddedStore {
    async fn reserve(&self, request: ReserveRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        self.journal.ready().await?;
        Ok(self.book.reserve(self.now(), request))
    }

    async fn look(&self, request: LookRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        self.journal.ready().await?;
        Ok(self.book.look(self.now(), request))
    }

    async fn commit(&self, request: CommitRequest<'_>) -> Result<LedgerAnswer, LedgerError> {
        self.journal.ready().await?;
        if let Err(error) = self.journal.room().await {
            self.book.release(request.id, request.parties);
            return Err(error);
        }
        let mut recorded = Ok(None);
        let record = |entry| recorded = self.record(entry, request.is_awaited);
        let answer = self.book.commit(self.now(), request, self.counting(), record);
        match recorded {
            Ok(None) => Ok(answer),
            Ok(Some(outcome)) => Ok(await_outcome(outcome).await.map(|()| answer)?),
            Err(ticket) => {
                self.book.give_up(ticket);
                Err(closed())
            }
        }
    }

    fn release(&self, id: ReservationId, parties: &Parties) {
        self.book.release(id, parties);
    }

    async fn usage(&self, subject: &Subject, limits: &CustomerLimits) -> Result<Vec<LimitUsage>, LedgerError> {
        self.journal.ready().await?;
        Ok(self.book.usage(self.now(), subject, limits))
    }

    async fn rank(&self, limit: LimitName, leaders: &mut Leaders<'_>) -> Result<Vec<MissingNode>, LedgerError> {
        self.journal.ready().await?;
        self.book.rank(self.now(), limit, leaders);
        Ok(Vec::new())
    }

    async fn reset(&self, subject: &Subject, why: &str) -> Result<(), LedgerError> {
        self.journal.ready().await?;
        self.journal.room().await?;
        let (waiter, outcome) = oneshot::channel();
        let mut waiter = Some(waiter);
        let mut record = |done| {
            let work = Work::Reset { subject: subject.clone(), why: why.to_owned(), done };
            // If the store is closed, the waiter is dropped, which is an outcome, too.
            let _ = self.journal.push(Job { work, waiter: waiter.take() });
        };
        match self.counting() {
            // In the order in which messages were counted.
            Counting::Only | Counting::Now => self.book.reset(subject, |number| record(Some(number))),
            // The books are reset once it is written, between the messages before and after it.
            Counting::WhenSettled => record(None),
        }
        Ok(await_outcome(outcome).await?)
    }

    async fn ready(&self) -> Result<(), LedgerError> {
        self.journal.ready().await
    }

    async fn close(&self) {
        self.journal.close().await;
    }

    fn health(&self) -> Health {
        Health { readiness: self.journal.readiness(), store: "embedded" }
    }

    fn size(&self) -> Option<LedgerSize> {
        Some(self.book.size())
    }

    fn hash_key(&self) -> [u8; 16] {
        self.hash_key
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

fn closed() -> LedgerError {
    StoreError::permanent("the store is closed").into()
}
