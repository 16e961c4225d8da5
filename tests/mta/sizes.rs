//! Messages and attachments that are too large.

use crate::customers::ACME;
use crate::message::{lines_of_text, of_bytes, with_attachments};
use crate::relay::{Front, Relay, Setup, on};
use crate::sink::LAST_LINE;
use crate::smtp::{Client, Sent, new_id};

fn limited(limits: &str) -> Setup {
    let acme = ACME.replace("licenses = 250", &format!("licenses = 250\n{limits}"));
    Setup::new().customer("acme", &acme).postfix("message_size_limit = 80000000\n")
}

/// One message of ann's with this content, header and body.
fn send(client: &mut Client, message: &str) -> Sent {
    let id = new_id();
    let mail = client.command("MAIL FROM:<ann@acme.example>");
    let recipients = vec![client.command("RCPT TO:<one@dest.example>")];
    let data = client.command("DATA");
    assert!(data.accepted(), "{data}");
    client.write_silently(&format!("X-Test-Id: {id}\r\n{message}\r\n{LAST_LINE}\r\n."));
    Sent { id, mail, recipients, data: Some(data), end: Some(client.reply()) }
}

fn refused(relay: &Relay, sent: &Sent, words: &str) {
    relay.assert_refused(sent, "552 5.3.4", words);
}

/// 25 MB for one attachment, unless somebody says otherwise.
fn the_largest_attachment(front: Front) {
    let mut relay = limited("").start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = send(&mut client, &with_attachments(&[26 << 20]));
    refused(&relay, &sent, "Attachment too large: 26 MB, at most 25 MB are allowed for one and for all together; send");
    relay.assert_never_delivered(&sent);
    let sent = send(&mut client, &with_attachments(&[25 << 20]));
    assert!(sent.accepted(), "{sent:?}");
    relay.sink.await_mail(&sent.id);
    client.quit();
}
on!(the_largest_attachment: postfix_milter, sendmail_milter);

fn many_small_attachments(front: Front) {
    let mut relay = limited("limits.message.attachments_bytes = 100_000").start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = send(&mut client, &with_attachments(&[1_000; 101]));
    refused(
        &relay,
        &sent,
        "Attachments too large: 101000 bytes in 101 attachments, at most 100000 bytes together are allowed",
    );
    relay.assert_never_delivered(&sent);
    let sent = send(&mut client, &with_attachments(&[1_000; 100]));
    assert!(sent.accepted(), "{sent:?}");
    relay.sink.await_mail(&sent.id);
    client.quit();
}
on!(many_small_attachments: postfix_milter, postfix_both, sendmail_milter);

/// The same bytes, however they travel: quoted-printable makes three of one.
fn decoded_size_counts(front: Front) {
    let relay = limited("limits.message.attachments_bytes = 30_000").start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let quoted = |bytes: usize| {
        let header = "Content-Type: application/x-file\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n";
        header.to_owned() + &"=C3=B6=C3=B6=C3=B6=C3=B6=C3=B6=\r\n".repeat(bytes / 10) + "=C3"
    };
    // The last line is the bed's own: a line break, its text, a line break.
    let last = 2 + LAST_LINE.len() + 2;
    let sent = send(&mut client, &quoted(30_000 - 1 - last));
    assert!(sent.accepted(), "{sent:?}");
    let sent = send(&mut client, &quoted(30_010));
    refused(&relay, &sent, "Attachment too large: ");
    let sent = send(&mut client, &with_attachments(&[15_001, 15_000]));
    refused(&relay, &sent, "Attachments too large: 30001 bytes in 2 attachments");
    let sent = send(&mut client, &with_attachments(&[15_000, 15_000]));
    assert!(sent.accepted(), "{sent:?}");
    // A text is no attachment.
    let sent = send(&mut client, &format!("Subject: long\r\n\r\n{}", lines_of_text(100_000)));
    assert!(sent.accepted(), "{sent:?}");
    client.quit();
}
on!(decoded_size_counts: postfix_milter, sendmail_milter);

fn size_of_the_message(front: Front) {
    let mut relay = limited("limits.message.bytes = 200_000").start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let mail = client.command("MAIL FROM:<ann@acme.example> SIZE=200001");
    let decisive = if front.has_milter() { mail } else { client.command("RCPT TO:<one@dest.example>") };
    relay.assert_reply(&decisive, "552 5.3.4", "Message too large: 200001 bytes, at most 200000 bytes");
    client.command("RSET");
    // Who says nothing, or lies, is found out at the end.
    let sent = send(&mut client, &of_bytes(201_000));
    refused(&relay, &sent, "Message too large: ");
    relay.assert_never_delivered(&sent);
    // Postfix 3.7 goes on in the transaction that its end-of-data restrictions refused.
    client.command("RSET");
    let sent = send(&mut client, &of_bytes(199_000));
    assert!(sent.accepted(), "{sent:?}");
    relay.sink.await_mail(&sent.id);
    client.quit();
}
on!(size_of_the_message: every_front);
