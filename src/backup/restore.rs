//! Puts back what an archive holds.

use super::save::{Hashed, hex};
use super::{BEFORE, BackupError, FORM, LOCK, MARKER, MAX_FILES, Marker, SUMS, is_left_out};
use crate::administration::read_anchor;
use crate::audit::{self, Action, Anchor, AuditLog, Instruction};
use crate::files::{open_regular, sync_folder};
use crate::ledger;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};

/// Larger ones are not read: no relaykeeper wrote them.
const MAX_MARKER: u64 = 64 << 10;
const MAX_SUMS: u64 = 16 << 20;

/// What was put back.
#[derive(Debug)]
pub struct Restored {
    pub files: usize,
    /// When the backup was made (RFC 3339), and by which version.
    pub made: String,
    pub by: String,
    /// Where the store is that was there before; `None` if there was none.
    pub before: Option<PathBuf>,
}

/// Replaces the store in `folder` by the one in `from`. Nothing is changed before all of the backup is read and proves to be
/// whole and readable by this version; what was there is moved aside. The audit log of the restored store says so.
///
/// # Errors
/// A daemon runs, the backup is damaged or from a newer version, or something cannot be written.
pub fn restore(folder: &Path, from: &Path, order: &Instruction) -> Result<Restored, BackupError> {
    let _lock = ledger::lock_store(folder).map_err(|error| BackupError(format!("{error}; stop it first")))?;
    let new = folder.join(".restore.new");
    let _ = fs::remove_dir_all(&new);
    let unwritable = |error: io::Error| BackupError::of(&new, format_args!("cannot be written: {error}"));
    fs::create_dir(&new).map_err(unwritable)?;
    let restored = unpack(from, &new).and_then(|(marker, mut names)| {
        check(&new)?;
        record(folder, &new, &marker, order)?;
        let restored_files = names.len();
        if !names.iter().any(|name| name == audit::FILE_NAME) {
            names.push(audit::FILE_NAME.to_owned());
        }
        give_to_owner(folder, &new, &names).map_err(unwritable)?;
        let before = exchange(folder, &new, &marker.made)
            .map_err(|error| BackupError::of(folder, format_args!("cannot be written: {error}")))?;
        Ok(Restored { files: restored_files, made: marker.made, by: marker.relaykeeper, before })
    });
    let _ = fs::remove_dir_all(&new);
    restored
}

fn unpack(from: &Path, to: &Path) -> Result<(Marker, Vec<String>), BackupError> {
    let damaged = |what: &str| BackupError::of(from, format_args!("is no whole backup: {what}"));
    let unreadable = |error: io::Error| BackupError::of(from, format_args!("cannot be read: {error}"));
    let mut archive = tar::Archive::new(BufReader::new(File::open(from).map_err(unreadable)?));
    let (mut marker, mut sums, mut found) = (None, None, BTreeMap::new());
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let Some(name) = path.to_str().map(str::to_owned) else { return Err(damaged("a name is not text")) };
        if sums.is_some() || (marker.is_none() && name != MARKER) || found.len() >= MAX_FILES {
            return Err(damaged(&format!("{} is out of place", name.escape_debug())));
        }
        match name.as_str() {
            MARKER => marker = Some(read_marker(from, &mut entry)?),
            SUMS => {
                let mut text = String::new();
                entry.take(MAX_SUMS).read_to_string(&mut text).map_err(unreadable)?;
                sums = Some(text);
            }
            _ => {
                let is_file = entry.header().entry_type().is_file();
                if !is_file || !is_plain(&path) || found.contains_key(&name) {
                    return Err(damaged(&format!("{} is not a file of a store", name.escape_debug())));
                }
                let target = to.join(&path);
                let sum = write(entry, &target)
                    .map_err(|error| BackupError::of(&target, format_args!("cannot be written: {error}")))?;
                found.insert(name, sum);
            }
        }
    }
    let (Some(marker), Some(sums)) = (marker, sums) else { return Err(damaged("its end is missing")) };
    let expected: BTreeMap<_, _> = sums
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect();
    if expected != found {
        return Err(damaged("its checksums do not match"));
    }
    Ok((marker, found.into_keys().collect()))
}

