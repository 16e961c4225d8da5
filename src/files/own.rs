//! relaykeeper's own files. Whatever the umask, others can neither read nor change them, and they survive a loss of power.

use super::denied;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file that relaykeeper creates; only its owner may write. A stricter umask takes away more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Mode 0600.
    Owner,
    /// Mode 0640: commands of the group's members can read it without the daemon.
    Group,
}

/// The most that any file of ours may have.
const WIDEST: u32 = 0o640;

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Access::Owner => 0o600,
            Access::Group => 0o640,
        }
    }
}

/// Opens a file for reading and appending, and creates it if there is none. One that is open to others (an older version
/// made it, or somebody changed its mode) is closed to them.
///
/// # Errors
/// It cannot be opened.
pub fn append(path: &Path, access: Access) -> io::Result<File> {
    let opened = OpenOptions::new().create(true).read(true).append(true).mode(access.mode()).open(path);
    let file = opened.map_err(|error| denied::own_file(path, error))?;
    close_to_others(&file)?;
    Ok(file)
}

/// Opens a file for reading.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path).map_err(|error| denied::own_file(path, error))
}

/// Creates an empty file if there is none, for a library that opens it by its name: SQLite gives the files beside it
/// (`-wal`, `-shm`, `-journal`) the same mode.
///
/// # Errors
/// It cannot be opened.
pub fn ensure_private(path: &Path, access: Access) -> io::Result<()> {
    append(path, access)?;
    for suffix in ["-wal", "-shm"] {
        let beside = with_suffix(path, suffix);
        match OpenOptions::new().read(true).open(&beside) {
            Ok(file) => close_to_others(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(denied::own_file(&beside, error)),
        }
    }
    Ok(())
}

/// Replaces a file; when this returns, the new content is on disk. A failure leaves the old file.
///
/// # Errors
/// It cannot be written.
pub fn replace(path: &Path, access: Access, content: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let new = with_suffix(&folder.join(hidden), ".new");
    // What a crash left behind may have another mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(denied::own_file(path, error)),
        _ => {}
    }
    let created = OpenOptions::new().create_new(true).write(true).mode(access.mode()).open(&new);
    let mut file = created.map_err(|error| denied::own_file(&new, error))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_folder(folder)
}

/// Makes names that were created or changed in a folder survive a loss of power (fsync(2)).
///
/// # Errors
/// The folder cannot be opened or written.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).map_err(|error| denied::own_file(folder, error))?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn close_to_others(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    if mode & !WIDEST == 0 || !file.metadata()?.is_file() {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(mode & WIDEST)) {
        // Its owner chose this, and is somebody else.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_that_is_open_to_others_is_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        for (name, before, expected) in [("a.db", 0o644, 0o640), ("a.db-wal", 0o666, 0o640), ("a.db-shm", 0o600, 0o600)]
        {
            std::fs::write(folder.path().join(name), "content").unwrap();
            std::fs::set_permissions(folder.path().join(name), Permissions::from_mode(before)).unwrap();
            ensure_private(&path, Access::Group).unwrap();
            assert_eq!(mode(&folder.path().join(name)), expected, "{name}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "content");
    }

    #[test]
    fn a_replacement_has_its_own_mode_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(folder.path().join(".state.new"), "left by a crash").unwrap();
        for content in ["one", "two"] {
            replace(&path, Access::Owner, content.as_bytes()).unwrap();
            assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), (content, 0o600));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
