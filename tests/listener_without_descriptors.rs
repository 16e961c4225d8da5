//! A listener whose process has no file descriptors left accepts again when it has some. A test of its own process,
//! as the limit is one of the whole process.

use std::fs::File;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use relaykeeper::listen::{SocketOptions, bind};
use relaykeeper::report::sink::memory::Memory;
use relaykeeper::report::{Level, Logger};
use tokio::net::UnixStream;
use tokio::time::timeout;

const TIME: Duration = Duration::from_secs(20);

#[tokio::test]
async fn connections_wait_until_there_are_descriptors_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.sock");
    let (sink, log) = Memory::new();
    let logger = Logger::start(Level::Info, Box::new(sink)).unwrap();
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let mut listener = bind(&address, &SocketOptions::default(), "listen.milter", &logger).unwrap();
    let _client = UnixStream::connect(&path).await.unwrap();

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }

    let accepting = tokio::spawn(async move { listener.accept().await.peer() });
    let line = tokio::task::spawn_blocking(move || log.wait_for("event=cannot-accept-connections", TIME));
    let line = line.await.unwrap().expect("a line about it");
    assert!(line.contains("Too many open files") && line.contains("raise LimitNOFILE"), "{line}");
    assert!(!accepting.is_finished());

    drop(hoard);
    let peer = timeout(TIME, accepting).await.expect("accepted in time").unwrap();
    assert_eq!(peer.to_string(), "local");
}
