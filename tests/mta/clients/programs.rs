//! Real programs, each configured as in docs/clients, in namespaces of their own (`tests/bed/client.sh`).

use crate::bed::{Folder, Mta, MtaSetup, certificate, client_command};
use crate::relay::{Front, Relay, Setup};
use crate::sink::{Envelope, LAST_LINE};
use crate::smtp::{Client, new_id};
use std::fs;
use std::net::Ipv4Addr;

/// What a program can be made to send.
const MESSAGE: &str = "message";
const BOUNCE: &str = "bounce";
const LOGIN: &str = "login";

/// By address: these programs come from 127.0.0.1.
const ACME: &str = r#"
name = "acme"
domains = ["acme.example"]
licenses = 250
[[user]]
address = "ann@acme.example"
[[setting]]
name = "its server"
allowed_senders = "registered-users"
[[setting.ip]]
range = "127.0.0.1"
"#;

fn relay() -> Relay {
    Setup::new().customer("acme", ACME).customer("hooli", crate::customers::HOOLI).start(Front::PostfixBoth)
}

/// Has a program send what it can: by address to two recipients, without a sender, and with a login over TLS.
fn sends(program: &str, sendings: &[&str]) {
    let relay = relay();
    let folder = Folder::new();
    let mails = folder.path().join("mails");
    fs::create_dir(&mails).unwrap();
    let ids = [MESSAGE, BOUNCE, LOGIN].map(|name| (name, new_id()));
    for (name, id) in &ids {
        let from = if *name == LOGIN { "kim@hooli.example" } else { "ann@acme.example" };
        let text =
            format!("From: {from}\nTo: one@dest.example\nSubject: test\nX-Test-Id: {id}\n\nhello\n{LAST_LINE}\n");
        fs::write(mails.join(name), text).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mta/clients/programs/");
    let mut command = client_command(&folder.path().join("client"));
    command.args(["timeout", "60", "bash", "-eu", &format!("{script}{program}.sh")]);
    command.env("PORT", relay.mta.port.to_string()).env("MAIL", &mails).env("CERTIFICATE", certificate());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}\n{said}", output.status);
    for (name, id) in ids.iter().filter(|(name, _)| sendings.contains(name)) {
        relay.sink.await_mail(id);
        match *name {
            MESSAGE => assert_message(&relay, id),
            BOUNCE => assert_sent_as(&relay, id, "", &["customer=acme", "by=helo", "helo=mx.acme.example"]),
            _ => assert_sent_as(&relay, id, "kim@hooli.example", &["customer=hooli", "by=login", "tls=TLSv1"]),
        }
    }
    let bounces = u64::from(sendings.contains(&BOUNCE));
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2 + bounces, 0);
}

fn assert_message(relay: &Relay, id: &str) {
    // dma sends to each recipient by itself.
    let envelopes: Vec<Envelope> = crate::bed::eventually("both recipients get it", || {
        let envelopes = relay.sink.with_id(id);
        (envelopes.iter().map(|envelope| envelope.recipients.len()).sum::<usize>() == 2).then_some(envelopes)
    });
    assert!(envelopes.iter().all(|envelope| envelope.sender == "ann@acme.example"), "{envelopes:?}");
    relay.daemon.await_line(&["verdict=accept", "customer=acme", "user=ann@acme.example", "by=sender"]);
}

fn assert_sent_as(relay: &Relay, id: &str, sender: &str, words: &[&str]) {
    relay.sink.await_mail(id);
    let envelopes = relay.sink.with_id(id);
    assert_eq!(envelopes.len(), 1, "{envelopes:?}");
    assert_eq!((&*envelopes[0].sender, envelopes[0].recipients.len()), (sender, 1));
    relay.daemon.await_line(&[&["verdict=accept", "recipients=1"], words].concat());
}

#[test]
fn exim() {
    sends("exim", &[MESSAGE, BOUNCE, LOGIN]);
}

#[test]
fn opensmtpd() {
    sends("opensmtpd", &[MESSAGE, BOUNCE, LOGIN]);
}

#[test]
fn msmtp() {
    sends("msmtp", &[MESSAGE, BOUNCE, LOGIN]);
}

#[test]
fn dma() {
    sends("dma", &[MESSAGE, LOGIN]);
}

#[test]
fn nullmailer() {
    sends("nullmailer", &[MESSAGE, BOUNCE, LOGIN]);
}

#[test]
fn swaks() {
    sends("swaks", &[MESSAGE, BOUNCE, LOGIN]);
}

/// A customer's own MTA takes mail from its people and hands all of it to the relay.
fn smart_host(start: impl FnOnce(&Folder, MtaSetup) -> Mta) {
    let relay = relay();
    let folder = Folder::new();
    let mut mta = start(&folder, MtaSetup { sink_port: relay.mta.port, ..MtaSetup::default() });
    let mut person = Client::connect(None, (Ipv4Addr::LOCALHOST, mta.port).into());
    person.ehlo("desk.acme.example");
    let message = person.send("ann@acme.example", &["one@dest.example", "two@dest.example"]);
    let bounce = person.send("", &["one@dest.example"]);
    assert!(message.accepted() && bounce.accepted(), "{}", person.transcript());
    mta.await_empty_queue();
    assert_message(&relay, &message.id);
    assert_sent_as(&relay, &bounce.id, "", &["customer=acme", "by=helo", "helo=mx.acme.example"]);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 3, 0);
    // Who is not known to the relay is told so, in the customer's own log.
    let refused = person.send("nobody@acme.example", &["one@dest.example"]);
    assert!(refused.accepted(), "{}", person.transcript());
    crate::bed::eventually("the refusal in the customer's log", || {
        mta.log().contains("Sender nobody@acme.example not allowed").then_some(())
    });
}

#[test]
fn postfix() {
    smart_host(|folder, setup| {
        let main_cf = "myhostname = mx.acme.example\nmynetworks = 127.0.0.0/8\n".to_owned();
        Mta::postfix(folder.path(), &MtaSetup { main_cf, ..setup })
    });
}

#[test]
fn sendmail() {
    smart_host(|folder, setup| {
        let mc = "define(`confDOMAIN_NAME', `mx.acme.example')dnl".to_owned();
        Mta::sendmail(folder.path(), &MtaSetup { mc, access: "Connect:127.0.0.1 RELAY".to_owned(), ..setup })
    });
}
