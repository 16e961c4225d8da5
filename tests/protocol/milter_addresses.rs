//! What MTAs say of clients, logins and addresses beside what clients type.

use crate::common::installation::Running;
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::soon;
use crate::{installation, main_file};
use relaykeeper::directory::LimitName;

const KINDS: [Kind; 2] = [Kind::Postfix, Kind::Sendmail];

fn has_line(running: &Running, words: &str) -> bool {
    running.log_lines().iter().any(|line| line.contains(words))
}

#[tokio::test]
async fn an_address_that_the_mta_reads_as_another_domain_is_refused_and_logged() {
    let running = installation("relay.exempt_recipient_domains = [\"inbound.example\"]").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        mta.sender_reading = "ann@acme.example".into();
        mta.mail("ann@acme.example").await;
        mta.recipient_reading = "v@dest.example".into();
        let refused = mta.recipient("v%dest.example@inbound.example").await;
        let words = "501 5.1.3 Bad recipient address syntax: this mail server would read it as an address in dest.example, \
                     not in inbound.example [";
        assert!(refused.reply().starts_with(words), "{kind:?}: {refused:?}");
        assert!(has_line(&running, "reason=bad-recipient"));
        // What it made of one says nothing about the next.
        assert_eq!(mta.recipient("w%dest.example@inbound.example").await, Answer::Continue);
        assert_eq!(running.counted_and_reserved("acme").await, (0, 1));
        mta.abort().await;

        mta.sender_reading = "ceo@foreign.example".into();
        mta.mail("ceo%foreign.example@acme.example").await;
        let refused = mta.recipient("v@dest.example").await;
        let words = "501 5.1.7 Bad sender address syntax: this mail server would read it as an address in foreign.example, \
                     not in acme.example [";
        assert!(refused.reply().starts_with(words), "{kind:?}: {refused:?}");
        mta.quit().await;
    }
}

/// Virtual users, domain tables, missing domains: what the operator's own tables do.
#[tokio::test]
async fn what_the_mta_rewrites_by_its_tables_passes() {
    let running = installation("relay.exempt_recipient_domains = [\"inbound.example\"]").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        for (typed, reading) in [("ann@acme.example", "ann@new.example"), ("ann@acme.example", "ann"), ("", "")] {
            mta.sender_reading = reading.into();
            mta.mail(typed).await;
            for (typed, reading) in
                [("info@inbound.example", "boss@elsewhere.example"), ("info@INBOUND.example.", "info@inbound.example")]
            {
                mta.recipient_reading = reading.into();
                assert_eq!(mta.recipient(typed).await, Answer::Continue, "{typed}: {reading}");
            }
            mta.recipient_reading = "root@mx.test.example".into();
            assert_eq!(mta.recipient("root").await, Answer::Continue);
            mta.abort().await;
        }
        mta.quit().await;
    }
}

#[tokio::test]
async fn what_is_not_utf_8_is_no_address() {
    let running = installation("").run();
    let milter = running.start_milter();
    for kind in KINDS {
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        mta.mail("ann@acme.example").await;
        let refused = mta.recipient_as(b"<v\xfc@dest.example>").await;
        assert!(refused.reply().starts_with("501 5.1.3 Bad recipient address syntax: "), "{refused:?}");
        assert_eq!(mta.recipient_as("<vü@dest.example>".as_bytes()).await, Answer::Continue);
        mta.abort().await;
        mta.mail_as(b"<\xfc@acme.example>").await;
        let refused = mta.recipient("v@dest.example").await;
        assert!(refused.reply().starts_with("501 5.1.7 Bad sender address syntax: "), "{refused:?}");
        assert!(has_line(&running, "reason=bad-sender"));
        mta.quit().await;
    }
}

/// Sendmail's `{auth_authen}` is xtext, Postfix's is not.
#[tokio::test]
async fn a_login_is_the_same_from_both_mtas() {
    let acme = "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 1\n[[user]]\naddress = \"car+ol@acme.example\"\n\
                logins = [\"car+2Bol\", \"käthe=x\"]\n\
                [[setting]]\nname = \"login\"\nallowed_senders = \"registered-users\"\nrequire_auth = true\n";
    let main = main_file("relay.sender_must_match_login = true\nrelay.sender_forms = []");
    let running = crate::Installation::of(&main, [("acme.toml", acme)]).run();
    let milter = running.start_milter();
    let mut sent = 0;
    for kind in KINDS {
        for login in ["car+ol@acme.example", "car+2Bol", "käthe=x"] {
            let client = Client { login: login.into(), tls: "TLSv1.3".into(), ..Client::default() };
            let mut mta = Mta::open(&milter.path, kind, client).await;
            mta.mail("car+ol@acme.example").await;
            assert_eq!(mta.recipient("v@dest.example").await, Answer::Continue, "{kind:?}: {login}");
            assert_eq!(mta.end().await.1, Answer::Continue);
            sent += 1;
            assert_eq!(running.used("car+ol@acme.example", LimitName::UserMessages).await, sent, "{kind:?}: {login}");
            mta.quit().await;
        }
    }
}

#[tokio::test]
async fn no_address_in_connect_ends_the_session() {
    let acme = "name = \"acme\"\ndomains = [\"acme.example\"]\nlicenses = 1\n[[setting]]\nname = \"link\"\n\
                allowed_senders = \"own-domains\"\nip = [{ range = \"fe80::1\" }]\n";
    let running = crate::Installation::of(&main_file(""), [("acme.toml", acme)]).run();
    let milter = running.start_milter();
    let mut odd: Vec<(u8, &[u8])> =
        [&b"fe80::1%eth0"[..], b"IPv6:fe80::1%25eth0", b"FE80::1%"].map(|ip| (b'6', ip)).into();
    let in_range = odd.len();
    odd.extend([&b"unknown"[..], b"", b"192.0.2", b"\xff\xfe", b"fe80::1 eth0", b"%"].map(|ip| (b'6', ip)));
    odd.extend([(b'4', &b"300.1.1.1"[..]), (b'X', b"something"), (0, b"")]);
    for (n, (family, address)) in odd.into_iter().enumerate() {
        let mut mta = Mta::connect(&milter.path, Kind::Postfix).await;
        let data = [b"host\0", &[family, 0x12, 0x67][..], address, b"\0"].concat();
        assert_eq!(mta.step(b'C', &data, 0).await, Answer::Continue, "{address:?}");
        mta.helo("").await;
        mta.mail("ann@acme.example").await;
        let answer = soon("an answer to RCPT", mta.recipient("v@dest.example")).await;
        match n < in_range {
            true => assert_eq!(answer, Answer::Continue, "{address:?}"),
            false => assert!(answer.reply().contains("[unknown]"), "{address:?}: {answer:?}"),
        }
        mta.quit().await;
    }
}
