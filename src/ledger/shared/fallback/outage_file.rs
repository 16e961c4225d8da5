//! `outage.db`: what was counted locally, and the usage that the servers last reported.

use super::last_known::Counts;
use crate::clock::{Anchor, Moment};
use crate::directory::{Parties, Subject, SubjectKind};
use crate::ledger::local::journal::{Database, explain, random_key, read_anchor};
use crate::ledger::shared::protocol::request::{DaemonId, TransactionId};
use crate::ledger::{OpenError, RecipientKey};
use rusqlite::{Connection, Row, params};
use std::path::Path;
use std::sync::Arc;

const FILE_NAME: &str = "outage.db";

/// "RKOU", so that file(1) and we can tell what it is.
const APPLICATION_ID: i32 = 0x524b_4f55;
const SCHEMA: &str = include_str!("outage.sql");
const VERSION: i64 = 1;

/// Finds the messages that [`delete_merged`] deletes. Messages are not in it until they are merged: what has to be fast is
/// writing them.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS merged_of_customer ON message (customer) WHERE merged = 1";

const DELETE_MERGED: &str = "DELETE FROM message WHERE merged = 1 AND customer = ?1";

/// The log is copied into the file once it has this many pages.
const CHECKPOINT_PAGES: i64 = 1000;

/// Usage that was reported longer ago has expired: milliseconds.
const DAY: u64 = 86_400_000;

const COLUMNS: &str = "id, at, customer, user, login, recipients, seen, transaction_id, nonce";

/// A message that was counted locally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// 0 until it is written.
    pub id: u64,
    /// In seconds, rounded up.
    pub at: u32,
    pub parties: Parties,
    pub recipients: u64,
    pub keys: Box<[RecipientKey]>,
    /// The servers may have reserved something for it.
    pub transaction: TransactionId,
    /// The servers may have counted it, under this nonce of the transaction's daemon.
    pub nonce: Option<u64>,
}

#[derive(Debug)]
pub(super) struct OutageFile {
    database: Database,
    /// The servers count what is merged under this daemon's name.
    pub merges_as: DaemonId,
    pub hash_key: [u8; 16],
    pub anchor: Option<Anchor>,
    next_id: i64,
}

impl OutageFile {
    /// Opens the file in a folder for the one daemon that writes it; creates it if there is none.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, the file is damaged or of a newer version.
    pub fn open(folder: &Path) -> Result<OutageFile, OpenError> {
        let database = Database::open(folder, FILE_NAME, CHECKPOINT_PAGES)?;
        let (connection, path) = (&database.connection, database.path());
        let explain = |error| explain(path, error);
        check(connection, path)?;
        create_schema(connection).map_err(explain)?;
        let row = "SELECT merges_as, hash_key FROM store";
        let read = connection.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (merges_as, hash_key) = read.map_err(explain)?;
        let anchor = read_anchor(connection).map_err(explain)?;
        let last = "SELECT max(coalesce((SELECT max(id) FROM message), 0),
                               coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0))";
        let last: i64 = connection.query_row(last, [], |row| row.get(0)).map_err(explain)?;
        Ok(OutageFile { database, merges_as, hash_key, anchor, next_id: last + 1 })
    }

    /// The database, and the first id that no message ever had.
    pub fn into_database(self) -> (Database, i64) {
        (self.database, self.next_id)
    }

    /// All messages that may not be part of the last known usage yet, in their order; and whether they are merged.
    pub fn each_message(&self, mut take: impl FnMut(Message, bool)) -> Result<(), OpenError> {
        let query = format!("SELECT {COLUMNS}, merged FROM message ORDER BY id");
        let mut each = || {
            let mut statement = self.database.connection.prepare(&query)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                take(read_message(row)?, row.get(9)?);
            }
            Ok(())
        };
        each().map_err(|error| explain(self.database.path(), error))
    }

    /// The usage that the servers last reported, of all subjects, the latest last.
    pub fn each_known(&self, now: Moment, mut take: impl FnMut(Subject, Counts)) -> Result<(), OpenError> {
        let mut each = || {
            let old = now.0.saturating_sub(DAY) as i64;
            self.database.connection.execute("DELETE FROM known WHERE max(moment_1, moment_2) <= ?1", [old])?;
            let query = "SELECT kind, customer, name, used_1, moment_1, used_2, moment_2 FROM known
                         ORDER BY max(moment_1, moment_2)";
            let mut statement = self.database.connection.prepare(query)?;
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
        each().map_err(|error| explain(self.database.path(), error))
    }
}

