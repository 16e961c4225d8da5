//! One connection to a syslog daemon.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

/// How long one message may wait for a slow daemon.
const SEND_TIMEOUT: Duration = Duration::from_millis(250);

/// A socket connected to the daemon's, of either kind.
#[derive(Debug)]
pub(super) enum Connection {
    Datagrams(UnixDatagram),
    /// `sent` bytes of the first message were already sent.
    Stream {
        stream: UnixStream,
        sent: usize,
    },
}

/// The result of sending a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent,
    /// The daemon is slow: send the same message again, later.
    Busy,
    /// The daemon is down: send the same message again, over a new connection.
    Disconnected,
    /// No daemon will ever accept this message.
    Unsendable,
}

impl Connection {
    /// Connects to a socket of datagrams, or else of a stream, as syslog(3) does. Never waits.
    pub(super) fn open(path: &Path) -> io::Result<Connection> {
        let datagrams = UnixDatagram::unbound()?;
        match datagrams.connect(path) {
            Ok(()) => {
                datagrams.set_write_timeout(Some(SEND_TIMEOUT))?;
                Ok(Connection::Datagrams(datagrams))
            }
            Err(error) if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
                let stream = connect_stream(path)?;
                stream.set_nonblocking(false)?;
                stream.set_write_timeout(Some(SEND_TIMEOUT))?;
                Ok(Connection::Stream { stream, sent: 0 })
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one message; waits for a slow daemon for at most 250 ms.
    pub(super) fn send(&mut self, message: &[u8]) -> Outcome {
        match self {
            Connection::Datagrams(socket) => match socket.send(message) {
                Ok(_) => Outcome::Sent,
                Err(error) => outcome(&error),
            },
            Connection::Stream { stream, sent } => send_record(stream, sent, message),
        }
    }
}

/// A message on a stream ends with a NUL byte, as in the syslog(3) of the GNU library.
fn send_record(stream: &mut UnixStream, sent: &mut usize, message: &[u8]) -> Outcome {
    while *sent <= message.len() {
        let rest = if *sent == message.len() { &[0][..] } else { &message[*sent..] };
        match stream.write(rest) {
            Ok(0) => return Outcome::Disconnected,
            Ok(taken) => *sent += taken,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return outcome(&error),
        }
    }
    *sent = 0;
    Outcome::Sent
}

fn outcome(error: &io::Error) -> Outcome {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => Outcome::Busy,
        Some(Errno::EMSGSIZE) => Outcome::Unsendable,
        _ => Outcome::Disconnected,
    }
}

/// The standard library's connect waits without limit for a daemon that does not accept.
fn connect_stream(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}
