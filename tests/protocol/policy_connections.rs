//! Faults of policy connections: no response, one line in the log, the connection closed, and nobody else harmed.

use crate::common::installation::{Installation, Running};
use crate::common::smtpd::Mail;
use crate::{ACME, installation, main_file};
use relaykeeper::listen::Peer;
use std::io::ErrorKind;
use std::time::Duration;

fn closed(running: &Running) -> Vec<String> {
    running.log_lines().into_iter().filter(|line| line.contains("policy connection from")).collect()
}

fn good() -> String {
    Mail::default().at_recipient("a@dest.example")
}

#[tokio::test]
async fn garbage_gets_no_answer_is_logged_once_and_harms_nobody() {
    let running = installation("").run();
    let mut other = running.smtpd(1);
    let mail = other.next_mail();
    other.ask(&mail.at_recipient("a@dest.example")).await;
    let long_value = format!("request=smtpd_access_policy\nprotocol_state=RCPT\nsender={}\n", "x".repeat(40_000));
    let endless = "some_attribute=some value that says nothing at all\n".repeat(1_000);
    let instance = format!("1a2b.{}", "7".repeat(10_000));
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("another protocol", b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n\n\n".to_vec()),
        ("no equals sign", good().replace("sender=ann@acme.example", "sender").into_bytes()),
        ("another request", good().replace("smtpd_access_policy", "junk_access_policy").into_bytes()),
        ("no kind of request", good().replace("request=smtpd_access_policy\n", "").into_bytes()),
        ("nothing", b"\n\n".to_vec()),
        ("a line too long", long_value.into_bytes()),
        ("a line without end", vec![b'x'; 40_000]),
        ("a request without end", endless.into_bytes()),
        ("no instance", good().replace("instance=1a2b.67890abc.12345.0", "instance=").into_bytes()),
        ("an endless instance", good().replace("1a2b.67890abc.12345.0", &instance).into_bytes()),
        ("bytes", (0..=255).chain(*b"\n\n").collect()),
        ("zeros", [vec![0; 5_000], b"\n\n".to_vec()].concat()),
    ];
    for (n, (what, bytes)) in garbage.iter().enumerate() {
        let peer = Peer::Ip([198, 51, 100, n as u8].into());
        for _ in 0..3 {
            let mut smtpd = running.smtpd_of(peer, 99);
            let _ = smtpd.send(bytes).await;
            let ended = smtpd.answer().await.expect_err(what);
            assert_eq!(ended.kind(), ErrorKind::UnexpectedEof, "{what}");
        }
        let lines = closed(&running);
        assert_eq!(lines.len(), n + 1, "{what}: once, and not three times: {lines:#?}");
        assert!(
            lines[n].contains(&format!("policy connection from {peer} closed: malformed request: ")),
            "{what}: {}",
            lines[n]
        );
    }
    // The other one goes on, and so does whoever connects now.
    other.ask(&mail.at_end(&["a@dest.example"])).await;
    assert_eq!(running.counted_and_reserved("acme").await, (1, 0));
    assert_eq!(running.smtpd(99).ask(&good()).await, "DUNNO");
}

#[tokio::test]
async fn a_request_in_any_pieces_is_one_request() {
    let running = installation("").run();
    let request = good();
    for piece in [1, 2, 3, 7, 100, request.len()] {
        let mut smtpd = running.smtpd(1);
        for chunk in request.as_bytes().chunks(piece) {
            smtpd.send(chunk).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(smtpd.answer().await.unwrap(), "DUNNO", "in pieces of {piece}");
    }
}

#[tokio::test]
async fn requests_at_once_are_answered_in_their_order() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    let mail = smtpd.next_mail();
    let stranger = Mail { client: "203.0.113.1".into(), ..smtpd.next_mail() };
    let all = mail.at_recipient("a@dest.example")
        + &stranger.at_recipient("a@dest.example")
        + &mail.request("DATA", "", 1, "");
    smtpd.send(all.as_bytes()).await.unwrap();
    assert_eq!(smtpd.answer().await.unwrap(), "DUNNO");
    assert!(smtpd.answer().await.unwrap().starts_with("550 5.7.1 "));
    assert_eq!(smtpd.answer().await.unwrap(), "DUNNO");
}

#[tokio::test]
async fn unknown_attributes_and_strange_values_do_no_harm() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    let strange =
        good().replace("\n\n", "\nnew_attribute=a=b=c\n\n").replace("client_port=4711", "client_port=unknown");
    assert_eq!(smtpd.ask(&strange).await, "DUNNO");
    let unknown = good().replace("client_address=192.0.2.7", "client_address=unknown");
    let unknown = unknown.replace("12345.0", "12345.1");
    let answer = smtpd.ask(&unknown).await;
    assert!(answer.starts_with("550 5.7.1 Invalid credentials for relay [unknown]"), "{answer}");
}

