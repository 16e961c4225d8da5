//! Listening sockets that outlast the daemon: systemd keeps them while it is restarted (`FDSTORE=1`, sd_notify(3)), or makes
//! them itself (systemd.socket(5)). Clients that connect meanwhile wait in the kernel's queue, and nobody is refused.
//!
//! A kept socket is known by the name it was given to systemd under (`name_of`), as the kernel knows only the temporary name
//! that a unix socket was bound to; one that systemd made, by the address it is bound to.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use sd_notify::NotifyState;

/// Sockets that this process was given, and those that it has given to systemd.
#[derive(Debug, Default)]
pub struct KeptSockets {
    inherited: Vec<Inherited>,
    /// Whether systemd is there to keep what is bound.
    can_keep: bool,
    /// Names that systemd knows.
    names: Vec<String>,
}

#[derive(Debug)]
struct Inherited {
    name: String,
    place: Place,
    socket: OwnedFd,
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Unix {
        path: PathBuf,
        /// Device and inode of its file, if it was us who made it: whoever replaced the file took the socket's clients.
        identity: Option<(u64, u64)>,
    },
    Tcp(SocketAddr),
}

impl KeptSockets {
    /// None, and nobody keeps any: as if started by hand.
    pub fn none() -> KeptSockets {
        KeptSockets::default()
    }

    /// What systemd passed to this process (sd_listen_fds(3)). To be called once, before anything else opens files.
    #[expect(unsafe_code, reason = "a descriptor that was inherited has no owner yet")]
    pub fn inherited() -> KeptSockets {
        let passed: Vec<(RawFd, String)> =
            sd_notify::listen_fds_with_names().map(Iterator::collect).unwrap_or_default();
        // SAFETY: systemd opened these descriptors for this process (LISTEN_PID is checked), and nobody else here uses them.
        let passed = passed.into_iter().map(|(raw, name)| (name, unsafe { OwnedFd::from_raw_fd(raw) }));
        let mut kept = KeptSockets::of(passed);
        kept.can_keep = std::env::var_os("NOTIFY_SOCKET").is_some();
        kept
    }

    fn of(passed: impl IntoIterator<Item = (String, OwnedFd)>) -> KeptSockets {
        let mut kept = KeptSockets::default();
        for (name, socket) in passed {
            if place_of_name(&name).is_some() {
                kept.names.push(name.clone());
            }
            if let Some(place) = place_of(&name, &socket) {
                kept.inherited.push(Inherited { name, place, socket });
            }
        }
        kept
    }

    pub(super) fn take_unix(&mut self, path: &Path, identity: Option<(u64, u64)>) -> Option<OwnedFd> {
        self.take(|place| {
            matches!(place, Place::Unix { path: kept, identity: known }
                if kept == path && (known.is_none() || *known == identity))
        })
    }

    pub(super) fn take_tcp(&mut self, address: SocketAddr) -> Option<OwnedFd> {
        self.take(|place| *place == Place::Tcp(address))
    }

    fn take(&mut self, matches: impl Fn(&Place) -> bool) -> Option<OwnedFd> {
        let found = self.inherited.iter().position(|inherited| matches(&inherited.place))?;
        Some(self.inherited.swap_remove(found).socket)
    }

    /// Has systemd keep a socket, and says whether it may be counted on.
    pub(super) fn keep(&mut self, place: &Place, socket: BorrowedFd<'_>) -> bool {
        let name = name_of(place);
        if !self.can_keep {
            return false;
        }
        if self.names.contains(&name) {
            return true;
        }
        let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
        let kept = sd_notify::notify_with_fds(&state, &[socket]).is_ok();
        if kept {
            self.names.push(name);
        }
        kept
    }

    /// Closes what was inherited and nobody took: the configuration does not name it any more.
    pub fn close_the_rest(&mut self) {
        for Inherited { name, .. } in std::mem::take(&mut self.inherited) {
            self.forget(&name);
        }
    }

