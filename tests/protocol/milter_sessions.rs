//! What MTAs tell in the course of a session, and every way a transaction can end without a message.

use crate::common::installation::{Installation, Milter, Running};
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::{soon, until};
use crate::{ACME, installation};
use relaykeeper::directory::LimitName;
use relaykeeper::listen::Phase;
use relaykeeper::report::decisions;
use relaykeeper::session::RecordedDecision;
use std::io::ErrorKind;

const KINDS: [Kind; 2] = [Kind::Postfix, Kind::Sendmail];

async fn open(milter: &Milter, kind: Kind) -> Mta {
    Mta::open(&milter.path, kind, Client::default()).await
}

/// A transaction with two recipients.
async fn begun(running: &Running, milter: &Milter, kind: Kind) -> Mta {
    let mut mta = open(milter, kind).await;
    mta.mail("ann@acme.example").await;
    assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
    assert_eq!(mta.recipient("b@dest.example").await, Answer::Continue);
    assert_eq!(running.counted_and_reserved("acme").await, (0, 2));
    mta
}

/// Nothing is held, and nothing was counted.
async fn all_is_given_back(what: &str, running: &Running) {
    until(what, async || running.holds_nothing().await).await;
    assert_eq!(running.counted_and_reserved("acme").await, (0, 0), "{what}");
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, 0, "{what}");
}

#[tokio::test]
async fn rset_gives_back() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = begun(&running, &milter, kind).await;
        mta.abort().await;
        all_is_given_back("ABORT", &running).await;
        // The session goes on.
        mta.mail("ann@acme.example").await;
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        mta.abort().await;
        mta.quit().await;
        all_is_given_back("ABORT again", &running).await;
    }
}

#[tokio::test]
async fn a_second_helo_gives_back() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = begun(&running, &milter, kind).await;
        // Postfix says HELO, then ABORT; Sendmail the other way round.
        if kind == Kind::Sendmail {
            mta.abort().await;
        }
        assert_eq!(mta.helo("").await, Answer::Continue);
        all_is_given_back("HELO", &running).await;
        if kind == Kind::Postfix {
            mta.abort().await;
        }
        mta.mail("ann@acme.example").await;
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        assert_eq!(running.counted_and_reserved("acme").await, (0, 1));
        mta.abort().await;
        mta.quit().await;
        all_is_given_back("ABORT", &running).await;
    }
}

#[tokio::test]
async fn a_second_mail_gives_back() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = begun(&running, &milter, kind).await;
        assert_eq!(mta.mail("ann@acme.example").await, Answer::Continue);
        all_is_given_back("MAIL", &running).await;
        mta.quit().await;
    }
}

#[tokio::test]
async fn quit_gives_back() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        begun(&running, &milter, kind).await.quit().await;
        all_is_given_back("QUIT", &running).await;
    }
}

#[tokio::test]
async fn an_mta_that_vanishes_gives_back() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        drop(begun(&running, &milter, kind).await);
        all_is_given_back("the connection is lost", &running).await;
        let mut mta = begun(&running, &milter, kind).await;
        mta.send_raw(b"\0\0\0\x20R<half a frame").await.unwrap();
        drop(mta);
        all_is_given_back("the connection is lost in the midst of a frame", &running).await;
    }
}

#[tokio::test]
async fn a_message_that_is_refused_for_all_recipients_holds_nothing() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut mta =
        Mta::open(&milter.path, Kind::Postfix, Client { address: "203.0.113.1".into(), ..Client::default() }).await;
    mta.mail("ann@acme.example").await;
    assert!(mta.recipient("a@dest.example").await.reply().starts_with("550 5.7.1 "));
    all_is_given_back("refused", &running).await;
    mta.quit().await;
}

#[tokio::test]
async fn an_accepted_message_counts_and_the_next_one_too() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut sent = 0;
    for kind in KINDS {
        let mut mta = open(&milter, kind).await;
        for _ in 0..3 {
            mta.mail("ann@acme.example").await;
            assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
            assert_eq!(mta.end().await, (vec![], Answer::Continue));
            sent += 1;
            assert_eq!(running.counted_and_reserved("acme").await, (sent, 0));
        }
        mta.quit().await;
    }
    assert_eq!(running.used("ann@acme.example", LimitName::UserMessages).await, sent);
    assert_eq!(running.used("ann@acme.example", LimitName::UserUniques).await, 1);
}