#[tokio::test]
async fn a_connection_closed_in_the_middle_of_a_request_is_logged() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    smtpd.send(&good().as_bytes()[..100]).await.unwrap();
    assert_eq!(smtpd.close_and_read_rest().await, b"");
    smtpd.service.await.unwrap();
    assert!(
        closed(&running)[0].contains("connection closed by peer in the middle of a request"),
        "{:?}",
        closed(&running)
    );
}

#[tokio::test]
async fn a_connection_closed_between_requests_is_not() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    smtpd.ask(&good()).await;
    assert_eq!(smtpd.close_and_read_rest().await, b"");
    smtpd.service.await.unwrap();
    assert_eq!(closed(&running), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_has_to_be_completed_in_time() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    smtpd.ask(&good()).await;
    smtpd.send(&good().as_bytes()[..100]).await.unwrap();
    assert_eq!(smtpd.read_until_closed().await, b"");
    assert!(
        closed(&running)[0].contains("timed out: a request was not completed within 10 s"),
        "{:?}",
        closed(&running)
    );
}

#[tokio::test(start_paused = true)]
async fn a_trickle_is_no_way_to_hold_a_connection() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    for byte in good().as_bytes() {
        if smtpd.send(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(
        closed(&running)[0].contains("timed out: a request was not completed within 10 s"),
        "{:?}",
        closed(&running)
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_as_long_as_postfix_keeps_it() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    smtpd.ask(&good()).await;
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(smtpd.ask(&good()).await, "DUNNO");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(smtpd.service.is_finished(), "but not for ever");
    assert_eq!(closed(&running), [""; 0], "and that is no fault");
}

#[tokio::test(start_paused = true)]
async fn who_never_reads_the_answers_is_dropped() {
    let running = installation("").run();
    let mut smtpd = running.smtpd(1);
    let requests = good().repeat(20);
    let flood = async { while smtpd.send(requests.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(25), flood).await.expect("the connection is closed");
    assert!(closed(&running)[0].contains("timed out: a response was not read within 10 s"), "{:?}", closed(&running));
}

/// Process IDs can be made up by whoever may connect.
#[tokio::test]
async fn a_flood_of_made_up_smtpds_that_hold_nothing_takes_nobodys_place() {
    let running = installation("").run();
    let mut first = running.smtpd(1);
    let mail = first.next_mail();
    first.ask(&mail.at_recipient("a@dest.example")).await;
    let exempt = |pid: u32| Mail { client: "127.0.0.1".into(), instance: format!("x{pid}.1.2.3"), ..Mail::default() };
    let mut flood = running.smtpd(2);
    // Of the same peer, and more than its share.
    for pid in 0..20_000 {
        assert_eq!(flood.ask(&exempt(pid).at_recipient("b@dest.example")).await, "DUNNO");
    }
    first.ask(&mail.at_end(&["a@dest.example"])).await;
    assert_eq!(running.counted_and_reserved("acme").await, (1, 0));
    assert_eq!(closed(&running), [""; 0]);
}

/// Nor do those that hold reservations take more than a share.
#[tokio::test]
async fn a_flood_of_made_up_smtpds_with_reservations_is_stopped_and_harms_nobody_else() {
    const SHARE: u32 = 8_192;
    let unlimited = "limits.customer = { recipients_per_day = \"unlimited\", recipients_per_10_min = \"unlimited\" }";
    let acme = ACME.replace("limits.customer.recipients_per_day = 10", unlimited);
    let running = Installation::of(&main_file(""), [("acme.toml", &*acme)]).run();
    let reserving = |pid: u32| Mail { instance: format!("x{pid}.1.2.3"), ..Mail::default() };
    let mut flood = running.smtpd_of(Peer::Ip([198, 51, 100, 1].into()), 1);
    for pid in 0..SHARE {
        assert_eq!(flood.ask(&reserving(pid).at_recipient("b@dest.example")).await, "DUNNO");
    }
    let ended = flood.try_ask(&reserving(SHARE).at_recipient("b@dest.example")).await.expect_err("one too many");
    assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    assert!(closed(&running)[0].contains("too many SMTP sessions with open transactions"), "{:?}", closed(&running));
    assert_eq!(running.smtpd(3).ask(&good()).await, "DUNNO");
    // Silence makes room again.
    running.policy.finish().await;
    let mut flood = running.smtpd_of(Peer::Ip([198, 51, 100, 1].into()), 1);
    assert_eq!(flood.ask(&reserving(SHARE).at_recipient("b@dest.example")).await, "DUNNO");
}
