//! Time limits of milter connections.

use crate::common::installation::Running;
use crate::installation;
use relaykeeper::listen::Peer;
use relaykeeper::milter::MilterService;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

const NEGOTIATION: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";
const HELO: &[u8] = b"\0\0\0\x11Hmx.acme.example\0";

/// A connection whose other end takes `room` bytes that nobody reads.
fn connect(running: &Running, room: usize) -> (DuplexStream, JoinHandle<()>) {
    let service = MilterService::new(running.engine.clone(), true);
    let (mta, stream) = tokio::io::duplex(room);
    (mta, tokio::spawn(async move { service.serve_connection(stream, Peer::Local).await }))
}

async fn negotiated(running: &Running) -> (DuplexStream, JoinHandle<()>) {
    let (mut mta, connection) = connect(running, 64 * 1024);
    mta.write_all(NEGOTIATION).await.unwrap();
    mta.read_exact(&mut [0; 17]).await.unwrap();
    (mta, connection)
}

fn closed(running: &Running) -> Vec<String> {
    running.log_lines().into_iter().filter(|line| line.contains("milter connection from local closed: ")).collect()
}

#[tokio::test(start_paused = true)]
async fn who_never_says_anything_is_dropped() {
    let running = installation("").run();
    let (_mta, connection) = connect(&running, 1024);
    tokio::time::timeout(Duration::from_secs(31), connection).await.unwrap().unwrap();
    assert!(
        closed(&running)[0].ends_with("timed out: a request was not completed within 30 s"),
        "{:?}",
        closed(&running)
    );
}

#[tokio::test(start_paused = true)]
async fn a_frame_has_to_be_completed_in_time() {
    let running = installation("").run();
    let (mut mta, connection) = negotiated(&running).await;
    // Long after the session has begun; and a trickle is no way to hold a connection.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let trickle = async {
        for byte in HELO {
            mta.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    tokio::select! {
        () = trickle => panic!("a frame in 85 s was taken"),
        ended = connection => ended.unwrap(),
    }
    assert_eq!(closed(&running).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_kept_for_hours_but_not_for_ever() {
    let running = installation("").run();
    let (mta, connection) = negotiated(&running).await;
    let begun = tokio::time::Instant::now();
    connection.await.unwrap();
    let hours = begun.elapsed().as_secs() / 3600;
    assert!((2..=4).contains(&hours), "{hours} h");
    assert!(closed(&running).is_empty(), "an idle connection is no fault");
    drop(mta);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_says_something_every_hour_is_kept() {
    let running = installation("").run();
    let (mut mta, connection) = negotiated(&running).await;
    mta.write_all(b"\0\0\0\x05Ch\0U\0").await.unwrap();
    for _ in 0..24 {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        mta.write_all(HELO).await.unwrap();
    }
    assert!(!connection.is_finished());
}

#[tokio::test(start_paused = true)]
async fn who_never_reads_the_answers_is_dropped() {
    let running = installation("").run();
    let (mut mta, connection) = connect(&running, 16);
    // Room for not even the first answer.
    mta.write_all(NEGOTIATION).await.unwrap();
    tokio::time::timeout(Duration::from_secs(31), connection).await.unwrap().unwrap();
    assert!(closed(&running)[0].ends_with("timed out: a response was not read within 30 s"), "{:?}", closed(&running));
}

#[tokio::test]
async fn whoever_does_not_negotiate_first_is_dropped() {
    let running = installation("").run();
    let (mut mta, connection) = connect(&running, 1024);
    mta.write_all(HELO).await.unwrap();
    connection.await.unwrap();
    assert_eq!(mta.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    assert_eq!(closed(&running).len(), 1);
}
