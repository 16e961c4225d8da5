//! What is wrong with a database, in an administrator's words.

use crate::ledger::{OpenError, StoreError};
use nix::sys::statvfs::statvfs;
use rusqlite::{Error, ErrorCode};
use std::path::Path;

/// With less space than this SQLite cannot even open a database: it needs a few pages for its log and its shared memory.
const LEAST_SPACE: u64 = 256 << 10;

/// For whoever waits for the file.
pub(in crate::ledger) fn store_error(path: &Path, error: Error) -> StoreError {
    let mut message = in_words(path, &error);
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        message.push_str(", counting then resumes by itself");
    }
    let is_damaged = matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt));
    StoreError::caused_by(error, message, !is_damaged)
}

/// For whoever opens it.
pub(in crate::ledger) fn explain(path: &Path, error: Error) -> OpenError {
    OpenError(format!("{}: {}", path.display(), in_words(path, &error)))
}

fn in_words(path: &Path, error: &Error) -> String {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "; the file is damaged: restore it, or move it away to count from nothing"
        }
        Some(ErrorCode::DiskFull) => "; free some disk space",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program has locked it",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; check who owns the file and its folder, and whether the file system is mounted read-only"
        }
        Some(ErrorCode::SystemIoFailure) => match no_space(path) {
            // SQLite reports a full disk as an I/O error where it enlarges its shared memory.
            Some(what) => return format!("the disk is full ({what}); free some disk space"),
            None => "; check the disk and the kernel's messages",
        },
        _ => "",
    };
    format!("{error}{advice}")
}

/// What the file system of a file has run out of.
fn no_space(path: &Path) -> Option<String> {
    let found = statvfs(path.parent()?).ok()?;
    // Types differ between platforms.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "32 bits on some platforms")]
    let (free, inodes) =
        (found.blocks_available() as u64 * found.fragment_size() as u64, found.files_available() as u64);
    if free < LEAST_SPACE {
        return Some(format!("{} KiB left", free >> 10));
    }
    // File systems without a fixed number of inodes report 0 of 0.
    (inodes == 0 && found.files() > 0).then(|| "no inodes left".to_owned())
}
