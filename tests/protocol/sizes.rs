//! The size of messages and attachments, as both protocols tell it.

use crate::common::installation::{Installation, Running};
use crate::common::message::{of_bytes, with_attachments};
use crate::common::mta::{Answer, Client, Kind, Mta, Offer};
use crate::common::smtpd::Mail;
use crate::{ACME, main_file};

/// 10,000 bytes a message, 1,000 bytes of attachments.
fn limited(more: &str) -> Running {
    let limits = "limits.message.bytes = 10_000\nlimits.message.attachments_bytes = 1_000\n";
    let customer = ACME.replace("licenses = 100", &format!("licenses = 100\n{limits}"));
    Installation::of(&main_file(more), [("acme.toml", customer.as_str())]).run()
}

async fn send(mta: &mut Mta, message: &str) -> Answer {
    assert_eq!(mta.mail("ann@acme.example").await, Answer::Continue);
    assert_eq!(mta.recipient("x@dest.example").await, Answer::Continue);
    mta.content(message).await;
    mta.end().await.1
}

fn too_large(answer: &Answer, words: &str) {
    assert!(answer.reply().starts_with(words), "{answer:?}");
}

#[tokio::test]
async fn attachments_are_measured_over_the_milter_protocol() {
    let running = limited("");
    let milter = running.start_milter();
    for kind in [Kind::Postfix, Kind::Sendmail] {
        let mut mta = Mta::open(&milter.path, kind, Client::default()).await;
        let before = running.counted_and_reserved("acme").await.0;
        too_large(
            &send(&mut mta, &with_attachments(&[1_001])).await,
            "552 5.3.4 Attachment too large: 1001 bytes, at most 1000 bytes are allowed",
        );
        too_large(
            &send(&mut mta, &with_attachments(&[400, 400, 201])).await,
            "552 5.3.4 Attachments too large: 1001 bytes in 3 attachments, at most 1000 bytes together",
        );
        assert_eq!(running.counted_and_reserved("acme").await, (before, 0), "what is refused counts for nobody");
        // Each message is measured for itself.
        assert_eq!(send(&mut mta, &with_attachments(&[400, 400, 200])).await, Answer::Continue);
        assert_eq!(send(&mut mta, &with_attachments(&[1_000])).await, Answer::Continue);
        assert_eq!(send(&mut mta, &of_bytes(9_900)).await, Answer::Continue);
        mta.quit().await;
    }
}

#[tokio::test]
async fn a_message_that_was_given_up_is_not_measured_on() {
    let running = limited("");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Sendmail, Client::default()).await;
    mta.mail("ann@acme.example").await;
    mta.recipient("x@dest.example").await;
    mta.content(&with_attachments(&[5_000])).await;
    mta.abort().await;
    assert_eq!(send(&mut mta, &with_attachments(&[10])).await, Answer::Continue);
    mta.quit().await;
}

#[tokio::test]
async fn mtas_that_wait_for_every_answer_are_served() {
    let running = limited("");
    let milter = running.start_milter();
    for offer in [Offer::V2, Offer { version: 6, actions: 0x1ff, steps: 0x7ff }] {
        let mut mta = Mta::negotiate(&milter.path, Kind::Sendmail, offer).await;
        mta.begin(Client::default()).await;
        assert_eq!(send(&mut mta, &with_attachments(&[1_000])).await, Answer::Continue);
        too_large(&send(&mut mta, &with_attachments(&[1_001])).await, "552 5.3.4 Attachment too large: ");
        mta.quit().await;
    }
}

#[tokio::test]
async fn the_last_of_the_body_may_come_with_its_end() {
    let running = limited("");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Sendmail, Client::default()).await;
    mta.mail("ann@acme.example").await;
    mta.recipient("x@dest.example").await;
    mta.content("Content-Type: image/png\r\n\r\n12345").await;
    mta.macros(b'E', &[]).await;
    let answer = mta.step(b'E', &[b'x'; 996], 0).await;
    too_large(&answer, "552 5.3.4 Attachment too large: 1001 bytes, ");
}

