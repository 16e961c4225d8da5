//! The one writer: takes all that waits, writes it in one transaction, and tells everybody.

use super::file::{CHECKPOINT_PAGES, StoreFile, in_words};
use super::job::{Job, What};
use super::journal::Shared;
use super::queue::{ENOUGH, Patience};
use crate::clock::{Clock, Moment};
use crate::config::Sync;
use crate::directory::SubjectKind;
use crate::ledger::local::book::{Book, Entry, Line};
use rusqlite::{CachedStatement, Connection, params};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the writer looks around when there is nothing to write.
const IDLE: Duration = Duration::from_secs(1);
/// With `sync = "normal"` a count is on disk within a second; so long it is waited for others to be written with it.
const LINGER: Duration = Duration::from_millis(250);
/// So long after its message a count is written that nobody waits for.
const UNHURRIED: Duration = Duration::from_millis(10);
/// How long until a batch that failed is tried again, with `sync = "normal"`.
const RETRY: Duration = Duration::from_secs(1);
/// Most in one transaction, so that none waits long for the others.
const BATCH: usize = ENOUGH;
/// Rows older than a day that are deleted at once, and how often at most: never long enough to be felt.
const DELETED_AT_ONCE: usize = 1000;
const DELETE_EVERY: Duration = Duration::from_millis(50);
/// Between two commits that follow at once there is nothing to look after.
const HOUSE_EVERY: Duration = Duration::from_millis(5);
const DAY: u64 = 86_400;

pub(super) struct Writer {
    file: StoreFile,
    book: Arc<Book>,
    clock: Arc<dyn Clock>,
    /// The next message's id.
    next_id: i64,
    /// Ids of a batch whose fate is not known. None of it was told to be accepted, so none may be there.
    in_doubt: Option<(i64, i64)>,
    must_reconnect: bool,
    anchored: Option<Instant>,
    swept: Option<Instant>,
    looked_for_old: Option<Instant>,
    more_old: bool,
    kept_house: Option<Instant>,
}

impl Writer {
    pub fn new(file: StoreFile, book: Arc<Book>, clock: Arc<dyn Clock>) -> rusqlite::Result<Writer> {
        let last_id =
            "SELECT max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT max(id) FROM reset), 0))";
        let last_id: i64 = file.connection.query_row(last_id, [], |row| row.get(0))?;
        Ok(Writer {
            file,
            book,
            clock,
            next_id: last_id + 1,
            in_doubt: None,
            must_reconnect: false,
            anchored: None,
            swept: None,
            looked_for_old: None,
            more_old: true,
            kept_house: None,
        })
    }

    /// Writes until the queue is closed.
    pub fn run(mut self, shared: &Shared) {
        let mut jobs = Vec::new();
        loop {
            let patience = self.patience(shared, jobs.is_empty());
            let closing = shared.queue.take(&mut jobs, patience);
            if shared.sync == Sync::Full {
                jobs.retain(|job| self.is_waited_for(job));
            }
            self.write_all(shared, &mut jobs);
            if closing {
                break;
            }
            self.keep_house();
        }
        self.give_up(&mut jobs, "it is closed".into());
        let _ = self.write_anchor_only();
        self.file.close();
    }

    fn patience(&self, shared: &Shared, nothing_left: bool) -> Patience {
        match (shared.sync, nothing_left) {
            (Sync::Full, _) => Patience { idle: self.idle(), linger: UNHURRIED, enough: BATCH },
            (Sync::Normal, true) => Patience { idle: self.idle(), linger: LINGER, enough: BATCH },
            (Sync::Normal, false) => Patience { idle: RETRY, linger: Duration::ZERO, enough: 1 },
        }
    }

    fn idle(&self) -> Duration {
        if self.more_old { DELETE_EVERY } else { IDLE }
    }

    /// Nobody was told that a message was accepted whose caller has gone.
    fn is_waited_for(&self, job: &Job) -> bool {
        let waited_for = job.waiter.as_ref().is_none_or(|waiter| !waiter.is_closed());
        if !waited_for && let What::Message(entry) = &job.what {
            self.book.give_up(entry.ticket);
        }
        waited_for
    }

