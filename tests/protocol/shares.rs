//! No peer can take all connections of a socket, nor all memory.

use crate::common::installation::Running;
use crate::common::smtpd::Mail;
use crate::common::{soon, until};
use crate::installation;
use relaykeeper::daemon::raise_open_files_limit;
use relaykeeper::listen::{self, Peer, Phase, Service, SocketOptions, bind};
use relaykeeper::milter::MilterService;
use relaykeeper::socketmap::SocketmapService;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;

/// Half of the 4,096 that a socket serves.
const SHARE: usize = 2_048;

/// One more than a peer's share: the connection that was idle the longest makes room.
#[tokio::test]
async fn idle_connections_shut_nobody_out() {
    let running = installation("").run();
    raise_open_files_limit(&running.engine.log);
    let folder = tempfile::tempdir().unwrap();
    let (path, _phase) = serve_policy(&running, folder.path());
    let mut smtpds = Vec::new();
    while smtpds.len() < SHARE {
        let mut smtpd = UnixStream::connect(&path).await.expect("needs 4,500 file descriptors");
        assert!(dunno(&mut smtpd).await);
        smtpds.push(smtpd);
    }
    // The first one has asked again since.
    assert!(dunno(&mut smtpds[0]).await);
    for _ in 0..20 {
        let mut one_more = UnixStream::connect(&path).await.unwrap();
        assert!(dunno(&mut one_more).await);
        smtpds.push(one_more);
    }
    let closed = || {
        let is_closed = |smtpd: &UnixStream| matches!(smtpd.try_read(&mut [0]), Ok(0));
        (0..smtpds.len()).filter(|&number| is_closed(&smtpds[number])).collect::<Vec<_>>()
    };
    until("as many are closed", async || closed().len() == 20).await;
    // Which of two neighbours was idle for longer is not told exactly.
    assert!(closed().iter().all(|number| (1..30).contains(number)), "{:?}", closed());
    assert!(dunno(&mut smtpds[0]).await);
    assert!(dunno(&mut smtpds[SHARE - 1]).await);
    let lines = running.log_lines();
    let lines: Vec<_> = lines.iter().filter(|line| line.contains("too many connections")).collect();
    assert_eq!(lines.len(), 1, "once a minute: {lines:#?}");
    assert!(lines[0].contains("policy connection from local process "), "{}", lines[0]);
}

fn serve_policy(running: &Running, folder: &Path) -> (PathBuf, watch::Sender<Phase>) {
    let path = folder.join("policy");
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let listener = bind(&address, &SocketOptions::default(), "listen.policy", &running.engine.log).unwrap();
    let phase = watch::Sender::default();
    tokio::spawn(listen::serve(running.policy.clone(), listener, phase.subscribe()));
    (path, phase)
}

async fn dunno(smtpd: &mut UnixStream) -> bool {
    let mut answer = [0; 14];
    smtpd.write_all(Mail::default().request("DATA", "", 0, "").as_bytes()).await.unwrap();
    soon("an answer", smtpd.read_exact(&mut answer)).await.is_ok() && &answer == b"action=DUNNO\n\n"
}

/// Packets of 500 KiB that are never completed: of one peer no more than 32 MiB wait, and others are served meanwhile.
#[tokio::test]
async fn half_sent_packets_do_not_fill_the_memory() {
    const PACKET: u32 = 500 * 1024;
    let running = installation("").run();
    let (_milter, port) = running.start_milter_on_tcp();
    let mut hoard = Vec::new();
    for _ in 0..100 {
        let mut stream = connect_from("127.0.0.2", port).await;
        let packet = [&PACKET.to_be_bytes()[..], &vec![b'L'; PACKET as usize - 1]].concat();
        soon("it is read", async { while_open(stream.write_all(&packet).await) }).await;
        hoard.push(stream);
    }
    until("no more than the share waits", async || {
        hoard.retain(|stream| !is_closed(stream));
        hoard.len() <= 32 * 1024 * 1024 / PACKET as usize
    })
    .await;
    assert!(hoard.len() >= 50, "{}", hoard.len());
    let lines = running.log_lines();
    assert!(lines.iter().any(|line| line.contains("connection from 127.0.0.2 closed: too many bytes")), "{lines:#?}");

    let mut other = connect_from("127.0.0.3", port).await;
    other.write_all(b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff").await.unwrap();
    let mut length = [0; 4];
    soon("the negotiation", other.read_exact(&mut length)).await.unwrap();
    other.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize]).await.unwrap();
    let chunk = [&65_536_u32.to_be_bytes()[..], &[b'B'; 65_536]].concat();
    other.write_all(&chunk).await.unwrap();
    other.write_all(b"\0\0\0\x05Ch\0U\0").await.unwrap();
    let mut answer = [0; 5];
    soon("an answer to CONNECT", other.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"\0\0\0\x01c");
}

/// A write to a connection that was closed meanwhile fails, as it should.
fn while_open(written: std::io::Result<()>) {
    if let Err(error) = written {
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    }
}

async fn connect_from(address: &str, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(SocketAddr::new([127, 0, 0, 1].into(), port)).await.unwrap()
}

fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 16]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Over TCP, `listen.allow` says which hosts may ask; this host always may.
#[tokio::test]
async fn only_mtas_that_are_allowed_are_served() {
    let mtas = ["192.0.2.10", "198.51.100.7", "2001:db8::25", "127.0.0.1", "::1"];
    let [listed, in_range, in_range_6, here, here_6] = mtas.map(|address| Peer::Ip(address.parse().unwrap()));
    let strangers = ["192.0.2.11", "2001:db8:1::25", "::2"].map(|address| Peer::Ip(address.parse().unwrap()));
    let allow = "listen.allow = [\"192.0.2.10\", \"198.51.100.0/24\", \"2001:db8::/64\"]";
    for (more, is_limited) in [(allow, true), ("", false)] {
        let running = installation(more).run();
        let milter = MilterService::new(running.engine.clone(), true);
        let socketmap = SocketmapService::new(running.engine.clone());
        for peer in [here, here_6, Peer::Local] {
            assert!(milter.admits(peer) && running.policy.admits(peer) && socketmap.admits(peer), "{peer}");
        }
        for peer in [listed, in_range, in_range_6] {
            assert_eq!([milter.admits(peer), running.policy.admits(peer)], [is_limited; 2], "{peer}");
            assert!(socketmap.admits(peer));
        }
        for peer in strangers {
            assert!(!milter.admits(peer) && !running.policy.admits(peer), "{peer}");
            assert_eq!(socketmap.admits(peer), !is_limited, "{peer}");
        }
    }
}
