//! One connection, over TCP or a unix socket.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The host at the other end, which distinguishes several MTAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A process of this machine, over a unix socket.
    Local,
    /// A host; IPv4-mapped IPv6 addresses are IPv4.
    Ip(IpAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Local => f.pad("local"),
            Peer::Ip(address) => address.fmt(f),
        }
    }
}

/// A process of this machine, as the kernel knows it (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// In this process's own PID namespace, so that it distinguishes the processes of several containers. None: the process
    /// is in a namespace that is not visible from here.
    pub pid: Option<NonZeroU32>,
    /// The effective user when it connected.
    pub uid: u32,
}

/// Where a connection comes from: its peer, and the process over a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    pub peer: Peer,
    pub process: Option<Process>,
}

impl From<Peer> for Origin {
    fn from(peer: Peer) -> Origin {
        Origin { peer, process: None }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            None => self.peer.fmt(f),
            Some(Process { pid: Some(pid), uid }) => write!(f, "local process {pid} (uid {uid})"),
            Some(Process { pid: None, uid }) => write!(f, "a local process of uid {uid}"),
        }
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    origin: Origin,
    acknowledge: Acknowledge,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What to do about delayed acknowledgements (TCP_QUICKACK, tcp(7)).
///
/// Sendmail writes a macro packet and the command that it belongs to separately, and its kernel holds the second
/// back until the first is acknowledged: 43 ms a stage. The option ends by itself whenever data goes out, so it is
/// set again before each read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledge {
    /// Left to the kernel.
    Late,
    /// At once, and the option has still to be set for the next read.
    AtOnceDue,
    /// At once, and the option is set.
    AtOnceSet,
}

impl Stream {
    /// A TCP connection, without Nagle's delay (TCP_NODELAY).
    pub fn tcp(socket: TcpStream, peer: IpAddr) -> Stream {
        // Fails if the peer has already closed the connection; the first read reports that.
        let _ = socket.set_nodelay(true);
        let origin = Peer::Ip(peer.to_canonical()).into();
        Stream { socket: Socket::Tcp(socket), origin, acknowledge: Acknowledge::AtOnceDue }
    }

    /// A connection over a unix socket.
    pub fn unix(socket: UnixStream) -> Stream {
        let process = socket.peer_cred().ok().map(|credentials| Process {
            pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()).and_then(NonZeroU32::new),
            uid: credentials.uid(),
        });
        Stream {
            socket: Socket::Unix(socket),
            origin: Origin { peer: Peer::Local, process },
            acknowledge: Acknowledge::Late,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.origin.peer
    }

    /// Who is at the other end, as exactly as the kernel knows.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Leaves acknowledgements to the kernel. Right for protocols whose requests come in one piece and are answered
    /// at once, as the answer carries the acknowledgement: saves a packet and a system call a request.
    pub fn acknowledge_late(&mut self) {
        self.acknowledge = Acknowledge::Late;
    }

    fn set_quick_acknowledgement(&mut self) {
        if let Socket::Tcp(socket) = &self.socket
            && self.acknowledge == Acknowledge::AtOnceDue
        {
            // Only speed depends on it.
            let _ = socket.set_quickack(true);
            self.acknowledge = Acknowledge::AtOnceSet;
        }
    }

    fn data_moved(&mut self) {
        if self.acknowledge == Acknowledge::AtOnceSet {
            self.acknowledge = Acknowledge::AtOnceDue;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        stream.set_quick_acknowledgement();
        let result = ready!(match &mut stream.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Socket::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        });
        stream.data_moved();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        stream.data_moved();
        match &mut stream.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        stream.data_moved();
        match &mut stream.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket.is_write_vectored(),
            Socket::Unix(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn tcp_pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        (Stream::tcp(server, peer.ip()), client)
    }

    fn socket(stream: &Stream) -> &TcpStream {
        let Socket::Tcp(socket) = &stream.socket else { panic!("not TCP") };
        socket
    }

    /// Begins a read that finds nothing.
    async fn begin_to_read(stream: &mut Stream) {
        let mut bytes = [0; 16];
        poll_fn(|context| {
            assert!(Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut bytes)).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    async fn ping_pong(stream: &mut Stream, client: &mut TcpStream) {
        let mut bytes = [0; 4];
        client.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"pong");
    }

    #[tokio::test]
    async fn tcp_sends_and_acknowledges_without_delay_at_every_read() {
        let (mut stream, mut client) = tcp_pair().await;
        assert!(socket(&stream).nodelay().unwrap());
        for _ in 0..5 {
            ping_pong(&mut stream, &mut client).await;
            // Data went out: the kernel is back to delayed acknowledgements.
            assert!(!socket(&stream).quickack().unwrap());
            begin_to_read(&mut stream).await;
            assert!(socket(&stream).quickack().unwrap());
        }
    }

    #[tokio::test]
    async fn acknowledgements_can_be_left_to_the_kernel() {
        let (mut stream, mut client) = tcp_pair().await;
        stream.acknowledge_late();
        ping_pong(&mut stream, &mut client).await;
        begin_to_read(&mut stream).await;
        assert!(!socket(&stream).quickack().unwrap());
    }

    #[tokio::test]
    async fn a_unix_stream_carries_both_ways() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut stream = Stream::unix(one);
        assert!(stream.is_write_vectored());
        let written = stream.write_vectored(&[IoSlice::new(b"two "), IoSlice::new(b"parts")]).await.unwrap();
        assert_eq!(written, 9);
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "two parts");
    }

    #[tokio::test]
    async fn peers_are_told_apart_by_address() {
        let (stream, _client) = tcp_pair().await;
        assert_eq!(stream.peer().to_string(), "127.0.0.1");
        let (mapped, _client) = tcp_pair().await;
        let Socket::Tcp(socket) = mapped.socket else { panic!("not TCP") };
        assert_eq!(Stream::tcp(socket, "::ffff:192.0.2.7".parse().unwrap()).peer().to_string(), "192.0.2.7");
        let (unix, _client) = UnixStream::pair().unwrap();
        assert_eq!(Stream::unix(unix).peer().to_string(), "local");
    }
}
