//! The file: what was counted here, and what was known before.

use super::last_known::Counts;
use crate::clock::{Anchor, Clock, Moment};
use crate::directory::{Parties, Subject, SubjectKind};
use crate::ledger::local::sqlite::{connect, explain, open_alone, random_key, write_anchor};
use crate::ledger::{OpenError, RecipientKey};
use nix::fcntl::Flock;
use rusqlite::{Connection, Row, params};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE_NAME: &str = "outage.db";

/// "RKOU", so that file(1) and we can tell what it is.
const APPLICATION_ID: i32 = 0x524b_4f55;
const SCHEMA: &str = include_str!("outage.sql");
const VERSION: i64 = 1;

/// The log is copied into the file when it has so many pages.
const CHECKPOINT_PAGES: i64 = 1000;

/// What was known longer ago counts for nothing: milliseconds.
const A_DAY: u64 = 86_400_000;

const COLUMNS: &str = "id, at, customer, user, login, recipients, seen, transaction_id, nonce";

/// A message that was counted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger::shared) struct Message {
    /// 0 until it is written.
    pub id: u64,
    /// In seconds, rounded up.
    pub at: u32,
    pub parties: Parties,
    pub recipients: u64,
    pub keys: Box<[RecipientKey]>,
    /// What the store may hold for it.
    pub transaction: [u8; 12],
    /// The store may have counted it, under the first six bytes of the transaction and this.
    pub nonce: Option<u64>,
}

#[derive(Debug)]
pub(in crate::ledger::shared) struct OutageFile {
    connection: Connection,
    path: PathBuf,
    /// Under this name the store counts what is merged.
    pub merges_as: [u8; 6],
    pub hash_key: [u8; 16],
    pub anchor: Option<Anchor>,
    next_id: u64,
    /// Ids of messages whose fate is not known. None of them was told to be accepted, so none may be there.
    in_doubt: Option<(u64, u64)>,
    must_reconnect: bool,
    _lock: Flock<File>,
}

