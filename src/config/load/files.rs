//! The files of a configuration: which there are, and whether they changed.

use crate::config::reading::{Diagnostic, Location, quoted};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The most files in the folder; far more than fit into memory.
const MAX_FILES: usize = 10_000_000;

/// What is in the folder of customer files, sorted by name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// `*.toml`. Hidden files are left out, and so are editors' backups, which end differently (`acme.toml~`,
    /// `#acme.toml#`).
    pub customers: Vec<Arc<Path>>,
    /// Names of everything else that is neither hidden, nor a backup, nor a README.
    pub others: Vec<OsString>,
}

/// The customer files in a folder.
pub(super) fn customer_files(folder: &Path) -> Result<Vec<Arc<Path>>, Diagnostic> {
    Ok(list_folder(folder)?.customers)
}

/// All that is in the folder.
pub(super) fn list_folder(folder: &Path) -> Result<Listing, Diagnostic> {
    let unreadable = |error: io::Error| {
        let name = quoted(&folder.to_string_lossy());
        let diagnostic = Diagnostic::error(format!("the folder of customers {name} cannot be read: {error}"));
        diagnostic.at(Location::file(folder.into(), "")).help("relay.customers sets it, relative to the main file")
    };
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        match name.as_bytes() {
            [b'.' | b'#', ..] | [.., b'~'] => {}
            name_bytes if name_bytes.ends_with(b".toml") => listing.customers.push(folder.join(name).into()),
            name_bytes if name_bytes.starts_with(b"README") => {}
            _ => listing.others.push(name),
        }
        if listing.customers.len() + listing.others.len() > MAX_FILES {
            let diagnostic = Diagnostic::error(format!("there are more than {MAX_FILES} files"));
            return Err(diagnostic.at(Location::file(folder.into(), "")));
        }
    }
    listing.customers.sort();
    listing.others.sort();
    Ok(listing)
}

/// What changes when a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attributes {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// How long ago a file must have changed before a further change is sure to show in its time stamps, which may have a
/// granularity of two seconds.
const SETTLED: Duration = Duration::from_secs(3);

/// A file's attributes from before it was read.
#[derive(Clone, Debug)]
pub(super) struct FileStamp {
    path: Arc<Path>,
    /// `None`: it was not there.
    attributes: Option<Attributes>,
    /// A further change is sure to show.
    is_settled: bool,
}

impl FileStamp {
    pub fn of(path: impl Into<Arc<Path>>, now: SystemTime) -> FileStamp {
        let path = path.into();
        let attributes = attributes_of(&path);
        let is_settled = attributes.is_some_and(|attributes| {
            let changed = Duration::new(attributes.ctime.0.max(0) as u64, attributes.ctime.1 as u32);
            now.duration_since(SystemTime::UNIX_EPOCH + changed).is_ok_and(|age| age > SETTLED)
        });
        FileStamp { path, attributes, is_settled }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file certainly has not changed since.
    pub fn is_unchanged(&self) -> bool {
        self.is_settled && !self.has_changed()
    }

    /// Whether the file certainly has changed since.
    pub fn has_changed(&self) -> bool {
        self.attributes != attributes_of(&self.path)
    }
}

fn attributes_of(path: &Path) -> Option<Attributes> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Attributes {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        mode: metadata.mode(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        ctime: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_toml_files_sorted_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", ".hidden.toml", "a.toml~", "#a.toml#", "a.toml.bak", "a.users", ".#a.toml"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = customer_files(folder.path()).unwrap();
        assert_eq!(names, [folder.path().join("a.toml").into(), folder.path().join("b.toml").into()] as [Arc<Path>; 2]);
        let error = customer_files(&folder.path().join("none")).unwrap_err();
        assert!(error.title.contains("none"), "{}", error.title);
    }

    #[test]
    fn a_file_that_only_just_changed_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "a").unwrap();
        let now = SystemTime::now();
        assert!(!FileStamp::of(path.clone(), now).is_unchanged());
        let later = FileStamp::of(path.clone(), now + 2 * SETTLED);
        assert!(later.is_unchanged());
        std::fs::write(&path, "ab").unwrap();
        assert!(!later.is_unchanged());
        assert!(!FileStamp::of(folder.path().join("none"), now).is_unchanged());
    }
}
