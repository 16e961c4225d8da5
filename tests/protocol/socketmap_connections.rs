//! Faults of socketmap connections: the connection is closed, one line in the log, and nobody else harmed.

use crate::common::until;
use crate::installation;
use crate::socketmap::Asker;
use relaykeeper::listen::Peer;
use relaykeeper::socketmap::{MAX_REQUEST, SocketmapService};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn garbage_gets_no_answer_is_logged_once_and_harms_nobody() {
    let running = installation("").run();
    let service = SocketmapService::new(running.engine.clone());
    let mut other = Asker::of(&service, Peer::Local);
    assert_eq!(other.ask("clients 192.0.2.7").await, "OK OK");
    let too_long = format!("{}:{}", MAX_REQUEST + 1, "x".repeat(MAX_REQUEST));
    let garbage: [(&str, &[u8], &str); 8] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n", "not a netstring"),
        ("no comma", b"17:clients 192.0.2.7.", "not a netstring"),
        ("a leading zero", b"017:clients 192.0.2.7,", "not a netstring"),
        ("too long", too_long.as_bytes(), "longer than 4096 bytes"),
        ("endless digits", &[b'1'; 10_000], "longer than 4096 bytes"),
        ("no key", b"7:clients,", "not of the form NAME KEY"),
        ("nothing", b"0:,", "not of the form NAME KEY"),
        ("no UTF-8", b"9:clients \xff,", "not UTF-8"),
    ];
    for (n, (what, bytes, why)) in garbage.iter().enumerate() {
        let peer = Peer::Ip([198, 51, 100, n as u8].into());
        for _ in 0..3 {
            let mut asker = Asker::of(&service, peer);
            let _ = asker.stream.write_all(bytes).await;
            assert_eq!(asker.answer().await, None, "{what}");
        }
        let lines: Vec<_> = running.log_lines().into_iter().filter(|line| line.contains("socketmap")).collect();
        assert_eq!(lines.len(), n + 1, "{what}: once, and not three times: {lines:#?}");
        assert!(
            lines[n].ends_with(&format!("socketmap connection from {peer} closed: malformed request: {why}")),
            "{what}: {}",
            lines[n]
        );
    }
    assert_eq!(other.ask("clients 192.0.2.8").await, "OK OK");
}

#[tokio::test]
async fn an_unknown_map_is_named_with_the_known_ones() {
    let running = installation("").run();
    let mut asker = Asker::connect(&running, Peer::Local);
    let answer = asker.ask("mynetworks 192.0.2.7").await;
    assert_eq!(answer, "PERM there is no such map; the maps are clients, transport, relayhost, credentials");
    assert_eq!(asker.ask("clients 192.0.2.7").await, "OK OK");
}

#[tokio::test]
async fn a_request_in_any_pieces_is_one_and_several_at_once_are_several() {
    let running = installation("").run();
    let mut asker = Asker::connect(&running, Peer::Local);
    for piece in [1, 2, 7, 100] {
        for chunk in b"17:clients 192.0.2.7,".chunks(piece) {
            asker.stream.write_all(chunk).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(asker.answer().await.as_deref(), Some("OK OK"), "in pieces of {piece}");
    }
    let all = "17:clients 192.0.2.7,17:clients 192.0.3.7,".repeat(500);
    asker.stream.write_all(all.as_bytes()).await.unwrap();
    for _ in 0..500 {
        assert_eq!(asker.answer().await.as_deref(), Some("OK OK"));
        assert_eq!(asker.answer().await.as_deref(), Some("NOTFOUND "));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_or_silent_is_let_go() {
    let running = installation("").run();
    let service = SocketmapService::new(running.engine.clone());
    let (slow, silent) = (Peer::Ip([198, 51, 100, 1].into()), Peer::Ip([198, 51, 100, 2].into()));
    let (mut half, mut idle) = (Asker::of(&service, slow), Asker::of(&service, silent));
    half.stream.write_all(b"17:clients").await.unwrap();
    assert_eq!(half.answer().await, None);
    let logged = |what: &str| running.log_lines().iter().any(|line| line.contains(what));
    until("the slow one is logged", async || {
        logged("from 198.51.100.1 closed: timed out: a request was not completed within 10 s")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(idle.answer().await, None);
    assert!(!logged("198.51.100.2"), "an idle connection is no fault");
}