impl OutageFile {
    /// Opens the file in a folder for the one daemon that writes it; makes it if there is none.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, the file is damaged or of a newer version.
    pub fn open(folder: &Path) -> Result<OutageFile, OpenError> {
        let (lock, path, connection) = open_alone(folder, FILE_NAME)?;
        let wrong = |error| explain(&path, error);
        check(&connection, &path)?;
        prepare(&connection).map_err(wrong)?;
        let row = "SELECT merges_as, hash_key, moment_ms, boot_id, since_boot_ms FROM store";
        let (merges_as, hash_key, anchor) = connection
            .query_row(row, [], |row| {
                let moment = Moment(row.get::<_, i64>(2)? as u64);
                let anchor = Anchor { moment, boot_id: row.get(3)?, since_boot_ms: row.get::<_, i64>(4)? as u64 };
                Ok((row.get(0)?, row.get(1)?, anchor))
            })
            .map_err(wrong)?;
        let last = "SELECT max(coalesce((SELECT max(id) FROM message), 0),
                               coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0))";
        let last: i64 = connection.query_row(last, [], |row| row.get(0)).map_err(wrong)?;
        let anchor = Some(anchor).filter(|anchor| anchor.moment > Moment(0));
        Ok(OutageFile {
            connection,
            path,
            merges_as,
            hash_key,
            anchor,
            next_id: last as u64 + 1,
            in_doubt: None,
            must_reconnect: false,
            _lock: lock,
        })
    }

    /// All that was counted here and may not be in what was known before, in its order; and whether it is merged.
    pub fn each_message(&self, mut take: impl FnMut(Message, bool)) -> Result<(), OpenError> {
        let query = format!("SELECT {COLUMNS}, merged FROM message ORDER BY id");
        let mut each = || {
            let mut statement = self.connection.prepare(&query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                take(read_message(row)?, row.get(9)?);
            }
            Ok(())
        };
        each().map_err(|error| explain(&self.path, error))
    }

    /// What the store had told, of all subjects, the latest last.
    pub fn each_known(&self, now: Moment, mut take: impl FnMut(Subject, Counts)) -> Result<(), OpenError> {
        let mut each = || {
            let old = now.0.saturating_sub(A_DAY) as i64;
            self.connection.execute("DELETE FROM known WHERE max(moment_1, moment_2) <= ?1", [old])?;
            let query = "SELECT kind, customer, name, used_1, moment_1, used_2, moment_2 FROM known
                         ORDER BY max(moment_1, moment_2)";
            let mut statement = self.connection.prepare(query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let kind = match &*row.get::<_, String>(0)? {
                    "user" => SubjectKind::User,
                    "login" => SubjectKind::Login,
                    _ => SubjectKind::Customer,
                };
                let name = |nth| Ok::<Arc<str>, rusqlite::Error>(row.get::<_, String>(nth)?.into());
                let number = |nth| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(nth)? as u64);
                let counts = Counts::stored([number(3)?, number(5)?], [Moment(number(4)?), Moment(number(6)?)]);
                take(Subject { kind, customer: name(1)?, name: name(2)? }, counts);
            }
            Ok(())
        };
        each().map_err(|error| explain(&self.path, error))
    }

    /// Has some things written: all of them, or none.
    ///
    /// # Errors
    /// Nothing is written, and the next time the file is opened anew.
    pub fn write<T>(
        &mut self,
        clock: &dyn Clock,
        write: impl FnOnce(&mut Writing<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let written = self.try_to_write(clock, write);
        self.must_reconnect |= written.is_err();
        written
    }

    fn try_to_write<T>(
        &mut self,
        clock: &dyn Clock,
        write: impl FnOnce(&mut Writing<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.must_reconnect {
            // What it had begun must not be in the way of the new one.
            let _ = self.connection.execute_batch("ROLLBACK");
            self.connection = connect(&self.path)?;
            set_up(&self.connection)?;
            self.must_reconnect = false;
        }
        let first = self.next_id;
        let in_doubt = self.in_doubt;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        if let Some((first, last)) = in_doubt {
            let delete = "DELETE FROM message WHERE id BETWEEN ?1 AND ?2";
            self.connection.execute(delete, [first as i64, last as i64])?;
        }
        let mut writing = Writing { connection: &self.connection, next_id: first };
        let written = write(&mut writing);
        self.next_id = writing.next_id;
        // From here on, until the commit is known to have worked.
        self.in_doubt = Some((in_doubt.map_or(first, |doubt| doubt.0), self.next_id));
        let written = written?;
        write_anchor(&self.connection, clock)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.in_doubt = None;
        Ok(written)
    }

    /// Leaves one plain file.
    pub fn close(self) {
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

/// What can be written in one transaction.
pub(in crate::ledger::shared) struct Writing<'a> {
    connection: &'a Connection,
    next_id: u64,
}

impl Writing<'_> {
    pub fn message(&mut self, message: &Message) -> rusqlite::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let Parties { customer, user, login } = &message.parties;
        let seen: Vec<u8> = message.keys.iter().flat_map(|key| key.0.to_le_bytes()).collect();
        let insert = "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0)";
        self.connection
            .prepare_cached(insert)?
            .execute(params![
                id as i64,
                message.at,
                &**customer,
                user.as_deref(),
                login.as_deref(),
                message.recipients as i64,
                seen,
                &message.transaction[..],
                message.nonce.map(|nonce| nonce as i64),
            ])
            .map(drop)
    }

    /// Messages that are not merged, from the one after `after` on.
    pub fn messages_after(&self, after: u64, most: usize) -> rusqlite::Result<Vec<Message>> {
        let query = format!("SELECT {COLUMNS} FROM message WHERE id > ?1 AND merged = 0 ORDER BY id LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&query)?;
        statement.query_map([after as i64, most as i64], read_message)?.collect()
    }

    pub fn merged(&self, ids: &[u64]) -> rusqlite::Result<()> {
        let mut merged = self.connection.prepare_cached("UPDATE message SET merged = 1 WHERE id = ?1")?;
        ids.iter().try_for_each(|&id| merged.execute([id as i64]).map(drop))
    }

    /// All of a customer's messages that are merged are known now.
    pub fn forget_merged(&self, customer: &str) -> rusqlite::Result<()> {
        let delete = "DELETE FROM message WHERE merged = 1 AND customer = ?1";
        self.connection.prepare_cached(delete)?.execute([customer]).map(drop)
    }

    pub fn known(&self, subject: &Subject, counts: &Counts) -> rusqlite::Result<()> {
        let put = "INSERT OR REPLACE INTO known VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let number = |number: u64| number.min(i64::MAX as u64) as i64;
        self.connection
            .prepare_cached(put)?
            .execute(params![
                subject.kind.key(),
                &*subject.customer,
                &*subject.name,
                number(counts.used[0]),
                number(counts.at[0].0),
                number(counts.used[1]),
                number(counts.at[1].0),
            ])
            .map(drop)
    }

    pub fn hash_key(&self, key: &[u8; 16]) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE store SET hash_key = ?1", [&key[..]]).map(drop)
    }
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let name = |nth| Ok::<Option<Arc<str>>, rusqlite::Error>(row.get::<_, Option<String>>(nth)?.map(Into::into));
    let seen: Vec<u8> = row.get(6)?;
    let keys = seen.chunks_exact(8).filter_map(|key| Some(RecipientKey(u64::from_le_bytes(key.try_into().ok()?))));
    Ok(Message {
        id: row.get::<_, i64>(0)? as u64,
        at: row.get(1)?,
        parties: Parties { customer: name(2)?.unwrap_or_default(), user: name(3)?, login: name(4)? },
        recipients: row.get::<_, i64>(5)? as u64,
        keys: keys.collect(),
        transaction: row.get(7)?,
        nonce: row.get::<_, Option<i64>>(8)?.map(|nonce| nonce as u64),
    })
}

fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let found = (|| {
        let application = number("PRAGMA application_id")?;
        Ok((application, number("PRAGMA user_version")?, number("SELECT count(*) FROM sqlite_schema")?))
    })();
    match found.map_err(|error| explain(path, error))? {
        (_, _, 0) => Ok(()),
        (application, version, _) if application == i64::from(APPLICATION_ID) && version <= VERSION => Ok(()),
        (application, version, _) if application == i64::from(APPLICATION_ID) => Err(OpenError(format!(
            "{}: was written by a newer relaykeeper (schema {version}, this one knows {VERSION})",
            path.display()
        ))),
        _ => Err(OpenError(format!("{}: is another program's database", path.display()))),
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    set_up(connection)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let (name, hash_key) = (random_key(), random_key());
    transaction.execute("INSERT INTO store VALUES (1, ?1, ?2, 0, '', 0)", params![&name[..6], &hash_key[..]])?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn message(customer: &str, nonce: Option<u64>) -> Message {
        let parties = Parties { customer: customer.into(), user: Some("ann@acme.example".into()), login: None };
        let keys = Box::new([RecipientKey(1), RecipientKey(u64::MAX)]);
        Message { id: 0, at: 1_800_000_000, parties, recipients: 3, keys, transaction: [7; 12], nonce }
    }

    fn messages(file: &OutageFile) -> Vec<(Message, bool)> {
        let mut all = Vec::new();
        file.each_message(|message, merged| all.push((message, merged))).unwrap();
        all
    }

    #[test]
    fn what_is_merged_stays_until_it_is_known_and_no_id_comes_twice() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(Moment::from_seconds(1_800_000_000));
        let mut file = OutageFile::open(folder.path()).unwrap();
        let (merges_as, hash_key) = (file.merges_as, file.hash_key);
        let sent = [message("acme", None), message("bolt", Some(4)), message("acme", None)];
        file.write(&clock, |writing| sent.iter().try_for_each(|message| writing.message(message))).unwrap();
        file.write(&clock, |writing| writing.merged(&[1, 3])).unwrap();
        drop(file);
        let mut file = OutageFile::open(folder.path()).unwrap();
        assert_eq!((file.merges_as, file.hash_key), (merges_as, hash_key));
        let expected: Vec<_> =
            (1..).zip(&sent).map(|(id, message)| (Message { id, ..message.clone() }, id != 2)).collect();
        assert_eq!(messages(&file), expected);
        file.write(&clock, |writing| writing.forget_merged("acme")).unwrap();
        assert_eq!(messages(&file), expected[1..2]);
        file.write(&clock, |writing| writing.merged(&[2]).and_then(|()| writing.forget_merged("bolt"))).unwrap();
        drop(file);
        let mut file = OutageFile::open(folder.path()).unwrap();
        file.write(&clock, |writing| writing.message(&sent[0])).unwrap();
        assert_eq!(messages(&file)[0].0.id, 4);
    }

    #[test]
    fn what_could_not_be_written_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(Moment::from_seconds(1_800_000_000));
        let mut file = OutageFile::open(folder.path()).unwrap();
        let failed = file.write(&clock, |writing| {
            writing.message(&message("acme", None))?;
            Err::<(), _>(rusqlite::Error::InvalidQuery)
        });
        assert!(failed.is_err());
        file.write(&clock, |writing| writing.message(&message("bolt", None))).unwrap();
        let customers: Vec<_> = messages(&file).into_iter().map(|(message, _)| message.parties.customer).collect();
        assert_eq!(customers, [Arc::<str>::from("bolt")]);
    }
}
