//! Writes an archive.

use super::{BackupError, FORM, MARKER, MAX_FILES, Marker, SUMS, is_left_out};
use crate::files::sync_folder;
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon may hold a database up.
const BUSY: Duration = Duration::from_secs(30);

/// What was saved.
#[derive(Debug, PartialEq, Eq)]
pub struct Saved {
    pub files: usize,
    pub bytes: u64,
}

/// Saves the store in `folder` as the file `to`, whether a daemon writes it or not. A backup that is there already is
/// replaced, once the new one is whole and on disk; no other file is.
///
/// # Errors
/// Something cannot be read or written; `to` is as it was then.
pub fn save(folder: &Path, to: &Path) -> Result<Saved, BackupError> {
    check_target(to)?;
    let names = names(folder)?;
    let new = PathBuf::from(format!("{}.new", to.display()));
    let _ = fs::remove_file(&new);
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new);
    let file = file.map_err(|error| BackupError::of(&new, format_args!("cannot be written: {error}")))?;
    let unwritable = |error: io::Error| BackupError::of(to, format_args!("cannot be written: {error}"));
    let written = write(folder, &names, to, file).and_then(|saved| {
        fs::rename(&new, to).map_err(unwritable)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent).map_err(unwritable)?;
        Ok(saved)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// An existing file must be a backup.
fn check_target(to: &Path) -> Result<(), BackupError> {
    match File::open(to) {
        Ok(file) => {
            let mut archive = tar::Archive::new(file);
            let first = archive.entries().ok().and_then(|mut entries| entries.next()?.ok());
            let is_ours = first.is_some_and(|entry| entry.path().is_ok_and(|path| path == Path::new(MARKER)));
            match is_ours {
                true => Ok(()),
                false => Err(BackupError::of(to, "exists and is no backup; choose another name")),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::of(to, error)),
    }
}

/// In the order in which they are saved. The state of the orders comes before the audit log: what is written to that
/// meanwhile is more than the state knows, which a daemon that starts carries out, and never less.
fn names(folder: &Path) -> Result<Vec<String>, BackupError> {
    let unreadable = |error: io::Error| BackupError::of(folder, format_args!("the store cannot be read: {error}"));
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file_type = entry.file_type().map_err(unreadable)?;
        if is_left_out(&name) {
            continue;
        }
        if file_type.is_dir() {
            let within = fs::read_dir(entry.path()).map_err(unreadable)?;
            for inner in within {
                let inner = inner.map_err(unreadable)?;
                let inner_name = inner.file_name().to_string_lossy().into_owned();
                if inner.file_type().map_err(unreadable)?.is_file() && !is_left_out(&inner_name) {
                    names.push(format!("{name}/{inner_name}"));
                }
            }
        } else if file_type.is_file() {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (name != "administration.json", name.clone()));
    match names.len() {
        0 => Err(BackupError::of(folder, "there is no store yet; the daemon makes it when it first starts")),
        1..=MAX_FILES => Ok(names),
        many => Err(BackupError::of(folder, format_args!("has {many} files, and a store has {MAX_FILES} at most"))),
    }
}

fn write(folder: &Path, names: &[String], to: &Path, file: File) -> Result<Saved, BackupError> {
    let unwritable = |error: io::Error| BackupError::of(to, format_args!("cannot be written: {error}"));
    let made = jiff::Timestamp::now();
    let marker = Marker { form: FORM, relaykeeper: env!("CARGO_PKG_VERSION").into(), made: made.to_string() };
    let marker = serde_json::to_vec(&marker).map_err(|error| unwritable(error.into()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    append(&mut archive, MARKER, made, marker.len() as u64, &marker[..]).map_err(unwritable)?;
    let (mut sums, mut saved) = (String::new(), Saved { files: 0, bytes: 0 });
    for name in names {
        let from = folder.join(name);
        let unreadable =
            |error: &dyn std::fmt::Display| BackupError::of(&from, format_args!("cannot be read: {error}"));
        let snapshot = Snapshot::beside(to);
        let source = match name.ends_with(".db") {
            true => snapshot.take(&from).map_err(|error| unreadable(&error))?,
            false => from.as_path(),
        };
        let file = match File::open(source) {
            Ok(file) => file,
            // The daemon has replaced or removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(&error)),
        };
        // What is appended from now on is not part of it.
        let length = file.metadata().map_err(|error| unreadable(&error))?.len();
        let mut hashed = Hashed { of: BufReader::new(file.take(length)), hash: Sha256::new() };
        append(&mut archive, name, made, length, &mut hashed).map_err(unwritable)?;
        sums += &format!("{}  {name}\n", hex(hashed.hash));
        saved.files += 1;
        saved.bytes += length;
    }
    append(&mut archive, SUMS, made, sums.len() as u64, sums.as_bytes()).map_err(unwritable)?;
    let file = archive.into_inner().and_then(|writer| writer.into_inner().map_err(|error| error.into_error()));
    file.and_then(|file| file.sync_all()).map_err(unwritable)?;
    Ok(saved)
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    made: jiff::Timestamp,
    length: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_mtime(made.as_second().try_into().unwrap_or(0));
    header.set_size(length);
    archive.append_data(&mut header, name, content)
}

pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads, and hashes what was read.
pub(super) struct Hashed<R> {
    pub of: R,
    pub hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.of.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// A database as it is at one moment, in a file of its own beside the backup; removed on drop.
struct Snapshot(PathBuf);

impl Snapshot {
    fn beside(to: &Path) -> Snapshot {
        Snapshot(PathBuf::from(format!("{}.snapshot", to.display())))
    }

    fn take(&self, from: &Path) -> rusqlite::Result<&Path> {
        let _ = fs::remove_file(&self.0);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(from, flags)?;
        database.busy_timeout(BUSY)?;
        // Made here, as SQLite would let others read it.
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&self.0);
        made.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        database.execute("VACUUM INTO ?1", [self.0.to_string_lossy()])?;
        Ok(&self.0)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