#[tokio::test]
async fn an_end_that_does_not_fit_any_more_is_refused_and_counts_nothing() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut slow = begun(&running, &milter, kind).await;
        running.pass_time(std::time::Duration::from_secs(600));
        let elsewhere = Client { port: 4800, ..Client::default() };
        let mut fast = Mta::open(&milter.path, kind, elsewhere).await;
        fast.mail("ann@acme.example").await;
        for n in 0..10 {
            assert_eq!(fast.recipient(&format!("r{n}@dest.example")).await, Answer::Continue);
        }
        assert_eq!(fast.end().await.1, Answer::Continue);
        let (senders, refused) = slow.end().await;
        assert!(refused.reply().starts_with("450 4.7.1 Daily SMTP relay limit exceeded for customer"), "{refused:?}");
        assert_eq!(senders, [""; 0]);
        assert_eq!(running.counted_and_reserved("acme").await, (10, 0));
        running.pass_time(std::time::Duration::from_secs(86_400));
    }
}

#[tokio::test]
async fn tls_is_learned_at_the_second_helo_and_belongs_to_its_session() {
    let strict = ACME.replace("allowed_senders", "require_tls = true\nallowed_senders");
    let running = crate::Installation::of(&crate::main_file(""), [("acme.toml", strict.as_str())]).run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = open(&milter, kind).await;
        mta.mail("ann@acme.example").await;
        let refused = mta.recipient("a@dest.example").await;
        assert!(refused.reply().starts_with("530 5.7.0 Must issue a STARTTLS command first"), "{refused:?}");
        mta.abort().await;
        assert_eq!(mta.helo("TLSv1.3").await, Answer::Continue);
        for _ in 0..2 {
            mta.mail("ann@acme.example").await;
            assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
            assert_eq!(mta.end().await.1, Answer::Continue);
        }
        mta.quit().await;
        let line = running.log_lines().into_iter().rfind(|line| line.contains("verdict=accept")).unwrap();
        assert!(line.contains(" tls=TLSv1.3 "), "{line}");
    }
}

#[tokio::test]
async fn the_login_belongs_to_its_message() {
    let roaming = ACME.replace("ip = [{ range = \"192.0.2.0/24\" }]", "require_auth = true");
    let running = crate::Installation::of(&crate::main_file(""), [("acme.toml", roaming.as_str())]).run();
    let milter = running.start_milter();
    for kind in KINDS {
        let client = |login: &str| Client { tls: "TLSv1.3".into(), login: login.into(), ..Client::default() };
        let mut mta = Mta::open(&milter.path, kind, client("ann@acme.example")).await;
        mta.mail("ann@acme.example").await;
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        mta.end().await;
        mta.quit().await;
        let mut mta = Mta::open(&milter.path, kind, client("")).await;
        mta.mail("ann@acme.example").await;
        assert!(mta.recipient("a@dest.example").await.reply().starts_with("530 5.7.0 Authentication required"));
        mta.quit().await;
    }
}

#[tokio::test]
async fn a_login_that_is_no_utf_8_is_a_login_all_the_same() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut mta =
        Mta::open(&milter.path, Kind::Postfix, Client { address: "127.0.0.1".into(), ..Client::default() }).await;
    let mut macros = b"M{auth_authen}\0andr".to_vec();
    macros.extend_from_slice(b"\xe9\0");
    mta.send(b'D', &macros).await.unwrap();
    assert_eq!(mta.step(b'M', b"<x@stranger.example>\0", 0).await, Answer::Continue);
    let refused = mta.recipient("x@dest.example").await;
    assert!(
        refused.reply().starts_with("550 5.7.0 Mail relay denied [127.0.0.1]: no customer is registered for andr"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_queue_id_stands_first_in_the_log_as_soon_as_the_mta_tells_it() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let before = running.log_lines().len();
        let mut mta = open(&milter, kind).await;
        mta.mail("ann@acme.example").await;
        let id = mta.queue_id_of_message();
        assert!(matches!(mta.recipient(&format!("{}@dest.example", "r".repeat(1_100))).await, Answer::Reply(_)));
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        assert!(matches!(mta.recipient(&format!("{}@dest.example", "r".repeat(1_100))).await, Answer::Reply(_)));
        mta.end().await;
        mta.mail("ann@acme.example").await;
        let next_id = mta.queue_id_of_message();
        assert!(matches!(mta.recipient(&format!("{}@dest.example", "r".repeat(1_100))).await, Answer::Reply(_)));
        mta.quit().await;
        let lines = running.log_lines()[before..].to_vec();
        let starts: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
        match kind {
            // Not before the first accepted recipient.
            Kind::Postfix => assert_eq!(starts, ["NOQUEUE", &id, &id, "NOQUEUE"]),
            Kind::Sendmail => assert_eq!(starts, [&*id, &id, &id, &next_id]),
        }
    }
}

