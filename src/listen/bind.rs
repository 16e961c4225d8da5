//! Starts to listen, or says in one line why that cannot be.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use super::address::Host;
use super::kept::{KeptSockets, Place};
use super::{ListenAddress, Listener, unix_socket};
use crate::report::Logger;

/// Connections that the kernel holds until they are accepted; it takes `net.core.somaxconn` if that is less.
pub(super) const BACKLOG: u32 = 1024;

/// How the file of a unix socket is made; ignored for TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Permission bits (`listen.socket_mode`); connecting needs write permission.
    pub mode: u32,
    /// Name of the group that the file is given to (`listen.socket_group`); none: that of the process.
    pub group: Option<String>,
    /// The user that the file is given to; none: that of the process. Only root may give files away.
    pub owner: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions { mode: 0o660, group: None, owner: None }
    }
}

/// Why relaykeeper cannot listen at an address; one line that names the key of the configuration, the address, what
/// is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {problem}")]
pub struct BindError {
    /// The key of the configuration, such as `listen.milter`.
    pub key: String,
    /// The address.
    pub address: ListenAddress,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Another process listens there.
    #[error("it is in use by a running process; stop that one, or choose another address")]
    InUse,
    /// The file belongs to somebody else, who may be listening.
    #[error(
        "a socket is there already that this user may not connect to; remove it if no process uses it, or choose another path"
    )]
    ForeignSocket,
    /// Something else has the name.
    #[error("a file is there already that is not a socket; remove it, or choose another path")]
    NotASocket,
    /// The folder of the socket does not exist.
    #[error("the folder {} does not exist; create it, or choose another path", folder.display())]
    NoFolder { folder: PathBuf },
    /// A file is where a folder should be.
    #[error("{} is not a folder; choose another path", folder.display())]
    NotAFolder { folder: PathBuf },
    /// The process may not create files in the folder.
    #[error("this user may not create files in {}; change its owner or mode, or choose another path", folder.display())]
    FolderDenied { folder: PathBuf },
    /// Whoever may write to the folder could replace the socket, and so answer in relaykeeper's place.
    #[error("others may write to the folder {0}, and so replace the socket; run: chmod go-w {0}", folder.display())]
    FolderOpen { folder: PathBuf },
    /// The file of the socket was replaced while it was made.
    #[error("somebody else changes files in {}; choose another path", folder.display())]
    Replaced { folder: PathBuf },
    /// There is no room for the temporary name in the kernel's limit on paths.
    #[error("the path is too long for a socket; choose a shorter one")]
    PathTooLong,
    /// `listen.socket_group` names no group.
    #[error("there is no group \"{}\"; create it, or change listen.socket_group", group.escape_debug())]
    UnknownGroup { group: String },
    /// Only root may give a file to a group that the user is not in.
    #[error("this user may not give the socket to the group \"{}\"; make it a member of that group, or change listen.socket_group", group.escape_debug())]
    NotOurGroup { group: String },
    /// The name has no address of the required family.
    #[error("the host name \"{name}\" cannot be resolved ({reason}); write an address of this machine")]
    Unresolved { name: String, reason: String },
    /// No interface has the address.
    #[error("this machine has no such address; write one that it has, such as 127.0.0.1 or [::1]")]
    NotOurAddress,
    /// Ports below 1024 need a capability.
    #[error("this user may not listen there; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher one")]
    PortDenied,
    /// Anything else that the system says.
    #[error("{0}")]
    System(#[source] io::Error),
}

impl Problem {
    /// An error that has to do with the folder of a unix socket.
    pub(super) fn from_folder(folder: &Path, error: io::Error) -> Problem {
        let folder = folder.to_owned();
        match error.kind() {
            ErrorKind::NotFound => Problem::NoFolder { folder },
            ErrorKind::NotADirectory => Problem::NotAFolder { folder },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Problem::FolderDenied { folder },
            ErrorKind::InvalidInput | ErrorKind::InvalidFilename => Problem::PathTooLong,
            ErrorKind::AddrInUse => Problem::InUse,
            _ => Problem::System(error),
        }
    }

    pub(crate) fn from_tcp(error: io::Error) -> Problem {
        match error.kind() {
            ErrorKind::AddrInUse => Problem::InUse,
            ErrorKind::AddrNotAvailable => Problem::NotOurAddress,
            ErrorKind::PermissionDenied => Problem::PortDenied,
            _ => Problem::System(error),
        }
    }
}

/// Listens at `address`, for the configuration's `key` (`listen.milter`). Must run within a tokio runtime; resolving
/// a host name blocks.
///
/// A unix socket that a dead process left is replaced; one that somebody answers on is not. The listener reports
/// errors of accepting to `logger`.
///
/// # Errors
/// When the address cannot be listened on; the error is the line to show.
pub fn bind(
    address: &ListenAddress,
    options: &SocketOptions,
    key: &str,
    logger: &Logger,
) -> Result<Listener, BindError> {
    bind_or_take(address, options, key, &mut KeptSockets::none(), logger)
}

/// As [`bind()`], but goes on with a socket that is in `kept` already, and has systemd keep one that is new.
///
/// # Errors
/// As [`bind()`].
pub fn bind_or_take(
    address: &ListenAddress,
    options: &SocketOptions,
    key: &str,
    kept: &mut KeptSockets,
    logger: &Logger,
) -> Result<Listener, BindError> {
    let name = Arc::from(address.to_string());
    let bound = match address {
        ListenAddress::Unix(path) => unix_socket::listen(path, options, kept)
            .map(|(file, listener)| Listener::unix(listener, file, name, logger)),
        ListenAddress::Tcp { host, port } => {
            listen_tcp(host, *port, kept).map(|listener| Listener::tcp(listener, name, logger))
        }
    };
    bound.map_err(|problem| BindError { key: key.to_owned(), address: address.clone(), problem })
}

fn listen_tcp(host: &Host, port: u16, kept: &mut KeptSockets) -> Result<TcpListener, Problem> {
    let address = SocketAddr::new(resolve(host)?, port);
    if let Some(socket) = kept.take_tcp(address) {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true).map_err(Problem::System)?;
        return TcpListener::from_std(socket).map_err(Problem::System);
    }
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(Problem::System)?;
    // A restart must not wait for the connections of the process before it.
    socket.set_reuseaddr(true).map_err(Problem::System)?;
    socket.bind(address).map_err(Problem::from_tcp)?;
    let listener = socket.listen(BACKLOG).map_err(Problem::from_tcp)?;
    let bound = listener.local_addr().map_err(Problem::System)?;
    kept.keep(&Place::Tcp(bound), listener.as_fd());
    Ok(listener)
}

/// An address of the host.
///
/// # Errors
/// There is none.
pub fn resolve(host: &Host) -> Result<IpAddr, Problem> {
    let (name, only_ipv6) = match host {
        Host::Ip(address) => return Ok(*address),
        Host::Name(name) => (name, false),
        Host::NameOfIpv6(name) => (name, true),
    };
    let unresolved = |reason: String| Problem::Unresolved { name: name.clone(), reason };
    let found: Vec<IpAddr> =
        (name.as_str(), 0).to_socket_addrs().map_err(|error| unresolved(error.to_string()))?.map(|a| a.ip()).collect();
    let ipv4 = found.iter().find(|address| address.is_ipv4() && !only_ipv6);
    let ipv6 = found.iter().find(|address| address.is_ipv6());
    ipv4.or(ipv6).copied().ok_or_else(|| unresolved("it has no IPv6 address".to_owned()))
}

#[cfg(test)]
mod tests;
