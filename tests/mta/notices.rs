//! Mail that relaykeeper writes itself: through the MTA that it decides for.

use crate::bed::{Folder, eventually};
use crate::relay::{Front, Relay, Setup, on};
use crate::standin::Milter;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A header that outsiders cannot know.
const SECRET: &str = "X-Relay-Verdict-e04b77d1c2";

/// The customers, acme with administrators and these lines.
fn acme_with(lines: &str) -> Setup {
    let acme = crate::customers::ACME
        .replace("licenses = 250", &format!("licenses = 250\nadmins = [\"it@acme.example\"]\n{lines}"));
    Setup::with_customers().customer("acme", &acme)
}

/// Own mail goes through the relay's own MTA, whose port is known only now.
fn write_by_smtp(relay: &Relay, main: &str) {
    relay.daemon.write_main(&format!("mail.smtp = \"127.0.0.1:{}\"\n{main}", relay.mta.port));
    relay.daemon.cli_text(&["reload"]);
}

fn warnings_come_once_and_count_for_nobody(front: Front) {
    let mut relay = acme_with("limits.user.messages_per_day = 10").start(front);
    write_by_smtp(&relay, "");
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    for _ in 0..8 {
        relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    }
    relay.sink.await_letters(1);
    let told = relay.daemon.path("store/told.jsonl");
    eventually("it is on record", || {
        fs::read_to_string(&told).is_ok_and(|text| text.lines().count() == 1).then_some(())
    });
    // As if the power had gone: nothing is told again.
    client.quit();
    relay.daemon.kill();
    relay.daemon.start();
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    for letters in [2, 3] {
        relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
        relay.sink.await_letters(letters);
    }
    let refused = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&refused, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    let letters = relay.sink.await_letters(3);
    for level in ["80 % of a limit (8 of 10", "90 % of a limit (9 of 10", "limit reached (10 of 10"] {
        let of_level = letters.iter().filter(|letter| letter.header("Subject").contains(level));
        assert_eq!(of_level.count(), 1, "{level}: {letters:#?}");
    }
    for letter in &letters {
        assert_eq!((letter.sender.as_str(), &letter.recipients[..]), ("", &["it@acme.example".to_owned()][..]));
        assert_eq!(letter.header("Auto-Submitted"), "auto-generated");
    }
    // This host's mail is judged in these tests: no exempt_clients.
    relay.daemon.await_line(&["verdict=accept", "reason=own-mail", "client=127.0.0.1", "sender=<>"]);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 10, 0);
    client.quit();
}
on!(warnings_come_once_and_count_for_nobody: postfix_policy, postfix_both, sendmail_milter);

/// sendmail(1) leaves it to pickup(8), and cleanup(8) shows it to the milter as from 127.0.0.1, port 0.
#[test]
fn sendmail_1_of_postfix() {
    let folder = Folder::new();
    let program = folder.path().join("sendmail-1");
    let etc = folder.path().join("postfix/etc");
    fs::write(&program, format!("#!/bin/sh\nexec /usr/sbin/sendmail -C {} \"$@\"\n", etc.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let milter = folder.path().join("relaykeeper/milter.sock");
    let relay = acme_with("limits.customer.recipients_per_day = 1")
        .main(&format!("mail.sendmail = \"{}\"", program.display()))
        .postfix(&format!("non_smtpd_milters = unix:{}\n", milter.display()))
        .start_in(Front::PostfixBoth, folder);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let letters = relay.sink.await_letters(1);
    assert_eq!(letters[0].sender, "");
    assert!(letters[0].header("Subject").contains("acme: limit reached (1 of 1 recipients in 24 hours)"));
    relay.daemon.await_line(&["verdict=accept", "reason=own-mail", "client=127.0.0.1", "sender=<>", "proto=milter"]);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 1, 0);
    client.quit();
}

/// A filter before us marks a flood as spam; what clients write into headers themselves does nothing.
fn a_flood_of_spam_suspends_the_user(front: Front) {
    let folder = Folder::new();
    let filter = Milter::start(folder.path().join("filter.sock"));
    let abuse = format!("[abuse]\nheader = \"{SECRET}\"\nspam_count = 3\nspam_share = 50\non_abuse = \"suspend\"\n");
    let relay = acme_with("").main(&abuse).after_milter(filter.path.clone()).start_in(front, folder);
    write_by_smtp(&relay, &abuse);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    for forged in ["X-Spam: Yes", "X-Spam-Flag: YES", "X-Virus-Status: Infected", "X-Relay-Verdict: yes"] {
        client.with_header(forged);
    }
    for _ in 0..4 {
        relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
    }
    filter.add_header(Some(&format!("{SECRET}: Yes, score=20")));
    for _ in 0..3 {
        let envelope = relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
        assert!(!envelope.content.contains(SECRET), "it stays in the house: {}", envelope.content);
    }
    relay.daemon.await_line(&["event=abuse", "user=ann@acme.example", "signs=spam", "done=suspended"]);
    let refused = client.send("ann@acme.example", &["one@dest.example"]);
    let text = relay.assert_refused(&refused, "550 5.7.1", "SMTP relay suspended for user: ann@acme.example");
    assert!(text.contains("signs of abuse: 3 of 3 messages were marked as spam or virus (in 1 hour)"), "{text}");
    let letters = relay.sink.await_letters(1);
    let subject = letters[0].header("Subject");
    assert!(subject.contains("ann@acme.example: suspended: signs of abuse (3 of 3 messages in 1 hour"), "{subject}");
    // Nothing else was found: neither by what bob's client wrote, nor twice.
    filter.add_header(None);
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
    assert_eq!(relay.daemon.log().matches("event=abuse").count(), 1, "{}", relay.daemon.log());
    relay.daemon.cli_text(&["user", "resume", "ann@acme.example"]);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
}
on!(a_flood_of_spam_suspends_the_user: postfix_both, sendmail_milter);