fn read_marker(from: &Path, entry: &mut impl Read) -> Result<Marker, BackupError> {
    let mut text = String::new();
    let marker = entry.take(MAX_MARKER).read_to_string(&mut text).ok();
    let marker = marker.and_then(|_| serde_json::from_str::<Marker>(&text).ok());
    match marker {
        None => Err(BackupError::of(from, "is no backup of relaykeeper")),
        Some(Marker { form, relaykeeper, .. }) if form > FORM => {
            let what =
                format_args!("was made by a newer relaykeeper ({}); restore it with that", relaykeeper.escape_debug());
            Err(BackupError::of(from, what))
        }
        Some(marker) => Ok(marker),
    }
}

/// A name in the folder, or in one folder of it.
fn is_plain(path: &Path) -> bool {
    let parts: Option<Vec<_>> = path
        .components()
        .map(|part| match part {
            Component::Normal(name) => name.to_str().filter(|name| !is_left_out(name)),
            _ => None,
        })
        .collect();
    parts.is_some_and(|parts| matches!(parts.len(), 1 | 2))
}

fn write(content: impl Read, to: &Path) -> io::Result<String> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut content = Hashed { of: content, hash: Sha256::new() };
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    io::copy(&mut content, &mut file)?;
    file.sync_all()?;
    Ok(hex(content.hash))
}

/// Whether this version reads what is in the folder.
fn check(folder: &Path) -> Result<(), BackupError> {
    if folder.join("ledger.db").exists() {
        ledger::check_store(folder).map_err(|error| BackupError(error.to_string()))?;
    }
    read_anchor(folder).map_err(|error| BackupError(error.to_string()))?;
    Ok(())
}

/// Appends to the audit log in `new` that it takes the place of the one in `folder`.
fn record(folder: &Path, new: &Path, marker: &Marker, order: &Instruction) -> Result<(), BackupError> {
    let failed = |error: &dyn std::error::Error| BackupError(error.to_string());
    let anchor = read_anchor(new).map_err(|error| failed(&error))?;
    let replaced = end_of_log(&folder.join(audit::FILE_NAME));
    let action = Action::Restore { made: marker.made.clone(), version: marker.relaykeeper.clone(), replaced };
    let mut log = AuditLog::open(new, &anchor, |_| {}).map_err(|error| failed(&error))?;
    log.append(order, &[action]).map_err(|error| failed(&error))?;
    Ok(())
}

/// The last record of a log; `None` if it has none, or cannot be read, which may be why a backup is restored.
fn end_of_log(path: &Path) -> Option<Anchor> {
    let log = BufReader::new(open_regular(path).ok()?);
    let last = audit::verify(log, &Anchor::default(), |_| {}).ok()?.last;
    (last.records > 0).then_some(last)
}

/// Run by root, it leaves files that the daemon's user can write: the folder's owner.
fn give_to_owner(folder: &Path, new: &Path, names: &[String]) -> io::Result<()> {
    let owner = folder.metadata()?;
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for name in names {
        let path = new.join(name);
        chown(&path, Some(owner.uid()), Some(owner.gid()))?;
        if let Some(parent) = path.parent().filter(|parent| *parent != new) {
            chown(parent, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// Moves what is there aside, and the new files in.
fn exchange(folder: &Path, new: &Path, made: &str) -> io::Result<Option<PathBuf>> {
    let before = folder.join(format!("{BEFORE}{}", made.replace(':', "")));
    let mut number = 0;
    let mut aside = before.clone();
    while aside.exists() {
        number += 1;
        aside = PathBuf::from(format!("{}.{number}", before.display()));
    }
    let mut moved = false;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text == LOCK || text.starts_with(BEFORE) || text.starts_with('.') {
            continue;
        }
        if !moved {
            fs::create_dir(&aside)?;
            moved = true;
        }
        fs::rename(folder.join(&name), aside.join(&name))?;
    }
    for entry in fs::read_dir(new)? {
        let name = entry?.file_name();
        fs::rename(new.join(&name), folder.join(&name))?;
    }
    sync_folder(folder)?;
    Ok(moved.then_some(aside))
}
