//! Accepts connections, whatever errors occur meanwhile.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Sleep, sleep};

use super::Stream;
use super::unix_socket::SocketFile;
use crate::report::{Level, LogLine, Logger, OncePer};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A socket that is listened on; its file, if it has one, goes with it.
#[derive(Debug)]
pub struct Listener {
    /// Before the socket, as it must be dropped first.
    _file: Option<SocketFile>,
    socket: Socket,
    /// Its address, as in the configuration.
    name: Arc<str>,
    recovery: Recovery,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn tcp(socket: TcpListener, name: Arc<str>, logger: &Logger) -> Listener {
        Listener { _file: None, socket: Socket::Tcp(socket), name, recovery: Recovery::new(logger) }
    }

    pub(super) fn unix(socket: UnixListener, file: SocketFile, name: Arc<str>, logger: &Logger) -> Listener {
        Listener { _file: Some(file), socket: Socket::Unix(socket), name, recovery: Recovery::new(logger) }
    }

    /// Its address in the canonical spelling of [`ListenAddress`](super::ListenAddress).
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The port, if this is TCP: what port 0 became.
    pub fn local_port(&self) -> Option<u16> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Socket::Unix(_) => None,
        }
    }

    /// The next connection. Dropping the future loses none.
    ///
    /// There is no error: when the system cannot give one (no file descriptors left), the log says so once a minute,
    /// and connections wait in the kernel's queue until it can.
    pub async fn accept(&mut self) -> Stream {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// As [`Listener::accept`], for those who poll.
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Stream> {
        let socket = &self.socket;
        self.recovery.poll(context, |context| match socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(context))?;
                Poll::Ready(Ok(Stream::tcp(stream, peer.ip())))
            }
            Socket::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                Poll::Ready(Ok(Stream::unix(stream)))
            }
        })
    }
}

/// Goes on after errors.
#[derive(Debug)]
struct Recovery {
    logger: Logger,
    reports: OncePer<Option<i32>>,
    pause: Option<Pin<Box<Sleep>>>,
    next_pause: Duration,
}

impl Recovery {
    fn new(logger: &Logger) -> Recovery {
        Recovery {
            logger: logger.clone(),
            reports: OncePer::new(REPORT_EVERY, 8),
            pause: None,
            next_pause: FIRST_PAUSE,
        }
    }

    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<T> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(attempt(context)) {
                Ok(accepted) => {
                    self.next_pause = FIRST_PAUSE;
                    return Poll::Ready(accepted);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.report(&error);
                    self.pause = Some(Box::pin(sleep(self.next_pause)));
                    self.next_pause = (self.next_pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    fn report(&self, error: &io::Error) {
        if let Some(repeated) = self.reports.check(error.raw_os_error(), Instant::now()) {
            let line = LogLine::event("cannot-accept-connections")
                .field("error", error)
                .field("repeated", repeated)
                .optional("advice", advice(error));
            self.logger.write(Level::Error, line);
        }
    }
}

/// Errors that a connection brought along, and that are over with it (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
        || matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(
                Errno::ENETDOWN
                    | Errno::EPROTO
                    | Errno::ENOPROTOOPT
                    | Errno::EHOSTDOWN
                    | Errno::ENONET
                    | Errno::EHOSTUNREACH
                    | Errno::EOPNOTSUPP
                    | Errno::ENETUNREACH
            )
        )
}

fn advice(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => Some("raise LimitNOFILE of the service"),
        Some(Errno::ENFILE) => Some("raise fs.file-max of the system"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::{ListenAddress, Peer, SocketOptions, bind};
    use crate::report::sink::memory::Memory;
    use std::collections::VecDeque;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn listener(address: &str) -> Listener {
        let address: ListenAddress = address.parse().unwrap();
        bind(&address, &SocketOptions::default(), "listen.milter", &Logger::silent()).unwrap()
    }

    #[tokio::test]
    async fn both_kinds_accept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.sock");
        let mut unix = listener(&format!("unix:{}", path.display()));
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut stream = unix.accept().await;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!((&bytes, stream.peer()), (b"hello", Peer::Local));

        let mut tcp = listener("inet:127.0.0.1:0");
        let port = tcp.local_port().unwrap();
        let _client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(tcp.accept().await.peer(), Peer::Ip("127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn errors_never_end_it() {
        let (sink, written) = Memory::new();
        let logger = Logger::start(Level::Info, Box::new(sink)).unwrap();
        let mut recovery = Recovery::new(&logger);
        let mut results: VecDeque<io::Result<&str>> = [
            Err(Errno::EMFILE.into()),
            Err(Errno::EMFILE.into()),
            Err(Errno::ECONNABORTED.into()),
            Ok("first"),
            Err(Errno::ENOBUFS.into()),
            Ok("second"),
        ]
        .into();
        for expected in ["first", "second"] {
            let accepted = poll_fn(|context| {
                recovery.poll(context, |_| Poll::Ready(results.pop_front().expect("no further attempt")))
            })
            .await;
            assert_eq!(accepted, expected);
        }
        assert!(logger.flush(Duration::from_secs(20)));
        let lines: Vec<String> = written.all().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        let start = "event=cannot-accept-connections error=\"Too many open files (os error 24)\" repeated";
        assert_eq!(lines[0], format!("{start}=0 advice=\"raise LimitNOFILE of the service\""));
        assert!(lines[1].contains("No buffer space available"), "{}", lines[1]);
    }

    #[tokio::test]
    async fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut recovery = Recovery::new(&Logger::silent());
        for _ in 0..20 {
            recovery.pause = None;
            let polled = poll_fn(|context| {
                Poll::Ready(recovery.poll::<()>(context, |_| Poll::Ready(Err(Errno::EMFILE.into()))))
            });
            assert!(polled.await.is_pending());
        }
        assert_eq!(recovery.next_pause, LAST_PAUSE);
        recovery.pause = None;
        poll_fn(|context| recovery.poll(context, |_| Poll::Ready(Ok(())))).await;
        assert_eq!(recovery.next_pause, FIRST_PAUSE);
    }
}
