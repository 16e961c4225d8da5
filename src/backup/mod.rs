//! A store in one file: counts, orders, audit log, hash key and decisions, written while the daemon runs, and put back while
//! none does.
//!
//! The file is a tar archive that `tar` and `sha256sum` can read, too: a marker with the version first, then the files of the store, and
//! `SHA256SUMS` last, without which a backup is not whole.
//!
//! ```text
//!   save      the files of a store → an archive
//!   restore   an archive → the files of a store
//! ```

mod restore;
mod save;

pub use restore::{Restored, restore};
pub use save::{Saved, save};

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The first file of an archive: what it is.
const MARKER: &str = "relaykeeper-backup.json";

/// The last file of an archive: the SHA-256 of each, in the form that sha256sum(1) reads.
const SUMS: &str = "SHA256SUMS";

/// The form of archives that this version reads and writes.
const FORM: u32 = 1;

/// The most files in an archive. A store has about ten.
const MAX_FILES: usize = 10_000;

/// Where a restore puts what was there before.
const BEFORE: &str = "before-restore-";

/// Keeps a second daemon, and a restore, away from a store; stays where it is.
const LOCK: &str = "ledger.lock";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    form: u32,
    /// The version of relaykeeper that wrote it.
    relaykeeper: String,
    /// When (RFC 3339).
    made: String,
}

/// Why a backup cannot be made or put back: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BackupError(String);

impl BackupError {
    fn of(path: &Path, what: impl std::fmt::Display) -> BackupError {
        BackupError(format!("{}: {what}", path.display()))
    }
}

/// What is not part of a store: locks, what SQLite makes anew, files that are being written, and earlier restores.
fn is_left_out(name: &str) -> bool {
    name == LOCK
        || name.starts_with('.')
        || name.starts_with(BEFORE)
        || ["-wal", "-shm", "-journal"].iter().any(|suffix| name.ends_with(suffix))
}
