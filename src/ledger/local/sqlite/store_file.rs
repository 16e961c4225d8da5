//! `ledger.db`: its schema and its versions.

use crate::clock::Anchor;
use crate::ledger::OpenError;
use crate::ledger::local::journal::{BUSY_TIMEOUT, Database, explain, random_key, read_anchor};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "ledger.db";

/// "RKLG", so that file(1) and we can tell what it is.
const APPLICATION_ID: i32 = 0x524b_4c47;

/// Migrations in order; the first one creates the schema. A store's `user_version` says how many it has had.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// The log is copied into the file once it has this many pages.
const CHECKPOINT_PAGES: i64 = 4000;
/// The size of that many pages in the log, each with a frame header (sqlite.org, "Database File Format", 4.2).
const LOG_BYTES: u64 = 32 + CHECKPOINT_PAGES as u64 * (4096 + 24);

/// An opened store.
#[derive(Debug)]
pub(in crate::ledger) struct StoreFile {
    path: PathBuf,
    /// `None`: it is only read.
    database: Option<Database>,
    /// Nobody writes it, and it cannot be shared with others.
    immutable: bool,
    pub hash_key: [u8; 16],
    pub anchor: Option<Anchor>,
}

impl StoreFile {
    /// Opens the store in a folder for the one daemon that writes it; creates it if there is none.
    pub fn open(folder: &Path) -> Result<StoreFile, OpenError> {
        let mut database = Database::open(folder, FILE_NAME, CHECKPOINT_PAGES)?;
        let path = database.path().to_owned();
        migrate(&mut database.connection, &path)?;
        let (hash_key, anchor) = read_store_row(&database.connection).map_err(|error| explain(&path, error))?;
        preallocate(&log_of(&path));
        Ok(StoreFile { path, database: Some(database), immutable: false, hash_key, anchor })
    }

    /// Opens the store for reading, whether a daemon writes it or not.
    pub fn open_read_only(folder: &Path) -> Result<StoreFile, OpenError> {
        let path = folder.join(FILE_NAME);
        if !path.exists() {
            return Err(OpenError(format!("{}: there is no store yet", path.display())));
        }
        let shared = connect_read_only(&path, false).and_then(|connection| {
            schema_version(&connection)?;
            Ok(connection)
        });
        let (connection, immutable) = match shared {
            Ok(connection) => (connection, false),
            // Without the right to write in the folder, a store that nobody has open cannot be shared, but it cannot change
            // either.
            Err(_) if !log_of(&path).exists() => {
                (connect_read_only(&path, true).map_err(|error| explain(&path, error))?, true)
            }
            Err(error) => return Err(explain(&path, error)),
        };
        check_version(&connection, &path)?;
        if schema_version(&connection).map_err(|error| explain(&path, error))? < MIGRATIONS.len() {
            return Err(OpenError(format!(
                "{}: written by an older relaykeeper; start the daemon once",
                path.display()
            )));
        }
        let (hash_key, anchor) = read_store_row(&connection).map_err(|error| explain(&path, error))?;
        Ok(StoreFile { path, database: None, immutable, hash_key, anchor })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A further connection that only reads.
    pub fn reader(&self) -> rusqlite::Result<Connection> {
        connect_read_only(&self.path, self.immutable)
    }

    /// `None`: it is only read.
    pub fn into_database(self) -> Option<Database> {
        self.database
    }
}

/// Fills the write-ahead log with zeros up to the size at which it is copied into the file and begun anew. A log that does
/// not grow takes half the time to sync: the file system has no metadata to write. SQLite reads a log up to the first
/// invalid frame, as it must with what is left there of an earlier round.
fn preallocate(log: &Path) {
    let Ok(mut file) = OpenOptions::new().append(true).open(log) else { return };
    let Ok(before) = file.metadata().map(|metadata| metadata.len()) else { return };
    let zeros = vec![0; 1 << 20];
    let mut missing = LOG_BYTES.saturating_sub(before);
    while missing > 0 {
        let length = missing.min(zeros.len() as u64);
        if file.write_all(&zeros[..length as usize]).is_err() {
            // The disk is too full: the log grows when it must.
            let _ = file.set_len(before);
            return;
        }
        missing -= length;
    }
    let _ = file.sync_all();
}

fn connect_read_only(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    if immutable {
        uri.push_str("?immutable=1");
    }
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    check_version(connection, path)?;
    for version in schema_version(connection).map_err(|error| explain(path, error))?..MIGRATIONS.len() {
        run_migration(connection, version).map_err(|error| explain(path, error))?;
    }
    Ok(())
}

fn run_migration(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(MIGRATIONS[version])?;
    transaction.pragma_update(None, "user_version", version as i64 + 1)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

fn check_version(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let version = schema_version(connection).map_err(|error| explain(path, error))?;
    let known = MIGRATIONS.len();
    if version > known {
        return Err(OpenError(format!(
            "{}: was written by a newer relaykeeper (schema {version}, this one knows {known})",
            path.display()
        )));
    }
    let tables = "SELECT count(*) FROM sqlite_schema";
    let application = connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0));
    let tables = connection.query_row(tables, [], |row| row.get::<_, i64>(0));
    match (application, tables) {
        (Ok(APPLICATION_ID), _) | (Ok(_), Ok(0)) => Ok(()),
        (Ok(_), Ok(_)) => Err(OpenError(format!("{}: is another program's database", path.display()))),
        (Err(error), _) | (_, Err(error)) => Err(explain(path, error)),
    }
}

fn schema_version(connection: &Connection) -> rusqlite::Result<usize> {
    connection
        .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
        .map(|version| version.max(0) as usize)
}

fn read_store_row(connection: &Connection) -> rusqlite::Result<([u8; 16], Option<Anchor>)> {
    let found = connection.query_row("SELECT hash_key FROM store", [], |row| row.get(0)).optional()?;
    if let Some(hash_key) = found {
        return Ok((hash_key, read_anchor(connection)?));
    }
    let hash_key = random_key();
    connection.execute("INSERT INTO store VALUES (1, ?1, 0, '', 0)", [&hash_key[..]])?;
    Ok((hash_key, None))
}