#[tokio::test]
async fn a_declared_size_is_refused_at_mail() {
    let running = limited("");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    let refused = mta.mail_declaring(b"<ann@acme.example>", 10_001).await;
    too_large(&refused, "552 5.3.4 Message too large: 10001 bytes, at most 10000 bytes are allowed");
    // The next one, and one that lies.
    assert_eq!(mta.mail_declaring(b"<ann@acme.example>", 10_000).await, Answer::Continue);
    assert_eq!(mta.recipient("x@dest.example").await, Answer::Continue);
    mta.content(&of_bytes(10_100)).await;
    too_large(&mta.end().await.1, "552 5.3.4 Message too large: ");
    mta.quit().await;
    // Whose it is is not known: that is what will be said.
    let stranger = Client { address: "203.0.113.7".into(), ..Client::default() };
    let mut mta = Mta::open(&milter.path, Kind::Postfix, stranger).await;
    assert_eq!(mta.mail_declaring(b"<ann@acme.example>", 10_001).await, Answer::Continue);
    too_large(&mta.recipient("x@dest.example").await, "550 5.7.1 Invalid credentials for relay");
    mta.quit().await;
}

/// Mail to those passes, whatever its size; so nothing is decided before its recipients are known.
#[tokio::test]
async fn a_declared_size_waits_for_recipients_that_may_be_exempt() {
    let running = limited("relay.exempt_recipient_domains = [\"inbound.example\"]");
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Postfix, Client::default()).await;
    assert_eq!(mta.mail_declaring(b"<ann@acme.example>", 10_001).await, Answer::Continue);
    assert_eq!(mta.recipient("x@inbound.example").await, Answer::Continue);
    too_large(&mta.recipient("x@dest.example").await, "552 5.3.4 Message too large: ");
    mta.content(&with_attachments(&[20_000])).await;
    assert_eq!(mta.end().await.1, Answer::Continue);
    mta.quit().await;
}

#[tokio::test]
async fn the_policy_service_hears_of_sizes_at_mail_rcpt_and_the_end() {
    let running = limited("");
    let mut smtpd = running.smtpd(1);
    let mail = Mail { size: 10_001, ..smtpd.next_mail() };
    let refused = smtpd.ask(&mail.request("MAIL", "", 0, "")).await;
    assert!(refused.starts_with("552 5.3.4 Message too large: 10001 bytes, "), "{refused}");
    let refused = smtpd.ask(&mail.at_recipient("x@dest.example")).await;
    assert!(refused.starts_with("552 5.3.4 Message too large: 10001 bytes, "), "{refused}");
    // One that lies.
    let mail = Mail { size: 10_000, ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.request("MAIL", "", 0, "")).await, "DUNNO");
    assert_eq!(smtpd.ask(&mail.at_recipient("x@dest.example")).await, "DUNNO");
    let refused = smtpd.ask(&Mail { size: 10_001, ..mail.clone() }.at_end(&["x@dest.example"])).await;
    assert!(refused.starts_with("552 5.3.4 Message too large: 10001 bytes, "), "{refused}");
    let mail = Mail { size: 0, ..smtpd.next_mail() };
    assert_eq!(smtpd.ask(&mail.at_recipient("x@dest.example")).await, "DUNNO");
    assert_eq!(smtpd.ask(&Mail { size: 10_000, ..mail }.at_end(&["x@dest.example"])).await, "DUNNO");
    assert_eq!(running.counted_and_reserved("acme").await, (1, 0));
}

#[tokio::test]
async fn in_shadow_it_is_only_logged() {
    let shadow = "limits.message.bytes = { max = 10, shadow = true }\n\
                  limits.message.attachments_bytes = { max = 10, shadow = true }\n";
    let customer = ACME.replace("licenses = 100", &format!("licenses = 100\n{shadow}"));
    let running = Installation::of(&main_file(""), [("acme.toml", customer.as_str())]).run();
    let milter = running.start_milter();
    let mut mta = Mta::open(&milter.path, Kind::Sendmail, Client::default()).await;
    assert_eq!(send(&mut mta, &with_attachments(&[1_000])).await, Answer::Continue);
    mta.quit().await;
    let shadows: Vec<String> = running.log_lines().into_iter().filter(|line| line.contains(" shadow=")).collect();
    assert!(
        shadows.iter().any(|line| line.contains("shadow=message-size") && !line.contains("recipients=")),
        "{shadows:?}"
    );
    assert!(
        shadows.iter().any(|line| line.contains("recipients=1 ") && line.contains("shadow=attachments-size")),
        "{shadows:?}"
    );
    assert!(running.engine.tally.would_have_refused()["attachments-size"] == 1);
}
