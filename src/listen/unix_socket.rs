//! The file of a unix socket that we listen on.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixSocket};

use super::bind::{BACKLOG, Problem, SocketOptions};
use super::kept::{KeptSockets, Place};

/// The file of a listening socket; removed on drop, unless systemd keeps the socket or somebody else's file has its name by
/// then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    is_kept: bool,
    /// Device and inode. The inode cannot be given to another file while the socket is open, so this must be
    /// dropped before the socket.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_kept && identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`.
///
/// The socket is made under another name, gets its mode and group, and only then its own name, in one step: nobody
/// ever meets it with wrong permissions, and a file that a dead process left is replaced without a gap.
pub(super) fn listen(
    path: &Path,
    options: &SocketOptions,
    kept: &mut KeptSockets,
) -> Result<(SocketFile, UnixListener), Problem> {
    if let Some(taken) = take(path, options, kept)? {
        return Ok(taken);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Problem::NotAFolder { folder: folder.to_owned() }),
        Err(error) => return Err(Problem::from_folder(folder, error)),
    }
    make_way(path)?;

    let temporary = Temporary::new(folder);
    let socket = UnixSocket::new_stream().map_err(Problem::System)?;
    socket.bind(&temporary.path).map_err(|error| Problem::from_folder(folder, error))?;
    set_permissions(&temporary.path, options)?;
    let listener = socket.listen(BACKLOG).map_err(Problem::System)?;
    let identity = identity(&temporary.path).map_err(Problem::System)?;
    fs::rename(&temporary.path, path).map_err(|error| Problem::from_folder(folder, error))?;
    let place = Place::Unix { path: path.to_owned(), identity: Some(identity) };
    let is_kept = kept.keep(&place, listener.as_fd());
    Ok((SocketFile { path: path.to_owned(), is_kept, identity }, listener))
}

/// Goes on with a socket that systemd kept or made, if there is one for `path`.
fn take(
    path: &Path,
    options: &SocketOptions,
    kept: &mut KeptSockets,
) -> Result<Option<(SocketFile, UnixListener)>, Problem> {
    let Ok(identity) = identity(path) else { return Ok(None) };
    let Some(socket) = kept.take_unix(path, Some(identity)) else { return Ok(None) };
    let socket = std::os::unix::net::UnixListener::from(socket);
    socket.set_nonblocking(true).map_err(Problem::System)?;
    // They may have been others before. A socket that systemd made belongs to root, and has those of its unit.
    match set_permissions(path, options) {
        Err(Problem::System(error)) if error.kind() == ErrorKind::PermissionDenied => {}
        other => other?,
    }
    let listener = UnixListener::from_std(socket).map_err(Problem::System)?;
    Ok(Some((SocketFile { path: path.to_owned(), is_kept: true, identity }, listener)))
}

/// Makes sure that nothing is at `path` but perhaps the socket of a process that is gone.
fn make_way(path: &Path) -> Result<(), Problem> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(Problem::NotASocket),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Problem::System(error)),
    }
    match try_to_connect(path) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        Err(Errno::EACCES) => Err(Problem::ForeignSocket),
        // Connected, a full backlog (EAGAIN), a socket of another kind (EPROTOTYPE): somebody is there.
        _ => Err(Problem::InUse),
    }
}

/// Without waiting, as a process that hangs does not accept.
fn try_to_connect(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn set_permissions(path: &Path, options: &SocketOptions) -> Result<(), Problem> {
    if let Some(name) = &options.group {
        let group = Group::from_name(name)
            .map_err(|error| Problem::System(error.into()))?
            .ok_or_else(|| Problem::UnknownGroup { group: name.clone() })?;
        chown(path, None, Some(group.gid)).map_err(|error| match error {
            Errno::EPERM => Problem::NotOurGroup { group: name.clone() },
            other => Problem::System(other.into()),
        })?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(options.mode & 0o777)).map_err(Problem::System)
}

/// Device and inode.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A short name of our own in the same folder; the file is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn new(folder: &Path) -> Temporary {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{:x}.{number:x}", process::id()));
        // Left by a process of the same number that was killed at the wrong moment.
        let _ = fs::remove_file(&path);
        Temporary { path }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
