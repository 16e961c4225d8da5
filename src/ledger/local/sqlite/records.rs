//! What the embedded store's journal writes.

use crate::clock::{Clock, Moment};
use crate::config::Sync;
use crate::directory::{Subject, SubjectKind};
use crate::ledger::StoreError;
use crate::ledger::local::book::{AccountRow, Book, Entry};
use crate::ledger::local::journal::{self, Outcome, Records, Transaction};
use rusqlite::{CachedStatement, Connection, params};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often accounts are swept, and how often expired rows are looked for while there are none.
const IDLE: Duration = Duration::from_secs(1);
/// Expired rows that are deleted at once, and how often at most: never long enough to be felt.
const DELETED_AT_ONCE: usize = 1000;
const DELETE_INTERVAL: Duration = Duration::from_millis(50);
const DAY: u64 = 86_400;

#[derive(Debug)]
pub(in crate::ledger::local) struct Job {
    pub work: Work,
    /// Who waits for it. A caller that hangs up has told nobody that the message was accepted.
    pub waiter: Option<oneshot::Sender<Outcome<()>>>,
}

#[derive(Debug)]
pub(in crate::ledger::local) enum Work {
    Message(Entry),
    Reset {
        subject: Subject,
        why: String,
        /// The account's number, if the books are reset already; else they are reset once this is written.
        done: Option<Option<u64>>,
    },
}

impl journal::Job for Job {
    fn is_awaited(&self) -> bool {
        self.waiter.is_some()
    }

