//! What is agreed upon with MTAs of every age, and a message with each.

use crate::common::installation::Running;
use crate::common::mta::{
    ADD_RECIPIENT, ADD_RECIPIENT_WITH_ARGUMENTS, Answer, CHANGE_SENDER, Client, Kind, Mta, NO_BODY, NO_EOH, NO_HEADER,
    NO_HELO, NOREPLY_BODY, NOREPLY_CONNECT, NOREPLY_EOH, NOREPLY_HEADER, NOREPLY_HELO, NOREPLY_MAIL, Offer,
    REQUEST_MACROS,
};
use crate::common::soon;
use crate::{ACME, Installation, installation, main_file};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A message with every step that was not agreed to be left out.
async fn send(mta: &mut Mta, client: Client) -> Answer {
    mta.begin(client).await;
    assert_eq!(mta.mail("ann@acme.example").await, Answer::Continue);
    assert_eq!(mta.recipient("x@dest.example").await, Answer::Continue);
    for (command, data, left_out, noreply) in [
        (b'T', &b""[..], 0x200, 0),
        (b'L', b"Subject\0hello\0", NO_HEADER, NOREPLY_HEADER),
        (b'N', b"", NO_EOH, NOREPLY_EOH),
        (b'B', b"A body.\r\n", NO_BODY, NOREPLY_BODY),
    ] {
        let since = if command == b'T' { 4 } else { 2 };
        if mta.agreed.steps & left_out == 0 && mta.agreed.version >= since {
            assert_eq!(mta.step(command, data, noreply).await, Answer::Continue, "{}", command as char);
        }
    }
    mta.end().await.1
}

async fn counted(running: &Running) -> u64 {
    running.counted_and_reserved("acme").await.0
}

#[tokio::test]
async fn mtas_of_every_version_are_served() {
    let many = ACME.replace("recipients_per_day = 10", "recipients_per_day = 1000");
    let running = Installation::of(&main_file(""), [("acme.toml", many.as_str())]).run();
    let milter = running.start_milter();
    let mut sent = 0;
    let offers = [
        Offer::V2,
        Offer { version: 3, actions: 0x3f, steps: 0x17f },
        Offer { version: 4, actions: 0x3f, steps: 0x37f },
        Offer { version: 6, ..Offer::V6 },
        // Of the future.
        Offer { version: 7, actions: 0x1ff, steps: 0x1f_ffff },
        // No step can be left out.
        Offer { version: 6, actions: 0x1ff, steps: 0x400 },
        // Steps can be left out, but those that come are answered.
        Offer { version: 6, actions: 0x1ff, steps: 0x7ff },
    ];
    for offer in offers {
        for kind in [Kind::Postfix, Kind::Sendmail] {
            let mut mta = Mta::negotiate(&milter.path, kind, offer).await;
            assert_eq!(mta.agreed.version, offer.version.min(6));
            assert_eq!(send(&mut mta, Client::default()).await, Answer::Continue, "{offer:?}");
            if offer.version >= 3 && mta.agreed.steps & 0x100 == 0 {
                assert_eq!(mta.step(b'U', b"XYZZY\0", 0).await, Answer::Continue, "an unknown command");
            }
            mta.quit().await;
            sent += 1;
            assert_eq!(counted(&running).await, sent, "{offer:?}");
        }
    }
}

#[tokio::test]
async fn an_mta_older_than_version_2_is_left() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mut stream = UnixStream::connect(&milter.path).await.unwrap();
    stream.write_all(b"\0\0\0\x0dO\0\0\0\x01\0\0\0\x3f\0\0\0\x7f").await.unwrap();
    let mut rest = Vec::new();
    soon("the connection is closed", stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn only_what_is_needed_is_asked_for() {
    let running = installation("[limits]\nmessage.attachments_bytes = \"unlimited\"\n").run();
    let milter = running.start_milter_with(true);
    let mta = Mta::connect(&milter.path, Kind::Postfix).await;
    assert_eq!(mta.agreed.actions, CHANGE_SENDER | ADD_RECIPIENT | ADD_RECIPIENT_WITH_ARGUMENTS);
    // DATA, headers, body, unknown commands are left out; who connects, what is said at HELO, MAIL and RCPT is not. With
    // a policy service beside, CONNECT is answered: a request about the session comes after it.
    assert_eq!(mta.agreed.steps & 0x3ff, 0x200 | 0x100 | 0x40 | 0x20 | 0x10);
    assert_eq!(mta.agreed.steps & (NO_HELO | NOREPLY_CONNECT | NOREPLY_HELO | NOREPLY_MAIL), 0);
    let milter = running.start_milter_with(false);
    let mta = Mta::connect(&milter.path, Kind::Postfix).await;
    assert_eq!(mta.agreed.steps & NOREPLY_CONNECT, NOREPLY_CONNECT);
}

/// One customer is enough; and nothing is answered that is only listened to.
#[tokio::test]
async fn contents_are_asked_for_where_their_size_is_limited() {
    let unlimited = "[limits]\nmessage.attachments_bytes = \"unlimited\"\n";
    for limit in ["message.bytes = 1000", "message.attachments_bytes = { max = 1000, shadow = true }"] {
        let customer = ACME.replace("licenses = 100", &format!("licenses = 100\nlimits.{limit}"));
        let running = Installation::of(&main_file(unlimited), [("acme.toml", customer.as_str())]).run();
        let milter = running.start_milter();
        let mta = Mta::connect(&milter.path, Kind::Postfix).await;
        let about_content =
            mta.agreed.steps & (NO_HEADER | NO_EOH | NO_BODY | NOREPLY_HEADER | NOREPLY_EOH | NOREPLY_BODY);
        assert_eq!(about_content, NOREPLY_HEADER | NOREPLY_EOH | NOREPLY_BODY, "{limit}");
    }
}

#[tokio::test]
async fn macros_are_asked_for_where_that_is_offered() {
    let running = installation("").run();
    let milter = running.start_milter();
    let mta = Mta::connect(&milter.path, Kind::Postfix).await;
    let wanted = String::from_utf8_lossy(&mta.macros_wanted).into_owned();
    for name in ["{daemon_addr}", "{daemon_port}", "{tls_version}", "{auth_authen}", "i"] {
        assert!(wanted.contains(name), "{name} in {wanted:?}");
    }
    // Whoever knows nothing of such lists gets none.
    for offer in [Offer::V2, Offer { actions: 0x1ff & !REQUEST_MACROS, ..Offer::V6 }] {
        let mta = Mta::negotiate(&milter.path, Kind::Sendmail, offer).await;
        assert_eq!(mta.macros_wanted, b"", "{offer:?}");
    }
}

#[tokio::test]
async fn an_mta_that_cannot_change_senders_is_told_so_in_words_and_nothing_counts() {
    let running = installation("").run();
    let milter = running.start_milter();
    for offer in [Offer::V2, Offer { actions: 0x1ff & !CHANGE_SENDER, ..Offer::V6 }] {
        let mut mta = Mta::negotiate(&milter.path, Kind::Sendmail, offer).await;
        mta.begin(Client::default()).await;
        mta.mail("x@stranger.example").await;
        let refused = mta.recipient("x@dest.example").await;
        assert!(refused.reply().starts_with("450 4.7.1 Sender x@stranger.example is outside"), "{refused:?}");
        mta.abort().await;
        // Whoever needs no change is served.
        mta.mail("ann@acme.example").await;
        assert_eq!(mta.recipient("x@dest.example").await, Answer::Continue);
        mta.abort().await;
        mta.quit().await;
    }
    assert_eq!(counted(&running).await, 0);
}
