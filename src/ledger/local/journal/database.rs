//! A database file for one daemon: its lock, its connection, and what can be wrong with its folder.

use super::sqlite_error::explain;
use crate::clock::{Anchor, Clock, Moment};
use crate::files::{self, denied};
use crate::ledger::OpenError;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, posix_fallocate};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi, params};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_NAME: &str = "ledger.lock";
const SPACE_NAME: &str = "ledger.space";

/// What a start needs for an empty database, a short log and shared memory, in bytes.
const LEAST_SPACE: usize = 256 << 10;

/// The index of a log of 12,000 pages, in bytes (sqlite.org, "WAL-mode File Format", 2).
const SHARED_MEMORY: i64 = 96 << 10;

/// How long another program, such as an administrator's sqlite3(1), may hold the file up.
pub(in crate::ledger) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::ledger) struct Database {
    pub connection: Connection,
    path: PathBuf,
    /// The log is copied into the file once it has this many pages.
    checkpoint_pages: i64,
    lock: Flock<File>,
}

impl Database {
    /// Opens a database in a folder for the one daemon that writes it; an empty one if there is none.
    ///
    /// # Errors
    /// The folder is missing or cannot be written, another daemon uses it, or the file is no database.
    pub fn open(folder: &Path, name: &str, checkpoint_pages: i64) -> Result<Database, OpenError> {
        check_folder(folder)?;
        let lock = lock(folder)?;
        check_space(folder)?;
        let path = folder.join(name);
        // SQLite itself would leave its mode to the umask.
        files::ensure_private(&path, files::Access::Group).map_err(|error| cannot_write(&path, &error))?;
        let connection = connect(&path).map_err(|error| explain(&path, error))?;
        allocate_shared_memory(&path)?;
        Ok(Database { connection, path, checkpoint_pages, lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finds out whether the file system accepts any writes, before SQLite does: SQLite shares `*.db-shm` with other programs
    /// as mapped memory, and to write there is no error on a file system that has become read-only, but a signal that ends the
    /// process (SIGBUS, mmap(2)).
    pub fn check_writable(&self) -> rusqlite::Result<()> {
        let written = self.lock.write_at(std::process::id().to_string().as_bytes(), 0);
        written.map(drop).map_err(|error| {
            let code = match error.kind() {
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => ffi::SQLITE_READONLY,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ffi::SQLITE_FULL,
                _ => ffi::SQLITE_IOERR,
            };
            rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(error.to_string()))
        })
    }

    /// Opens the file anew after an error.
    pub fn reconnect(&mut self) -> rusqlite::Result<()> {
        // A transaction that it began must not block the new connection.
        let _ = self.connection.execute_batch("ROLLBACK");
        self.connection = connect(&self.path)?;
        Ok(())
    }

    /// Copies the log into the file if it has grown long.
    pub fn checkpoint_if_due(&self) -> rusqlite::Result<()> {
        let pages = |mode| self.connection.query_row(mode, [], |row| row.get::<_, i64>(1));
        if pages("PRAGMA wal_checkpoint(NOOP)")? >= self.checkpoint_pages {
            pages("PRAGMA wal_checkpoint(PASSIVE)")?;
        }
        Ok(())
    }

    /// Leaves one plain file, and lets the next daemon in.
    pub fn close(self) {
        if self.check_writable().is_ok() {
            // If this fails, the next start reads what the log still holds.
            let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        } else {
            // SQLite itself does the same when the last connection is closed.
            let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
        let _ = self.connection.close();
        drop(self.lock);
    }
}

fn check_folder(folder: &Path) -> Result<(), OpenError> {
    match folder.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(OpenError(format!("{}: is not a folder", folder.display()))),
        Err(error) => {
            let error = denied::own_file(folder, error);
            Err(OpenError(format!("{}: the store's folder cannot be opened: {error}", folder.display())))
        }
    }
}

/// Two daemons must never count in one store.
pub(in crate::ledger) fn lock(folder: &Path) -> Result<Flock<File>, OpenError> {
    let path = folder.join(LOCK_NAME);
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o640).open(&path);
    let file = file.map_err(|error| cannot_write(&path, &denied::own_file(&path, error)))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For people, who also learn from it that the disk is full.
            let written =
                lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
            written.map_err(|error| cannot_write(&path, &error))?;
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

/// Finds out whether the disk has the space that SQLite needs for a start. Where it has not, SQLite's error names no cause; and
/// with blocks that are smaller than pages of memory it would end the process (SIGBUS) when it uses its shared memory.
fn check_space(folder: &Path) -> Result<(), OpenError> {
    let path = folder.join(SPACE_NAME);
    let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
    let written = written.and_then(|mut file| file.write_all(&vec![0; LEAST_SPACE]));
    let _ = std::fs::remove_file(&path);
    written.map_err(|error| cannot_write(folder, &denied::own_file(folder, error)))
}

/// Gives the shared memory that SQLite has just created all of its blocks, so that a disk that fills up later does not end the
/// process when it is written to.
fn allocate_shared_memory(path: &Path) -> Result<(), OpenError> {
    let mut shared = path.as_os_str().to_owned();
    shared.push("-shm");
    let Ok(file) = OpenOptions::new().write(true).open(&shared) else { return Ok(()) };
    match posix_fallocate(&file, 0, SHARED_MEMORY) {
        Err(error @ (Errno::ENOSPC | Errno::EDQUOT)) => Err(cannot_write(path, &error.into())),
        // Some file systems cannot do that.
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> OpenError {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free some disk space, at least 1 MiB",
        _ => "",
    };
    OpenError(format!("{}: cannot be written: {error}{advice}", path.display()))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
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

/// Stores where the time line stands, in the columns that every database here has in its table `store`.
pub(super) fn write_anchor(connection: &Connection, clock: &dyn Clock) -> rusqlite::Result<()> {
    let anchor = clock.anchor();
    connection
        .prepare_cached("UPDATE store SET moment_ms = ?1, boot_id = ?2, since_boot_ms = ?3")?
        .execute(params![anchor.moment.0 as i64, anchor.boot_id, anchor.since_boot_ms as i64])?;
    Ok(())
}

/// `None`: nothing was written yet.
pub(in crate::ledger) fn read_anchor(connection: &Connection) -> rusqlite::Result<Option<Anchor>> {
    connection.query_row("SELECT moment_ms, boot_id, since_boot_ms FROM store", [], |row| {
        let moment = Moment(row.get::<_, i64>(0)? as u64);
        let anchor = Anchor { moment, boot_id: row.get(1)?, since_boot_ms: row.get::<_, i64>(2)? as u64 };
        Ok(Some(anchor).filter(|anchor| anchor.moment > Moment(0)))
    })
}

/// From the kernel (random(4)). Where that cannot be read the key is random, too, but not as secret.
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