    fn is_abandoned(&self) -> bool {
        self.waiter.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// Messages and resets, and what the books do once they are written.
pub(in crate::ledger::local) struct LedgerRecords {
    book: Arc<Book>,
    clock: Arc<dyn Clock>,
    sync: Sync,
    swept: Option<Instant>,
    looked_for_expired: Option<Instant>,
    more_are_expired: bool,
}

impl LedgerRecords {
    pub fn new(book: Arc<Book>, clock: Arc<dyn Clock>, sync: Sync) -> LedgerRecords {
        LedgerRecords { book, clock, sync, swept: None, looked_for_expired: None, more_are_expired: true }
    }

    /// The first id that no message or reset has.
    pub fn next_id(connection: &Connection) -> rusqlite::Result<i64> {
        let last = "SELECT max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT max(id) FROM reset), 0))";
        connection.query_row(last, [], |row| row.get::<_, i64>(0)).map(|last| last + 1)
    }
}

impl Records for LedgerRecords {
    type Job = Job;

    fn write(&mut self, transaction: &mut Transaction<'_>, jobs: &mut [Job]) -> rusqlite::Result<()> {
        write_jobs(transaction, jobs, &self.book, self.clock.now())
    }

    fn remove(&self, connection: &Connection, ids: RangeInclusive<i64>) -> rusqlite::Result<()> {
        let ids = [ids.start(), ids.end()];
        connection.execute("DELETE FROM message WHERE id BETWEEN ?1 AND ?2", ids)?;
        connection.execute("DELETE FROM reset WHERE id BETWEEN ?1 AND ?2", ids)?;
        Ok(())
    }

    fn written(&mut self, job: Job) {
        match &job.work {
            Work::Message(entry) if self.sync == Sync::Full => self.book.settle(entry.ticket, entry.at),
            Work::Message(_) => {}
            Work::Reset { subject, done: None, .. } => self.book.reset(subject, |_| {}),
            Work::Reset { .. } => {}
        }
        if let Some(waiter) = job.waiter {
            // A caller that hung up in this instant is counted: rather too much than too little.
            let _ = waiter.send(Ok(()));
        }
    }

    fn failed(&mut self, job: Job, error: &StoreError) {
        match (&job.work, job.waiter) {
            (Work::Message(entry), Some(waiter)) => {
                self.book.give_up(entry.ticket);
                let _ = waiter.send(Err(error.clone()));
            }
            // Nobody can be told to send it again: it stays counted, if only in memory.
            (Work::Message(entry), None) => self.book.settle(entry.ticket, entry.at),
            (Work::Reset { .. }, Some(waiter)) => drop(waiter.send(Err(error.clone()))),
            (Work::Reset { .. }, None) => {}
        }
    }

    fn keep_house(&mut self, connection: &mut Connection) {
        if self.swept.is_none_or(|last| last.elapsed() >= IDLE) {
            let dropped = self.book.sweep(self.clock.now());
            if !dropped.is_empty() {
                let _ = drop_accounts(connection, &dropped);
            }
            self.swept = Some(Instant::now());
        }
        if self.looked_for_expired.is_none_or(|last| last.elapsed() >= self.housekeeping_interval()) {
            let horizon = (self.clock.now().0 / 1000).saturating_sub(DAY);
            self.more_are_expired = delete_expired(connection, horizon).unwrap_or(false);
            self.looked_for_expired = Some(Instant::now());
        }
    }

    fn housekeeping_interval(&self) -> Duration {
        if self.more_are_expired { DELETE_INTERVAL } else { IDLE }
    }
}

fn write_jobs(transaction: &mut Transaction<'_>, jobs: &[Job], book: &Book, now: Moment) -> rusqlite::Result<()> {
    let connection = transaction.connection;
    let mut message = connection.prepare_cached("INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut account = connection.prepare_cached("INSERT OR IGNORE INTO account VALUES (?1, ?2, ?3, ?4)")?;
    let mut seen = Vec::new();
    for job in jobs {
        let id = transaction.new_id();
        match &job.work {
            Work::Message(entry) => {
                write_accounts(&mut account, entry)?;
                seen.clear();
                entry.keys.iter().for_each(|key| seen.extend_from_slice(&key.0.to_le_bytes()));
                let number = |row: &Option<AccountRow>| row.as_ref().map(|row| row.number as i64);
                message.execute(params![
                    id,
                    entry.at,
                    entry.customer.number as i64,
                    number(&entry.user),
                    number(&entry.login),
                    entry.recipients as i64,
                    (!seen.is_empty()).then_some(&seen[..]),
                ])?;
            }
            Work::Reset { subject, why, done } => {
                let number = done.unwrap_or_else(|| book.number_of(subject)).map(|number| number as i64);
                let kind = subject.kind.key();
                connection
                    .prepare_cached("INSERT INTO reset VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                    .execute(params![id, now.seconds_up(), number, kind, &*subject.customer, &*subject.name, why])?;
            }
        }
    }
    Ok(())
}

fn write_accounts(account: &mut CachedStatement<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let customer = &entry.customer_name;
    let mut write = |row: &AccountRow, kind: SubjectKind| match &row.name {
        Some(name) => account.execute(params![row.number as i64, kind.key(), &**customer, &**name]).map(drop),
        None => Ok(()),
    };
    write(&entry.customer, SubjectKind::Customer)?;
    entry.user.iter().try_for_each(|row| write(row, SubjectKind::User))?;
    entry.login.iter().try_for_each(|row| write(row, SubjectKind::Login))
}

fn drop_accounts(connection: &mut Connection, numbers: &[u64]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for number in numbers {
        transaction.prepare_cached("DELETE FROM account WHERE number = ?1")?.execute([*number as i64])?;
    }
    transaction.commit()
}

/// Deletes some messages that have left the longest window. True: there may be more.
fn delete_expired(connection: &mut Connection, horizon: u64) -> rusqlite::Result<bool> {
    let oldest = "SELECT at <= ?1 FROM message ORDER BY id LIMIT 1";
    let mut rows = connection.prepare_cached(oldest)?;
    let is_expired: Option<bool> = rows.query_row([horizon as i64], |row| row.get(0)).ok();
    drop(rows);
    if is_expired != Some(true) {
        connection.prepare_cached("DELETE FROM reset WHERE at <= ?1")?.execute([horizon as i64])?;
        return Ok(false);
    }
    let delete = "DELETE FROM message WHERE id IN (SELECT id FROM message ORDER BY id LIMIT ?1) AND at <= ?2";
    let deleted = connection.prepare_cached(delete)?.execute([DELETED_AT_ONCE as i64, horizon as i64])?;
    Ok(deleted == DELETED_AT_ONCE)
}
