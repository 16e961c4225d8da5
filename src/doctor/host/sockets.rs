//! Sockets: which are the same, and whether anybody listens.

use crate::listen::ListenAddress;
use crate::listen::bind::resolve;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a connection over TCP may take.
const TCP_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether both addresses are one socket: the same file, or the same port of an address; of all addresses, one.
pub fn is_same_socket(ours: &ListenAddress, other: &ListenAddress) -> bool {
    match (ours, other) {
        (ListenAddress::Unix(ours), ListenAddress::Unix(other)) => ours == other || is_same_file(ours, other),
        (ListenAddress::Tcp { host: ours, port }, ListenAddress::Tcp { host: other, port: other_port }) => {
            port == other_port
                && match (resolve(ours), resolve(other)) {
                    (Ok(ours), Ok(other)) => covers(ours, other),
                    _ => ours == other,
                }
        }
        _ => false,
    }
}

fn covers(ours: IpAddr, other: IpAddr) -> bool {
    ours == other || (ours.is_unspecified() && (ours.is_ipv6() || other.is_ipv4()))
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    file(one).is_some_and(|one| Some(one) == file(other))
}

/// Whether it is known that nobody listens there: not, if this user may not connect.
pub fn nobody_listens(address: &ListenAddress) -> bool {
    let tried = match address {
        ListenAddress::Unix(path) => UnixStream::connect(path).map(drop),
        ListenAddress::Tcp { host, port } => match resolve(host) {
            Ok(ip) => TcpStream::connect_timeout(&(ip, *port).into(), TCP_TIMEOUT).map(drop),
            Err(_) => return true,
        },
    };
    tried.is_err_and(|error| {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::TimedOut)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn one_socket_has_many_names() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, link) = (folder.path().join("m.sock"), folder.path().join("link"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        let unix = |path: &Path| ListenAddress::Unix(path.to_owned());
        assert!(is_same_socket(&unix(&socket), &unix(&link)));
        assert!(!is_same_socket(&unix(&socket), &unix(&folder.path().join("other"))));
        assert!(!nobody_listens(&unix(&link)));
        assert!(nobody_listens(&unix(&folder.path().join("other"))));
        let tcp = |text: &str| text.parse::<ListenAddress>().unwrap();
        assert!(is_same_socket(&tcp("inet:0.0.0.0:8891"), &tcp("inet:8891@localhost")));
        assert!(is_same_socket(&tcp("inet:127.0.0.1:8891"), &tcp("127.0.0.1:8891")));
        assert!(!is_same_socket(&tcp("inet:127.0.0.1:8891"), &tcp("inet:127.0.0.1:8892")));
        assert!(!is_same_socket(&tcp("inet:127.0.0.1:8891"), &unix(&socket)));
    }
}