    fn write_all(&mut self, shared: &Shared, jobs: &mut Vec<Job>) {
        while !jobs.is_empty() {
            let rest = jobs.split_off(jobs.len().min(BATCH));
            let mut batch = std::mem::replace(jobs, rest);
            match self.write(&batch) {
                Ok(()) => {
                    shared.set_trouble(None);
                    batch.drain(..).for_each(|job| self.settle(shared, job));
                }
                Err(error) => {
                    let reason: Arc<str> = in_words(&error).into();
                    shared.set_trouble(Some(reason.clone()));
                    self.must_reconnect = true;
                    if shared.sync == Sync::Full {
                        self.give_up(&mut batch, reason);
                    } else {
                        batch.append(jobs);
                        *jobs = batch;
                        return;
                    }
                }
            }
        }
    }

    fn settle(&self, shared: &Shared, job: Job) {
        match &job.what {
            What::Message(entry) if shared.sync == Sync::Full => self.book.settle(entry.ticket, entry.at),
            What::Message(_) => {}
            What::Reset { subject, done: None, .. } => self.book.reset(subject, |_| {}),
            What::Reset { .. } => {}
        }
        if let Some(waiter) = job.waiter {
            // Whoever hung up in this instant is counted: too much rather than too little.
            let _ = waiter.send(Ok(()));
        }
    }

    fn give_up(&self, jobs: &mut Vec<Job>, reason: Arc<str>) {
        for job in jobs.drain(..) {
            match (&job.what, job.waiter) {
                (What::Message(entry), Some(waiter)) => {
                    self.book.give_up(entry.ticket);
                    let _ = waiter.send(Err(reason.clone()));
                }
                // Nobody can be told to send it again: it stays counted, if only in memory.
                (What::Message(entry), None) => self.book.settle(entry.ticket, entry.at),
                (What::Reset { .. }, Some(waiter)) => drop(waiter.send(Err(reason.clone()))),
                (What::Reset { .. }, None) => {}
            }
        }
    }