#[tokio::test]
async fn addresses_come_as_typed() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = open(&milter, kind).await;
        for (n, sender) in
            [&b"ann@acme.example"[..], b"<@relay.example:Ann@ACME.example>", b" <ann@acme.example>"].iter().enumerate()
        {
            assert_eq!(mta.mail_as(sender).await, Answer::Continue);
            for recipient in [&b"A@dest.example"[..], b"<@r.example,@s.example:a@DEST.example>", b"<a@dest.example.>"] {
                assert_eq!(mta.recipient_as(recipient).await, Answer::Continue);
            }
            assert_eq!(running.counted_and_reserved("acme").await.1, 1, "{n}");
            mta.abort().await;
        }
        mta.quit().await;
    }
}

#[tokio::test]
async fn mail_of_the_machine_itself_is_exempt_however_it_comes_in() {
    let running = installation("").run();
    let milter = running.start_milter();
    // sendmail(1) over a local socket, Postfix's non_smtpd_milters, and an SMTP session from the loopback.
    for (kind, address, port) in [
        (Kind::Sendmail, "local", 0),
        (Kind::Postfix, "127.0.0.1", 0),
        (Kind::Sendmail, "::1", 4712),
        (Kind::Postfix, "::1", 4713),
    ] {
        let client = Client { address: address.into(), port, helo: "localhost".into(), ..Client::default() };
        let mut mta = Mta::open(&milter.path, kind, client).await;
        mta.mail_as(b"root").await;
        assert_eq!(mta.recipient_as(b"x@dest.example").await, Answer::Continue, "{kind:?} {address}");
        assert_eq!(mta.end().await, (vec![], Answer::Continue));
        mta.quit().await;
    }
    assert_eq!(running.counted_and_reserved("acme").await, (0, 0));
}

/// Postfix's `non_smtpd_milters`: loopback address, port 0, no HELO.
#[tokio::test]
async fn a_message_of_sendmail_1_that_alone_exceeds_a_limit_is_refused_for_good_at_its_end() {
    let acme = ACME.replace("192.0.2.0/24", "127.0.0.1");
    let main = crate::main_file("relay.local_submission = \"judge\"");
    let running = Installation::of(&main, [("acme.toml", acme.as_str())]).run();
    let folder = tempfile::tempdir().unwrap();
    running.engine.record_decisions(folder.path()).unwrap();
    let milter = running.start_milter();
    let client = || Client { address: "127.0.0.1".into(), port: 0, ..Client::default() };
    let send = async |recipients: u32| {
        let mut mta = Mta::connect(&milter.path, Kind::Postfix).await;
        mta.connection(&client()).await;
        mta.mail("ann@acme.example").await;
        for n in 0..recipients {
            assert_eq!(mta.recipient(&format!("r{n}@dest.example")).await, Answer::Continue, "nothing before the end");
        }
        mta.end().await.1
    };
    let answer = send(11).await;
    let reply = answer.reply();
    assert!(reply.starts_with("550 5.7.1 Daily SMTP relay limit exceeded for customer: 10 recipients"), "{reply}");
    assert!(reply.contains("this message alone exceeds it: send to fewer recipients at a time"), "{reply}");
    assert_eq!(send(8).await, Answer::Continue);
    let answer = send(3).await;
    assert!(answer.reply().starts_with("450 4.7.1 Daily"), "it would fit another day: {answer:?}");
    assert_eq!(running.counted_and_reserved("acme").await, (8, 0));
    running.engine.decisions().unwrap().flush(crate::common::PATIENCE);
    let reference = reply.rsplit_once('[').unwrap().1.trim_end_matches(']').parse().unwrap();
    let record = decisions::find(folder.path(), reference).unwrap().expect("it is recorded");
    let record: RecordedDecision = serde_json::from_str(&record).unwrap();
    let last = record.steps.last().unwrap();
    assert!(last.step == "recipients" && last.because.contains("this message alone exceeds it"), "{last:?}");
}

#[tokio::test]
async fn the_sender_is_changed_once_and_before_the_answer() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = open(&milter, kind).await;
        mta.mail("x@stranger.example").await;
        mta.recipient("a@dest.example").await;
        mta.recipient("b@dest.example").await;
        assert_eq!(mta.end().await, (vec!["postmaster@acme.example".to_owned()], Answer::Continue));
        // It does not stick to the next message.
        mta.mail("ann@acme.example").await;
        mta.recipient("a@dest.example").await;
        assert_eq!(mta.end().await, (vec![], Answer::Continue));
        mta.quit().await;
    }
}

