//! The file of a unix socket that we listen on.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Group, Uid, User, fchownat, getegid, geteuid};
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
    check_folder(folder, options)?;
    make_way(path)?;

    let temporary = Temporary::new(folder);
    let socket = UnixSocket::new_stream().map_err(Problem::System)?;
    socket.bind(&temporary.path).map_err(|error| Problem::from_folder(folder, error))?;
    let identity = set_permissions(&temporary.path, None, options)?;
    let listener = socket.listen(BACKLOG).map_err(Problem::System)?;
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
    match set_permissions(path, Some(identity), options) {
        Err(Problem::System(error)) if error.kind() == ErrorKind::PermissionDenied => {}
        other => _ = other?,
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

/// Gives the file its mode, group and owner, and says which one it is.
///
/// By a descriptor, not by its name: where the folder belongs to somebody else, the name may lead to another file by now. What
/// we did not make (`known` aside) is left alone.
fn set_permissions(path: &Path, known: Option<(u64, u64)>, options: &SocketOptions) -> Result<(u64, u64), Problem> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|error| Problem::from_folder(folder, error.into()))?;
    let file = fs::File::from(file);
    let metadata = file.metadata().map_err(Problem::System)?;
    let identity = (metadata.dev(), metadata.ino());
    let is_ours = known.map_or(metadata.uid() == geteuid().as_raw(), |known| known == identity);
    if !is_ours || !metadata.file_type().is_socket() || metadata.nlink() != 1 {
        return Err(Problem::Replaced { folder: folder.to_owned() });
    }
    // fchmod(2) does not take such a descriptor, but the kernel's link to it leads to the file itself.
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(link, fs::Permissions::from_mode(options.mode & 0o777)).map_err(Problem::System)?;
    let group = match &options.group {
        None => None,
        Some(name) => {
            let found = Group::from_name(name).map_err(|error| Problem::System(error.into()))?;
            Some(found.ok_or_else(|| Problem::UnknownGroup { group: name.clone() })?.gid)
        }
    };
    let owner = options.owner.map(Uid::from_raw);
    if group.is_some() || owner.is_some() {
        fchownat(&file, "", owner, group, AtFlags::AT_EMPTY_PATH).map_err(|error| match (error, &options.group) {
            (Errno::EPERM, Some(group)) => Problem::NotOurGroup { group: group.clone() },
            (other, _) => Problem::System(other.into()),
        })?;
    }
    Ok(identity)
}

/// Whether this process, if it may write there, may make sockets in a folder.
///
/// # Errors
/// There is no such folder, or others could replace the socket.
pub fn check_folder(folder: &Path, options: &SocketOptions) -> Result<(), Problem> {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => refuse_open_folder(folder, &metadata, options),
        Ok(_) => Err(Problem::NotAFolder { folder: folder.to_owned() }),
        Err(error) => Err(Problem::from_folder(folder, error)),
    }
}

/// In a folder with the sticky bit nobody can replace what belongs to somebody else.
fn refuse_open_folder(folder: &Path, metadata: &fs::Metadata, options: &SocketOptions) -> Result<(), Problem> {
    let mode = metadata.permissions().mode();
    let is_sticky = mode & 0o1000 != 0;
    let own_groups = [0, getegid().as_raw()];
    // Root answers for others' folders; anybody else knows whom they share theirs with.
    let by_group = mode & 0o020 != 0 && geteuid().is_root() && !own_groups.contains(&metadata.gid());
    let is_owners_group = options.owner.is_some_and(|owner| {
        User::from_uid(Uid::from_raw(owner)).ok().flatten().is_some_and(|user| user.gid.as_raw() == metadata.gid())
    });
    if !is_sticky && (mode & 0o002 != 0 || (by_group && !is_owners_group)) {
        return Err(Problem::FolderOpen { folder: folder.to_owned() });
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Whoever owns the folder may put another file in the place of the socket before it has its permissions.
    #[test]
    fn permissions_are_given_to_our_own_socket_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("precious"), "").unwrap();
        fs::set_permissions(path("precious"), fs::Permissions::from_mode(0o600)).unwrap();
        let _others = UnixListener::bind(path("other")).unwrap();
        fs::set_permissions(path("other"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(path("precious"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("other"), path("link to a socket")).unwrap();
        fs::hard_link(path("other"), path("other of two names")).unwrap();
        let options = SocketOptions { mode: 0o666, ..SocketOptions::default() };
        for name in ["precious", "link", "link to a socket", "other of two names"] {
            let replaced = set_permissions(&path(name), None, &options);
            assert!(matches!(replaced, Err(Problem::Replaced { .. })), "{name}: {replaced:?}");
        }
        for name in ["precious", "other"] {
            assert_eq!(fs::metadata(path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let _ours = UnixListener::bind(path("ours")).unwrap();
        assert_eq!(set_permissions(&path("ours"), None, &options).unwrap(), identity(&path("ours")).unwrap());
        assert_eq!(fs::metadata(path("ours")).unwrap().permissions().mode() & 0o777, 0o666);
        let elsewhere = Some((0, 0));
        assert!(matches!(set_permissions(&path("ours"), elsewhere, &options), Err(Problem::Replaced { .. })));
    }
}
