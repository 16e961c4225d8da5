//! The file: its lock, its schema, and what can be wrong with it.

use crate::clock::{Anchor, Moment};
use crate::files;
use crate::ledger::OpenError;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, ffi};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const FILE_NAME: &str = "ledger.db";
const LOCK_NAME: &str = "ledger.lock";

/// "RKLG", so that file(1) and we can tell what it is.
const APPLICATION_ID: i32 = 0x524b_4c47;

/// Migrations in order; the first makes the schema. A store's `user_version` says how many it has seen.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// How long somebody else, such as an administrator with sqlite3(1), may hold the file up.
const BUSY: Duration = Duration::from_secs(5);

/// The log is copied into the file when it has so many pages.
pub(super) const CHECKPOINT_PAGES: i64 = 4000;
/// What so many pages take in the log, each with a frame header (sqlite.org, "Database File Format", 4.2).
const LOG_BYTES: u64 = 32 + CHECKPOINT_PAGES as u64 * (4096 + 24);

/// An opened store.
#[derive(Debug)]
pub(in crate::ledger) struct StoreFile {
    pub connection: Connection,
    path: PathBuf,
    immutable: bool,
    /// Held as long as the file is written.
    lock: Option<Flock<File>>,
    pub hash_key: [u8; 16],
    pub anchor: Option<Anchor>,
}

impl StoreFile {
    /// Opens the store in a folder for the one daemon that writes it; makes it if there is none.
    pub fn open(folder: &Path) -> Result<StoreFile, OpenError> {
        let (lock, path, mut connection) = open_alone(folder, FILE_NAME)?;
        migrate(&mut connection, &path)?;
        let (hash_key, anchor) = read_store_row(&mut connection).map_err(|error| explain(&path, error))?;
        make_room(&wal_of(&path));
        Ok(StoreFile { connection, path, immutable: false, lock: Some(lock), hash_key, anchor })
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
        let (mut connection, immutable) = match shared {
            Ok(connection) => (connection, false),
            // Without the right to write in the folder, a store that nobody has open cannot be shared, but it cannot
            // change either.
            Err(_) if !wal_of(&path).exists() => {
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
        let (hash_key, anchor) = read_store_row(&mut connection).map_err(|error| explain(&path, error))?;
        Ok(StoreFile { connection, path, immutable, lock: None, hash_key, anchor })
    }

    /// A further connection that reads only.
    pub fn reader(&self) -> rusqlite::Result<Connection> {
        connect_read_only(&self.path, self.immutable)
    }

    /// Finds out whether the file system takes anything at all, before SQLite does: it shares `ledger.db-shm` with other
    /// programs as mapped memory, and to write there is no error on a file system that has become read-only, but a signal that
    /// ends the process (SIGBUS, mmap(2)).
    pub fn check_writable(&self) -> rusqlite::Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let written = lock.write_at(std::process::id().to_string().as_bytes(), 0);
        written.map(drop).map_err(|error| {
            let code = match error.kind() {
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => ffi::SQLITE_READONLY,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
                _ => ffi::SQLITE_IOERR,
            };
            rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
        })
    }

    /// Opens the file anew after trouble with it.
    pub fn reconnect(&mut self) -> rusqlite::Result<()> {
        // What it had begun must not be in the way of the new one.
        let _ = self.connection.execute_batch("ROLLBACK");
        self.connection = connect(&self.path)?;
        Ok(())
    }

    /// Leaves one plain file, and lets the next daemon in.
    pub fn close(self) {
        // What the log still holds when this fails, the next start reads from it.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        let _ = self.connection.close();
        drop(self.lock);
    }
}

/// Opens a database in a folder for the one daemon that writes it; an empty one if there is none.
pub(in crate::ledger) fn open_alone(
    folder: &Path,
    name: &str,
) -> Result<(Flock<File>, PathBuf, Connection), OpenError> {
    check_folder(folder)?;
    let lock = lock(folder)?;
    let path = folder.join(name);
    // SQLite itself would leave its mode to the umask.
    files::ensure_private(&path, files::Access::Group)
        .map_err(|error| OpenError(format!("{}: cannot be written: {error}", path.display())))?;
    let connection = connect(&path).map_err(|error| explain(&path, error))?;
    Ok((lock, path, connection))
}

fn check_folder(folder: &Path) -> Result<(), OpenError> {
    match folder.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(OpenError(format!("{}: is not a folder", folder.display()))),
        Err(error) => Err(OpenError(format!("{}: the store's folder cannot be opened: {error}", folder.display()))),
    }
}