#[tokio::test]
async fn garbage_ends_its_own_session_only_gives_back_and_is_logged_once() {
    let running = installation("").run();
    let milter = running.start_milter();
    let garbage: [(&str, &[u8]); 7] = [
        ("a frame of no length", b"\0\0\0\0"),
        ("a frame of impossible length", b"\xff\xff\xff\xffM"),
        ("an unknown command", b"\0\0\0\x01z"),
        ("SMTP", b"MAIL FROM:<ann@acme.example>\r\n"),
        ("a CONNECT that ends nowhere", b"\0\0\0\x06Chost4"),
        ("MAIL without an address", b"\0\0\0\x01M"),
        ("RCPT that ends nowhere", b"\0\0\0\x04Rabc"),
    ];
    for (what, bytes) in garbage {
        let mut good = open(&milter, Kind::Postfix).await;
        good.mail("ann@acme.example").await;
        let mut bad = open(&milter, Kind::Postfix).await;
        bad.mail("ann@acme.example").await;
        assert_eq!(bad.recipient("a@dest.example").await, Answer::Continue);
        bad.send_raw(bytes).await.unwrap();
        bad.send_raw(b"\0\0\0\x01Q").await.ok();
        drop(bad);
        assert_eq!(good.recipient("a@dest.example").await, Answer::Continue, "{what}");
        good.abort().await;
        good.quit().await;
        all_is_given_back(what, &running).await;
    }
    let lines = running.log_lines();
    let lines: Vec<_> = lines.iter().filter(|line| line.contains("milter connection from local process")).collect();
    assert_eq!(lines.len(), 1, "once a minute: {lines:#?}");
}

#[tokio::test]
async fn invalid_data_are_logged_too() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut bad = Mta::connect(&milter.path, Kind::Postfix).await;
    bad.send(b'C', b"host.example\x004\x12\x67192.0.2.7").await.unwrap();
    assert_eq!(bad.receive().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    until("it is logged", async || {
        running
            .log_lines()
            .iter()
            .any(|line| line.contains("milter connection from local process") && line.contains("malformed request: "))
    })
    .await;
}

#[tokio::test]
async fn regular_ends_are_no_garbage() {
    let running = installation("").run();
    let mut milter = running.start_milter();
    for kind in KINDS {
        begun(&running, &milter, kind).await.quit().await;
        drop(open(&milter, kind).await);
    }
    let open_at_stop = open(&milter, Kind::Postfix).await;
    milter.phase.send_replace(Phase::Closing);
    soon("the service ends", &mut milter.task).await.unwrap();
    drop(open_at_stop);
    assert!(
        !running.log_lines().iter().any(|line| line.contains("milter connection from")),
        "{:#?}",
        running.log_lines()
    );
}

#[tokio::test]
async fn steps_out_of_order_do_no_harm() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut mta = open(&milter, Kind::Postfix).await;
    // A recipient without a sender, the end of no message, another CONNECT: nothing to decide, and no answer is due.
    mta.send(b'R', b"<a@dest.example>\0").await.unwrap();
    mta.send(b'E', b"").await.unwrap();
    mta.send(b'C', b"host.example\x004\x12\x67127.0.0.1\0").await.unwrap();
    mta.send(b'O', &[0; 12]).await.unwrap();
    // What follows is served, and still for the client that connected.
    mta.mail("ann@acme.example").await;
    assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
    assert_eq!(running.counted_and_reserved("acme").await, (0, 1));
    mta.quit().await;
    all_is_given_back("QUIT", &running).await;
}

#[tokio::test]
async fn a_transaction_keeps_the_configuration_that_it_began_with() {
    let installation = installation("");
    let running = installation.run();
    let milter = running.start_milter();
    let mut mta = begun(&running, &milter, Kind::Postfix).await;
    let closed = ACME.replace("192.0.2.0/24", "198.51.100.0/24");
    running.engine.replace_snapshot(installation.with_customer("acme.toml", &closed));
    assert_eq!(mta.recipient("c@dest.example").await, Answer::Continue);
    assert_eq!(mta.end().await.1, Answer::Continue);
    mta.mail("ann@acme.example").await;
    assert!(mta.recipient("a@dest.example").await.reply().starts_with("550 5.7.1 "));
    assert_eq!(running.counted_and_reserved("acme").await, (3, 0));
}
