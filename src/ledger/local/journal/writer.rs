//! The journal's one thread: takes all that is queued, writes it in one transaction, and tells everybody.

use super::database::{Database, write_anchor};
use super::journal::Shared;
use super::queue::{self, ENOUGH, Patience};
use super::sqlite_error::store_error;
use crate::clock::Clock;
use crate::ledger::StoreError;
use rusqlite::Connection;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most jobs in one transaction, so that none waits long for the others.
const MAX_BATCH: usize = ENOUGH;
/// How long until jobs that nobody waits for are retried after an error.
const RETRY: Duration = Duration::from_secs(1);
/// How many such jobs are kept for that.
const MAX_RETRIED: usize = 65_536;
/// How often the time line's position is stored.
const ANCHOR_INTERVAL: Duration = Duration::from_secs(1);
/// Between transactions that follow each other at once there is no housekeeping.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(5);

/// What is queued for the writer.
pub(in crate::ledger) trait Job: Send + 'static {
    /// Somebody waits for it to be done.
    fn is_awaited(&self) -> bool;

    /// Whoever waited for it has gone, and has told nobody that it was done: it must not be done any more.
    fn is_abandoned(&self) -> bool;
}

impl<J: Job> queue::Awaited for J {
    fn is_awaited(&self) -> bool {
        Job::is_awaited(self)
    }
}

/// What a journal writes, and what follows from that.
pub(in crate::ledger) trait Records: Send + 'static {
    type Job: Job;

    /// Writes jobs: all of them, or none.
    fn write(&mut self, transaction: &mut Transaction<'_>, jobs: &mut [Self::Job]) -> rusqlite::Result<()>;

    /// Removes rows of a transaction whose fate is unknown. None of them was reported as written, so none may be there.
    fn remove(&self, connection: &Connection, ids: RangeInclusive<i64>) -> rusqlite::Result<()>;

    /// A job is on disk.
    fn written(&mut self, job: Self::Job);

    /// A job will never be written.
    fn failed(&mut self, job: Self::Job, error: &StoreError);

    /// A little of what can wait. Its errors show with the next job.
    fn keep_house(&mut self, _connection: &mut Connection) {}

    /// How long until there may be more of that.
    fn housekeeping_interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A transaction that is being written.
pub(in crate::ledger) struct Transaction<'a> {
    pub connection: &'a Connection,
    next_id: i64,
}

impl Transaction<'_> {
    /// An id that no row ever had.
    pub fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }
}

pub(in crate::ledger) struct Writer<R> {
    database: Database,
    records: R,
    clock: Arc<dyn Clock>,
    next_id: i64,
    /// Ids of transactions whose fate is unknown.
    in_doubt: Option<RangeInclusive<i64>>,
    must_reconnect: bool,
    anchored: Option<Instant>,
    kept_house: Option<Instant>,
}

impl<R: Records> Writer<R> {
    /// `next_id`: one that no row ever had, nor any after it.
    pub fn new(database: Database, records: R, clock: Arc<dyn Clock>, next_id: i64) -> Writer<R> {
        Writer {
            database,
            records,
            clock,
            next_id,
            in_doubt: None,
            must_reconnect: false,
            anchored: None,
            kept_house: None,
        }
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self, shared: &Shared<R::Job>) {
        let mut jobs = Vec::new();
        loop {
            let patience = self.patience(shared, jobs.is_empty());
            let closing = shared.queue.take(&mut jobs, patience);
            self.drop_abandoned(&mut jobs);
            self.write_all(shared, &mut jobs);
            if closing {
                break;
            }
            self.keep_house();
        }
        let closed = StoreError::permanent("the store is closed");
        jobs.into_iter().for_each(|job| self.records.failed(job, &closed));
        if self.database.check_writable().is_ok() {
            let _ = write_anchor(&self.database.connection, &*self.clock);
        }
        self.database.close();
    }

    fn patience(&self, shared: &Shared<R::Job>, nothing_to_retry: bool) -> Patience {
        match nothing_to_retry {
            true => Patience {
                idle: self.records.housekeeping_interval(),
                linger: shared.options.linger,
                enough: MAX_BATCH,
            },
            false => Patience { idle: RETRY, linger: Duration::ZERO, enough: 1 },
        }
    }

    fn drop_abandoned(&mut self, jobs: &mut Vec<R::Job>) {
        if jobs.iter().any(Job::is_abandoned) {
            let abandoned = StoreError::transient("nobody waits for it any more");
            for job in jobs.extract_if(.., |job| job.is_abandoned()) {
                self.records.failed(job, &abandoned);
            }
        }
    }

    /// Writes all jobs. After an error those that nobody waits for are left, to be retried.
    fn write_all(&mut self, shared: &Shared<R::Job>, jobs: &mut Vec<R::Job>) {
        while !jobs.is_empty() {
            let rest = jobs.split_off(jobs.len().min(MAX_BATCH));
            let mut batch = std::mem::replace(jobs, rest);
            match self.write(&mut batch) {
                Ok(()) => {
                    shared.set_degraded(None);
                    batch.into_iter().for_each(|job| self.records.written(job));
                }
                Err(error) => {
                    let error = store_error(self.database.path(), error);
                    self.must_reconnect = true;
                    shared.set_degraded(Some(error.clone()));
                    batch.append(jobs);
                    *jobs = batch;
                    return self.fail_awaited(jobs, &error);
                }
            }
        }
    }

    fn fail_awaited(&mut self, jobs: &mut Vec<R::Job>, error: &StoreError) {
        let mut kept = 0;
        let fails = |job: &mut R::Job| {
            kept += usize::from(!job.is_awaited());
            job.is_awaited() || kept > MAX_RETRIED
        };
        for job in jobs.extract_if(.., fails) {
            self.records.failed(job, error);
        }
    }

    /// All of them, or none.
    fn write(&mut self, jobs: &mut [R::Job]) -> rusqlite::Result<()> {
        self.database.check_writable()?;
        if self.must_reconnect {
            self.database.reconnect()?;
            self.must_reconnect = false;
        }
        let (first, in_doubt) = (self.next_id, self.in_doubt.clone());
        let anchor_is_due = self.anchored.is_none_or(|last| last.elapsed() >= ANCHOR_INTERVAL);
        let connection = &self.database.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        if let Some(ids) = in_doubt.clone() {
            self.records.remove(connection, ids)?;
        }
        let mut transaction = Transaction { connection, next_id: first };
        let written = self.records.write(&mut transaction, jobs);
        // From here on, until the commit is known to have succeeded.
        self.next_id = transaction.next_id;
        self.in_doubt = Some(in_doubt.map_or(first, |ids| *ids.start())..=self.next_id - 1);
        written?;
        if anchor_is_due {
            write_anchor(connection, &*self.clock)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.in_doubt = None;
        if anchor_is_due {
            self.anchored = Some(Instant::now());
        }
        Ok(())
    }

    fn keep_house(&mut self) {
        if self.kept_house.is_some_and(|last| last.elapsed() < HOUSEKEEPING_INTERVAL) {
            return;
        }
        self.kept_house = Some(Instant::now());
        if self.database.check_writable().is_err() {
            return;
        }
        self.records.keep_house(&mut self.database.connection);
        // Callers have been told by now: only the next batch waits.
        let _ = self.database.checkpoint_if_due();
    }
}