    /// All of them, or none.
    fn write(&mut self, jobs: &[Job]) -> rusqlite::Result<()> {
        self.file.check_writable()?;
        if self.must_reconnect {
            self.file.reconnect()?;
            self.must_reconnect = false;
        }
        let ids = (self.next_id, self.next_id + jobs.len() as i64 - 1);
        self.next_id = ids.1 + 1;
        let in_doubt = self.in_doubt;
        // From here on, until the commit is known to have worked.
        self.in_doubt = Some((in_doubt.map_or(ids.0, |doubt| doubt.0), ids.1));
        let anchor = self.anchored.is_none_or(|last| last.elapsed() >= IDLE);
        let connection = &self.file.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        if let Some((first, last)) = in_doubt {
            connection.execute("DELETE FROM message WHERE id BETWEEN ?1 AND ?2", [first, last])?;
            connection.execute("DELETE FROM reset WHERE id BETWEEN ?1 AND ?2", [first, last])?;
        }
        write_jobs(connection, jobs, ids.0, &self.book, self.clock.now())?;
        if anchor {
            write_anchor(connection, &*self.clock)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.in_doubt = None;
        if anchor {
            self.anchored = Some(Instant::now());
        }
        Ok(())
    }

    fn write_anchor_only(&mut self) -> rusqlite::Result<()> {
        self.file.check_writable()?;
        write_anchor(&self.file.connection, &*self.clock)
    }

    /// A little of what can wait. What fails here is found out by the next commit.
    fn keep_house(&mut self) {
        if self.kept_house.is_some_and(|last| last.elapsed() < HOUSE_EVERY) {
            return;
        }
        self.kept_house = Some(Instant::now());
        if self.file.check_writable().is_err() {
            return;
        }
        if self.swept.is_none_or(|last| last.elapsed() >= IDLE) {
            let dropped = self.book.sweep(self.clock.now());
            if !dropped.is_empty() {
                let _ = drop_accounts(&mut self.file.connection, &dropped);
            }
            self.swept = Some(Instant::now());
        }
        if self.looked_for_old.is_none_or(|last| last.elapsed() >= self.idle()) {
            let horizon = (self.clock.now().0 / 1000).saturating_sub(DAY);
            self.more_old = delete_old(&mut self.file.connection, horizon).unwrap_or(false);
            self.looked_for_old = Some(Instant::now());
        }
        let _ = checkpoint_if_due(&self.file.connection);
    }
}

fn write_jobs(connection: &Connection, jobs: &[Job], first_id: i64, book: &Book, now: Moment) -> rusqlite::Result<()> {
    let mut message = connection.prepare_cached("INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut account = connection.prepare_cached("INSERT OR IGNORE INTO account VALUES (?1, ?2, ?3, ?4)")?;
    let mut seen = Vec::new();
    for (id, job) in (first_id..).zip(jobs) {
        match &job.what {
            What::Message(entry) => {
                write_accounts(&mut account, entry)?;
                seen.clear();
                entry.keys.iter().for_each(|key| seen.extend_from_slice(&key.0.to_le_bytes()));
                let number = |line: &Option<Line>| line.as_ref().map(|line| line.number as i64);
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
            What::Reset { subject, why, done } => {
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
    let mut write = |line: &Line, kind: SubjectKind| match &line.name {
        Some(name) => account.execute(params![line.number as i64, kind.key(), &**customer, &**name]).map(drop),
        None => Ok(()),
    };
    write(&entry.customer, SubjectKind::Customer)?;
    entry.user.iter().try_for_each(|line| write(line, SubjectKind::User))?;
    entry.login.iter().try_for_each(|line| write(line, SubjectKind::Login))
}

/// Marks where the time line stands.
pub(in crate::ledger) fn write_anchor(connection: &Connection, clock: &dyn Clock) -> rusqlite::Result<()> {
    let anchor = clock.anchor();
    connection
        .prepare_cached("UPDATE store SET moment_ms = ?1, boot_id = ?2, since_boot_ms = ?3")?
        .execute(params![anchor.moment.0 as i64, anchor.boot_id, anchor.since_boot_ms as i64])?;
    Ok(())
}

fn drop_accounts(connection: &mut Connection, numbers: &[u64]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for number in numbers {
        transaction.prepare_cached("DELETE FROM account WHERE number = ?1")?.execute([*number as i64])?;
    }
    transaction.commit()
}

/// Deletes some of what left the longest window; true if there may be more.
fn delete_old(connection: &mut Connection, horizon: u64) -> rusqlite::Result<bool> {
    let oldest = "SELECT at <= ?1 FROM message ORDER BY id LIMIT 1";
    let mut rows = connection.prepare_cached(oldest)?;
    let is_old: Option<bool> = rows.query_row([horizon as i64], |row| row.get(0)).ok();
    drop(rows);
    if is_old != Some(true) {
        connection.prepare_cached("DELETE FROM reset WHERE at <= ?1")?.execute([horizon as i64])?;
        return Ok(false);
    }
    let delete = "DELETE FROM message WHERE id IN (SELECT id FROM message ORDER BY id LIMIT ?1) AND at <= ?2";
    let deleted = connection.prepare_cached(delete)?.execute([DELETED_AT_ONCE as i64, horizon as i64])?;
    Ok(deleted == DELETED_AT_ONCE)
}

/// Copies the log into the file when it has grown long. Callers have been answered by then; only the next batch waits.
fn checkpoint_if_due(connection: &Connection) -> rusqlite::Result<()> {
    let pages = |mode| connection.query_row(mode, [], |row| row.get::<_, i64>(1));
    if pages("PRAGMA wal_checkpoint(NOOP)")? >= CHECKPOINT_PAGES {
        pages("PRAGMA wal_checkpoint(PASSIVE)")?;
    }
    Ok(())
}