    /// Closes all of them, because the daemon cannot start: clients are refused at once then, and do not wait for nobody.
    pub fn release(mut self) {
        self.inherited.clear();
        for name in std::mem::take(&mut self.names) {
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(Place::Unix { path, identity: Some(identity) }) = place_of_name(name)
            && super::unix_socket::identity(&path).is_ok_and(|now| now == identity)
        {
            let _ = std::fs::remove_file(&path);
        }
        let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
        self.names.retain(|known| known != name);
    }
}

/// What systemd knows a socket by: printable ASCII without ":" (sd_notify(3), `FDNAME=`).
fn name_of(place: &Place) -> String {
    match place {
        Place::Unix { path, identity } => {
            let (device, inode) = identity.unwrap_or_default();
            let path = path.as_os_str().as_encoded_bytes();
            let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'%' | b'@');
            let path: String = path
                .iter()
                .map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
                .collect();
            format!("unix@{path}@{device:x}.{inode:x}")
        }
        Place::Tcp(address) => format!("tcp@{}", address.to_string().replace(':', "_")),
    }
}

fn place_of_name(name: &str) -> Option<Place> {
    if let Some(address) = name.strip_prefix("tcp@") {
        return address.replace('_', ":").parse().ok().map(Place::Tcp);
    }
    let (path, identity) = name.strip_prefix("unix@")?.split_once('@')?;
    let (device, inode) = identity.split_once('.')?;
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let path = decode(path)?;
    Some(Place::Unix { path, identity: Some((hex(device)?, hex(inode)?)) })
}

fn decode(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

/// None for what is no socket that listens.
fn place_of(name: &str, socket: &OwnedFd) -> Option<Place> {
    let listens = getsockopt(socket, sockopt::AcceptConn).unwrap_or(false);
    if !listens || getsockopt(socket, sockopt::SockType).ok()? != SockType::Stream {
        return None;
    }
    place_of_name(name).or_else(|| bound_to(socket.as_fd()))
}

fn bound_to(socket: BorrowedFd<'_>) -> Option<Place> {
    let socket = socket.try_clone_to_owned().ok()?;
    let unix = std::os::unix::net::UnixListener::from(socket);
    if let Ok(address) = unix.local_addr() {
        return address.as_pathname().map(|path| Place::Unix { path: path.to_owned(), identity: None });
    }
    std::net::TcpListener::from(OwnedFd::from(unix)).local_addr().ok().map(Place::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_name_says_where_a_socket_is() {
        let places = [
            Place::Unix { path: "/var/spool/postfix/relaykeeper/milter.sock".into(), identity: Some((0xfd00, 0x1234)) },
            Place::Unix { path: "/tmp/a:b@c%d e\u{e9}.sock".into(), identity: Some((1, 2)) },
            Place::Tcp("127.0.0.1:8891".parse().unwrap()),
            Place::Tcp("[2001:db8::1]:8891".parse().unwrap()),
        ];
        for place in places {
            let name = name_of(&place);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'), "{name}");
            assert_eq!(place_of_name(&name), Some(place), "{name}");
        }
        for strange in ["", "unknown", "unix@", "unix@/a@1", "unix@/%zz@1.2", "tcp@nowhere", "milter"] {
            assert_eq!(place_of_name(strange), None, "{strange}");
        }
    }

    #[test]
    fn sockets_of_a_socket_unit_are_known_by_their_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        let unix = OwnedFd::from(UnixListener::bind(&path).unwrap());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let connection = OwnedFd::from(std::os::unix::net::UnixStream::connect(&path).unwrap());
        let passed = [("milter", unix), ("tcp", tcp.into()), ("file", file), ("connection", connection)];
        let mut kept = KeptSockets::of(passed.map(|(name, socket)| (name.to_owned(), socket)));
        assert_eq!(kept.inherited.len(), 2, "{kept:?}");
        assert!(kept.take_unix(Path::new("/elsewhere"), None).is_none());
        assert!(kept.take_unix(&path, Some((1, 2))).is_some());
        assert!(kept.take_unix(&path, None).is_none(), "taken twice");
        assert!(kept.take_tcp(address).is_some());
    }
}
