use super::*;
use crate::listen::{Bounds, Frame, Next, SocketOptions, bind};
use crate::report::sink::memory::{Memory, MemoryLines};
use crate::report::{Level, Logger};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// Answers each byte with itself; a `w` only after a signal.
struct Echo {
    faults: FaultLog,
    has_begun: Notify,
    may_answer: Notify,
}

struct EchoConnection(Arc<Echo>);

impl Service for Echo {
    type Connection = EchoConnection;
    const SHARES: Shares = Shares::of(8, 1_024);

    fn open(self: &Arc<Self>, _: Origin, _: &Arc<str>) -> EchoConnection {
        EchoConnection(self.clone())
    }

    fn admits(&self, peer: Peer) -> bool {
        peer != Peer::Ip([127, 0, 0, 66].into())
    }

    fn faults(&self) -> &FaultLog {
        &self.faults
    }
}

impl Protocol for EchoConnection {
    type Error = Infallible;
    const BOUNDS: Bounds = Bounds {
        request_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        idle_buffer: 64,
        gather_responses: false,
        one_write_per_request: true,
        secret_responses: false,
    };

    fn frame(input: &[u8], _: usize) -> Result<Frame, Infallible> {
        Ok(if input.is_empty() { Frame::Partial { missing: 1 } } else { Frame::Complete { content: 0..1, length: 1 } })
    }

    async fn respond(&mut self, request: &[u8], output: &mut Vec<u8>) -> Result<Next, Infallible> {
        if request == b"w" {
            self.0.has_begun.notify_one();
            self.0.may_answer.notified().await;
        }
        output.extend_from_slice(request);
        Ok(Next::Continue)
    }
}

struct Running {
    echo: Arc<Echo>,
    port: u16,
    phase: watch::Sender<Phase>,
    task: tokio::task::JoinHandle<()>,
    log: MemoryLines,
}

fn start() -> Running {
    let (sink, log) = Memory::new();
    let logger = Logger::start(Level::Info, Box::new(sink)).unwrap();
    let address = "inet:127.0.0.1:0".parse().unwrap();
    let listener = bind(&address, &SocketOptions::default(), "listen.echo", &logger).unwrap();
    let port = listener.local_port().unwrap();
    let echo =
        Arc::new(Echo { faults: FaultLog::new("echo", &logger), has_begun: Notify::new(), may_answer: Notify::new() });
    let phase = watch::Sender::default();
    let task = tokio::spawn(serve(echo.clone(), listener, phase.subscribe()));
    Running { echo, port, phase, task, log }
}

async fn connect_from(address: [u8; 4], port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.into(), 0)).unwrap();
    socket.connect(SocketAddr::new([127, 0, 0, 1].into(), port)).await.unwrap()
}

async fn say(stream: &mut TcpStream, byte: u8) -> Option<u8> {
    let _ = stream.write_u8(byte).await;
    stream.read_u8().await.ok()
}

#[tokio::test]
async fn whoever_may_not_connect_is_disconnected_and_logged() {
    let Running { port, log, .. } = start();
    let mut stranger = connect_from([127, 0, 0, 66], port).await;
    assert_eq!(say(&mut stranger, b'a').await, None);
    assert_eq!(say(&mut connect_from([127, 0, 0, 67], port).await, b'a').await, Some(b'a'));
    let line = tokio::task::spawn_blocking(move || log.wait_for("connection from", Duration::from_secs(20))).await;
    let line = line.unwrap().expect("a line");
    assert!(line.contains("echo connection from 127.0.0.66 closed: this address is not in listen.allow"), "{line}");
}

/// First nobody comes in, then all go as soon as they have their response.
#[tokio::test]
async fn a_stop_writes_the_responses_that_are_under_way() {
    let Running { echo, port, phase, task, .. } = start();
    let mut idle = connect_from([127, 0, 0, 2], port).await;
    assert_eq!(say(&mut idle, b'a').await, Some(b'a'));
    let mut waiting = connect_from([127, 0, 0, 2], port).await;
    waiting.write_all(b"w").await.unwrap();
    echo.has_begun.notified().await;

    phase.send_replace(Phase::Draining);
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(say(&mut idle, b'b').await, Some(b'b'), "what is open goes on");

    phase.send_replace(Phase::Closing);
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    assert!(!task.is_finished());
    echo.may_answer.notify_one();
    assert_eq!(waiting.read_u8().await.unwrap(), b'w');
    task.await.unwrap();
}
