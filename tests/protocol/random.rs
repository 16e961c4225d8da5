//! Whatever comes over either protocol: no panic, nobody waits for ever, and when all connections are gone nothing is
//! held.

use crate::common::installation::Running;
use crate::common::mta::{Client, Kind, Mta};
use crate::common::smtpd::Mail;
use crate::common::{soon, until};
use crate::installation;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Panics of tasks are swallowed by the runtime: they are counted.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let of_the_daemon = panic.location().is_none_or(|at| !at.file().starts_with("tests/"));
            PANICS.fetch_add(usize::from(of_the_daemon), Ordering::SeqCst);
            default(panic);
        }));
    });
}

fn block_on(test: impl Future<Output = ()>) {
    count_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        soon("the test ends", test).await;
    });
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
}

async fn check_that_nothing_is_held(running: &Running) {
    running.policy.finish().await;
    until("all is given back", async || running.holds_nothing().await).await;
    until("all sessions are over", async || running.engine.sessions.is_empty()).await;
}

fn settings() -> ProptestConfig {
    let cases = std::env::var("RANDOM_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(48), failure_persistence: None, ..ProptestConfig::default() }
}

// Milter

#[derive(Clone, Debug)]
enum Frame {
    Good(u8, Vec<u8>),
    Raw(Vec<u8>),
}

fn data_of(command: u8) -> BoxedStrategy<Vec<u8>> {
    let choose = |texts: &'static [&'static [u8]]| select(texts).prop_map(<[u8]>::to_vec).boxed();
    match command {
        b'C' => choose(&[
            b"mx.acme.example\x004\x12\x67192.0.2.7\0",
            b"mx.acme.example\x006\x12\x67IPv6:2001:db8:0:0:0:0:0:7\0",
            b"host\x00U",
            b"host\x00L\0\0/run/x\0",
            b"host\x004\x12\x67nonsense\0",
            b"host\x006\0",
            b"\0",
        ]),
        b'D' => choose(&[
            b"M{auth_authen}\0ann\0i\x003F2A\0",
            b"H{tls_version}\0TLSv1.3\0",
            b"C{daemon_addr}\x00198.51.100.25\0",
            b"Ri\x003F2A1C0\0",
            b"M",
            b"Mi\0",
            b"\xff\0\0",
        ]),
        b'H' => choose(&[b"mx.acme.example\0", b"localhost\0", b"\xff\xfe\0", b"", b"no end"]),
        b'M' => {
            choose(&[b"<ann@acme.example>\0SIZE=1\0", b"<>\0", b"<x@stranger.example>\0", b"\0", b"\xff@\xff\0", b""])
        }
        b'R' => choose(&[b"<a@dest.example>\0", b"<b@dest.example>\0", b"<>\0", b"<@,@:@>\0", b"\r\n\0", b"no end"]),
        b'O' => choose(&[b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff", b"\0\0\0\x02\0\0\0\x3f\0\0\0\x7f", b"\0", b""]),
        _ => vec(any::<u8>(), 0..40).boxed(),
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    let commands = b"CCDDHHMMMMRRRRRREEEAAQOTLNBUK".to_vec();
    let good = select(commands)
        .prop_flat_map(|command| (Just(command), data_of(command)))
        .prop_map(|(command, data)| Frame::Good(command, data));
    prop_oneof![
        20 => good,
        1 => vec(any::<u8>(), 1..200).prop_map(Frame::Raw),
        1 => (any::<u8>(), vec(any::<u8>(), 0..50)).prop_map(|(command, data)| Frame::Good(command, data)),
    ]
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn any_frames_over_the_milter_protocol(sessions in vec((any::<bool>(), vec(frame(), 0..40)), 1..6)) {
        block_on(async {
            let running = installation("").run();
            let milter = running.start_milter();
            let mut opened = Vec::new();
            for (negotiated, frames) in sessions {
                let mut mta = if negotiated {
                    Mta::open(&milter.path, Kind::Sendmail, Client::default()).await
                } else {
                    Mta::connect(&milter.path, Kind::Postfix).await
                };
                for frame in frames {
                    let sent = match frame {
                        Frame::Good(command, data) => mta.send(command, &data).await,
                        Frame::Raw(bytes) => mta.send_raw(&bytes).await,
                    };
                    if sent.is_err() {
                        break;
                    }
                }
                opened.push(mta);
            }
            // Whatever they did, this one is served, and counts.
            running.pass_time(std::time::Duration::from_secs(2 * 86_400));
            let mut good = Mta::open(&milter.path, Kind::Postfix, Client { port: 9, ..Client::default() }).await;
            good.mail("bob@acme.example").await;
            let served = good.recipient("c@dest.example").await;
            prop_assert_served(&served);
            good.quit().await;
            drop(opened);
            check_that_nothing_is_held(&running).await;
        });
    }

    #[test]
    fn any_bytes_over_the_milter_protocol(chunks in vec(vec(any::<u8>(), 1..300), 0..10)) {
        block_on(async {
            let running = installation("").run();
            let milter = running.start_milter();
            let mut mta = Mta::connect(&milter.path, Kind::Postfix).await;
            for chunk in chunks {
                if mta.send_raw(&chunk).await.is_err() {
                    break;
                }
            }
            drop(mta);
            check_that_nothing_is_held(&running).await;
        });
    }
}

/// Accepted, or refused in words because others hold or sent what there is.
fn prop_assert_served(answer: &crate::common::mta::Answer) {
    use crate::common::mta::Answer;
    match answer {
        Answer::Continue => {}
        Answer::Reply(reply) => assert!(reply.starts_with("450 4.7.1 Daily"), "{reply}"),
        other => panic!("{other:?}"),
    }
}

// Policy

#[derive(Clone, Debug)]
enum Said {
    Request(String),
    Bytes(Vec<u8>),
    Reconnect,
}

fn request() -> impl Strategy<Value = String> {
    let states = select(vec!["RCPT", "RCPT", "RCPT", "END-OF-MESSAGE", "DATA", "VRFY", ""]);
    let recipients =
        select(vec!["a@dest.example", "b@dest.example", "c@dest.example", "", "@", "\u{1}", "info@inbound.example"]);
    let senders = select(vec!["ann@acme.example", "x@stranger.example", "", "root", "a=b@acme.example"]);
    let clients = select(vec!["192.0.2.7", "203.0.113.1", "127.0.0.1", "unknown", ""]);
    (states, recipients, senders, clients, 0..5u32, 0..4u64, select(vec!["", "relay"])).prop_map(
        |(state, recipient, sender, client, message, count, context)| {
            let instance = format!("{:x}.1.2.{}", message % 2, message);
            let mail = Mail { sender: sender.into(), client: client.into(), instance, ..Mail::default() };
            mail.request(state, recipient, count, context)
        },
    )
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        20 => request().prop_map(Said::Request),
        2 => Just(Said::Reconnect),
        1 => vec(any::<u8>(), 1..100).prop_map(Said::Bytes),
        1 => ("[a-z_=\n]{1,60}\n\n").prop_map(|text| Said::Bytes(text.into_bytes())),
    ]
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn anything_over_the_policy_protocol(
        mode in select(vec!["auto", "rcpt", "end-of-message"]),
        all in vec((0..3u32, said()), 0..80),
    ) {
        block_on(async {
            let more = format!("policy.count_at = \"{mode}\"\nrelay.exempt_recipient_domains = [\"inbound.example\"]");
            let running = installation(&more).run();
            let mut smtpds: Vec<_> = (0..3).map(|pid| running.smtpd(pid)).collect();
            for (who, said) in all {
                let smtpd = &mut smtpds[who as usize];
                let goes_on = match said {
                    Said::Request(request) => smtpd.try_ask(&request).await.is_ok(),
                    Said::Bytes(bytes) => smtpd.send(&bytes).await.is_ok(),
                    Said::Reconnect => false,
                };
                if !goes_on {
                    *smtpd = running.smtpd(who);
                }
                let (used, reserved) = running.counted_and_reserved("acme").await;
                assert!(used + reserved <= 10, "over the limit: {used} + {reserved}");
            }
            drop(smtpds);
            check_that_nothing_is_held(&running).await;
        });
    }

    /// Against a model: what was accepted at its end counts, each recipient once, and nothing else.
    #[test]
    fn what_is_accepted_counts_exactly(
        transactions in vec((vec((0..4u8, 1..3usize), 1..6), any::<bool>(), any::<bool>()), 1..12),
    ) {
        block_on(async {
            let running = installation("").run();
            let mut smtpd = running.smtpd(1);
            let exempt = Mail { client: "127.0.0.1".into(), ..smtpd.next_mail() };
            smtpd.ask(&exempt.at_end(&[])).await;
            let mut counted = 0;
            for (recipients, is_sent, is_repeated) in transactions {
                let mail = smtpd.next_mail();
                let mut accepted = Vec::new();
                for (recipient, times) in recipients {
                    let recipient = format!("r{recipient}@dest.example");
                    let mut answer = String::new();
                    for _ in 0..times {
                        answer = smtpd.ask(&mail.at_recipient(&recipient)).await;
                    }
                    if answer == "DUNNO" {
                        accepted.push(recipient);
                    }
                }
                let different = accepted.iter().collect::<BTreeSet<_>>().len() as u64;
                // Also by a transaction that was refused altogether: the one before is over.
                assert_eq!(running.counted_and_reserved("acme").await, (counted, different));
                assert!(counted + different <= 10);
                if is_sent && !accepted.is_empty() {
                    let names: Vec<&str> = accepted.iter().map(String::as_str).collect();
                    for _ in 0..=usize::from(is_repeated) {
                        assert_eq!(smtpd.ask(&mail.at_end(&names)).await, "DUNNO");
                    }
                    counted += different;
                    assert_eq!(running.counted_and_reserved("acme").await, (counted, 0));
                }
            }
            drop(smtpd);
            check_that_nothing_is_held(&running).await;
            assert_eq!(running.counted_and_reserved("acme").await, (counted, 0));
        });
    }
}