/// Two daemons must never count in one store.
fn lock(folder: &Path) -> Result<Flock<File>, OpenError> {
    let path = folder.join(LOCK_NAME);
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o640).open(&path);
    let file = file.map_err(|error| OpenError(format!("{}: cannot be written: {error}", path.display())))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Only for people: a lock file without the number locks as well.
            let _ = lock.set_len(0).and_then(|()| lock.rewind());
            let _ = writeln!(lock, "{}", std::process::id());
            Ok(lock)
        }
        Err((mut file, _)) => {
            let mut holder = String::new();
            let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut holder);
            Err(OpenError(format!(
                "{}: is in use by another relaykeeper (process {})",
                folder.display(),
                holder.trim()
            )))
        }
    }
}

pub(in crate::ledger) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Fills the write-ahead log with zeros up to the size at which it is copied into the file and begun anew. A log that does
/// not grow takes half the time to sync: the file system has nothing of its own to write. SQLite reads a log up to
/// the first frame that is not valid, as it has to with what is left there of an earlier round.
fn make_room(log: &Path) {
    let Ok(mut file) = OpenOptions::new().append(true).open(log) else { return };
    let Ok(before) = file.metadata().map(|metadata| metadata.len()) else { return };
    let zeros = vec![0; 1 << 20];
    let mut missing = LOG_BYTES.saturating_sub(before);
    while missing > 0 {
        let length = missing.min(zeros.len() as u64);
        if file.write_all(&zeros[..length as usize]).is_err() {
            // No room: it grows as it has to.
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
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn wal_of(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
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

fn read_store_row(connection: &mut Connection) -> rusqlite::Result<([u8; 16], Option<Anchor>)> {
    let query = "SELECT hash_key, moment_ms, boot_id, since_boot_ms FROM store";
    let found = connection
        .query_row(query, [], |row| {
            let anchor = Anchor {
                moment: Moment(row.get::<_, i64>(1)? as u64),
                boot_id: row.get(2)?,
                since_boot_ms: row.get::<_, i64>(3)? as u64,
            };
            Ok((row.get(0)?, anchor))
        })
        .optional()?;
    if let Some((hash_key, anchor)) = found {
        return Ok((hash_key, Some(anchor).filter(|anchor| anchor.moment > Moment(0))));
    }
    let hash_key = random_key();
    connection.execute("INSERT INTO store VALUES (1, ?1, 0, '', 0)", [&hash_key[..]])?;
    Ok((hash_key, None))
}

/// From the kernel (random(4)); what stands in for it where that cannot be read is random too, but not as secret.
pub(in crate::ledger) fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    if File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut key)).is_err() {
        use std::hash::BuildHasher;
        let random = std::hash::RandomState::new();
        key[..8].copy_from_slice(&random.hash_one(0).to_le_bytes());
        key[8..].copy_from_slice(&random.hash_one(1).to_le_bytes());
    }
    key
}

pub(in crate::ledger) fn explain(path: &Path, error: rusqlite::Error) -> OpenError {
    OpenError(format!("{}: {}", path.display(), in_words(&error)))
}

/// What is wrong, in an administrator's words.
pub(in crate::ledger) fn in_words(error: &rusqlite::Error) -> String {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "; the file is damaged: restore it, or move it away to count from nothing"
        }
        Some(ErrorCode::DiskFull) => "; make room, counting goes on by itself",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program holds it",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; check who owns the file and its folder, and whether the disk is mounted for writing"
        }
        Some(ErrorCode::SystemIoFailure) => "; check the disk and the kernel's messages",
        _ => "",
    };
    format!("{error}{advice}")
}