pub(super) fn insert_message(connection: &Connection, id: i64, message: &Message) -> rusqlite::Result<()> {
    let Parties { customer, user, login } = &message.parties;
    let seen: Vec<u8> = message.keys.iter().flat_map(|key| key.0.to_le_bytes()).collect();
    let insert = "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0)";
    connection
        .prepare_cached(insert)?
        .execute(params![
            id,
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
pub(super) fn unmerged_after(connection: &Connection, after: u64, most: usize) -> rusqlite::Result<Vec<Message>> {
    let query = format!("SELECT {COLUMNS} FROM message WHERE id > ?1 AND merged = 0 ORDER BY id LIMIT ?2");
    let mut statement = connection.prepare_cached(&query)?;
    statement.query_map([after as i64, most as i64], read_message)?.collect()
}

pub(super) fn set_merged(connection: &Connection, messages: &[Message]) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached("UPDATE message SET merged = 1 WHERE id = ?1")?;
    messages.iter().try_for_each(|message| update.execute([message.id as i64]).map(drop))
}

/// A customer's merged messages are part of its last known usage now.
pub(super) fn delete_merged(connection: &Connection, customer: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE_MERGED)?.execute([customer]).map(drop)
}

pub(super) fn delete_messages(connection: &Connection, first: i64, last: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM message WHERE id BETWEEN ?1 AND ?2", [first, last]).map(drop)
}

pub(super) fn put_last_known(connection: &Connection, known: &[(Subject, Counts)]) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO known VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let number = |number: u64| number.min(i64::MAX as u64) as i64;
    for (subject, counts) in known {
        put.execute(params![
            subject.kind.key(),
            &*subject.customer,
            &*subject.name,
            number(counts.used[0]),
            number(counts.at[0].0),
            number(counts.used[1]),
            number(counts.at[1].0),
        ])?;
    }
    Ok(())
}

pub(super) fn set_hash_key(connection: &Connection, key: &[u8; 16]) -> rusqlite::Result<()> {
    connection.execute("UPDATE store SET hash_key = ?1", [&key[..]]).map(drop)
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

fn create_schema(connection: &Connection) -> rusqlite::Result<()> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        // Files of version 0.1.0 have none; it makes no difference to that version.
        return connection.execute_batch(INDEX);
    }
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute_batch(INDEX)?;
    let (name, hash_key) = (random_key(), random_key());
    transaction.execute("INSERT INTO store VALUES (1, ?1, ?2, 0, '', 0)", params![&name[..6], &hash_key[..]])?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_merged_message_stays_until_it_is_known_and_no_id_is_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = OutageFile::open(folder.path()).unwrap();
        let (merges_as, hash_key, connection) = (file.merges_as, file.hash_key, &file.database.connection);
        let sent = [message("acme", None), message("bolt", Some(4)), message("acme", None)];
        for (id, message) in (file.next_id..).zip(&sent) {
            insert_message(connection, id, message).unwrap();
        }
        let written = |ids: &[u64]| ids.iter().map(|&id| Message { id, ..message("", None) }).collect::<Vec<_>>();
        set_merged(connection, &written(&[1, 3])).unwrap();
        drop(file);
        let file = OutageFile::open(folder.path()).unwrap();
        assert_eq!((file.merges_as, file.hash_key), (merges_as, hash_key));
        let expected: Vec<_> =
            (1..).zip(&sent).map(|(id, message)| (Message { id, ..message.clone() }, id != 2)).collect();
        assert_eq!(messages(&file), expected);
        let connection = &file.database.connection;
        let unmerged = unmerged_after(connection, 0, 10).unwrap();
        assert_eq!(unmerged, [expected[1].0.clone()]);
        delete_merged(connection, "acme").unwrap();
        assert_eq!(messages(&file), expected[1..2]);
        set_merged(connection, &written(&[2])).unwrap();
        delete_merged(connection, "bolt").unwrap();
        drop(file);
        assert_eq!(OutageFile::open(folder.path()).unwrap().next_id, 4);
    }

    #[test]
    fn a_customers_merged_messages_are_found_without_reading_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = OutageFile::open(folder.path()).unwrap();
        file.database.connection.execute_batch("DROP INDEX merged_of_customer").unwrap();
        drop(file);
        let file = OutageFile::open(folder.path()).unwrap();
        let plan: String = file
            .database
            .connection
            .query_row(&format!("EXPLAIN QUERY PLAN {DELETE_MERGED}"), ["acme"], |row| row.get(3))
            .unwrap();
        assert!(plan.contains("USING INDEX merged_of_customer"), "{plan}");
    }
}
