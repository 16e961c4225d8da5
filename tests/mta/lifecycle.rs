//! The daemon stops, dies, comes back, reads a new configuration: no mail is lost, no count either.

use crate::bed::eventually;
use crate::relay::{Front, Relay, Setup, on};
use crate::smtp::{Client, Sent};

const ACME_LIMITED: &str = "licenses = 250\nlimits.user.messages_per_day = 2";

fn limited() -> Setup {
    Setup::with_customers().customer("acme", &crate::customers::ACME.replace("licenses = 250", ACME_LIMITED))
}

fn acme_client(relay: &Relay) -> Client {
    relay.client("192.0.2.7", "mail.acme.example")
}

fn counts_survive_a_crash(front: Front) {
    let mut relay = limited().start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    relay.deliver(&mut client, "ann@acme.example", &["two@dest.example"]);
    client.open("bob@acme.example", "one@dest.example"); // under way when the power goes
    relay.daemon.kill();
    client.vanish();
    relay.daemon.start();
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 2, 0);
    relay.daemon.await_counts("ann@acme.example", "unique_recipients_per_day", 2, 0);
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
    let mut client = acme_client(&relay);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]);
    client.quit();
}
on!(counts_survive_a_crash: every_front);

fn stop_waits_for_an_open_transaction(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = acme_client(&relay);
    client.open("ann@acme.example", "one@dest.example");
    assert_eq!(client.command("DATA").code, 354);
    relay.daemon.ask_to_stop();
    let end = client.content("in-the-middle");
    assert_eq!(end.code, 250, "{end}\n{}", client.transcript());
    relay.sink.await_mail("in-the-middle");
    client.quit();
    let status = relay.daemon.await_end();
    assert_eq!(status.code(), Some(0), "{}", relay.daemon.log());
    // What was accepted while it stopped is counted.
    relay.daemon.start();
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 1, 0);
}
on!(stop_waits_for_an_open_transaction: every_front);

/// Idle sessions do not hold a stop up.
fn stop_does_not_wait_for_idle_sessions(front: Front) {
    let mut relay = Setup::with_customers().main("[relay]\ndrain = \"600s\"").start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    relay.daemon.stop();
    client.vanish();
}
on!(stop_does_not_wait_for_idle_sessions: every_front);

/// Nobody tells a policy service that a refused transaction is over.
fn stop_does_not_wait_for_what_was_refused(front: Front) {
    let mut relay = Setup::with_customers().main("[relay]\ndrain = \"600s\"").start(front);
    let mut client = acme_client(&relay);
    let sent = client.send("stranger@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.7.1", "");
    relay.daemon.stop();
    client.vanish();
}
on!(stop_does_not_wait_for_what_was_refused: every_front);

/// As a mail server: the same message again until it is taken.
fn retry_until_taken(relay: &Relay, sender: &str) -> Sent {
    eventually("the message is taken at a retry", || {
        let mut client = acme_client(relay);
        let sent = client.send(sender, &["one@dest.example"]);
        client.quit();
        sent.delivered().then_some(sent)
    })
}

fn while_it_is_down_mail_waits(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    relay.daemon.stop();
    let mut client = acme_client(&relay);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    let refusal = sent.refusal().expect("nobody can decide");
    assert!((400..500).contains(&refusal.code), "must be temporary: {refusal}");
    relay.assert_never_delivered(&sent);
    drop(client);
    relay.daemon.start();
    let sent = retry_until_taken(&relay, "ann@acme.example");
    relay.sink.await_mail(&sent.id);
    relay.mta.await_empty_queue();
    assert_eq!(relay.sink.all().len(), 1, "once, not more");
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 1, 0);
}
on!(while_it_is_down_mail_waits: every_front);

/// The same smtpd and its open policy connection, or its milter: the daemon went away between two sessions.
fn restart_between_two_sessions(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
    relay.daemon.stop();
    relay.daemon.start();
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    client.quit();
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 2, 0);
}
on!(restart_between_two_sessions: every_front);

fn one_bad_customer_file(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    // acme's file goes bad, a new customer's was never good, and another new one is fine.
    relay.daemon.write_customer("acme", "name = \"acme\"\ndomains = [\"acme.example\"\n");
    relay.daemon.write_customer("newbad", "name = \"newbad\"\ndomains = [\"newbad.example\"]\nlicenses = \"many\"\n");
    let fine = crate::customers::GLOBEX.replace("globex", "newco").replace("198.51.100.0/24", "192.0.2.0/25");
    relay.daemon.write_customer("newco", &relay.front.local(&fine));
    relay.daemon.ask_to_reload();
    eventually("the new customer can send", || {
        client.send("anybody@newco.example", &["one@dest.example"]).delivered().then_some(())
    });
    for file in ["acme.toml", "newbad.toml"] {
        relay.daemon.await_line(&[file]);
    }
    // The last good copy of acme goes on, and so do all others.
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let mut other = relay.client("198.51.100.9", "mail.globex.example");
    relay.deliver(&mut other, "anybody@globex.example", &["one@dest.example"]);
    other.quit();
    // Who was never known cannot be decided about: later, not never.
    let sent = client.send("anybody@newbad.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "451 4.3.0", "");
    // Mended
    let mended = fine.replace("newco", "newbad").replace("192.0.2.0/25", "192.0.2.0/26");
    relay.daemon.write_customer("newbad", &relay.front.local(&mended));
    relay.daemon.ask_to_reload();
    eventually("the mended customer can send", || {
        client.send("anybody@newbad.example", &["one@dest.example"]).delivered().then_some(())
    });
    client.quit();
}
on!(one_bad_customer_file: postfix_both, sendmail_milter);

/// An error in the main file changes nothing at all, not even in the customers.
fn bad_main_file(front: Front) {
    let relay = limited().start(front);
    relay.daemon.write_main("[limits]\nuser.mesages_per_day = 1");
    relay.daemon.write_customer("acme", &relay.front.local(&crate::customers::ACME.replace("ann@", "anna@")));
    relay.daemon.ask_to_reload();
    relay.daemon.await_line(&["mesages_per_day"]);
    let mut client = acme_client(&relay);
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let sent = client.send("anna@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.7.1", "");
    client.quit();
}
on!(bad_main_file: postfix_both, sendmail_milter);

/// Limits that are lowered, raised or taken away find every count where it was.
fn limits_change_by_reload(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = acme_client(&relay);
    let reload = |limit: &str| {
        let acme = crate::customers::ACME.replace("licenses = 250", &format!("licenses = 250\n{limit}"));
        relay.daemon.write_customer("acme", &relay.front.local(&acme));
        relay.daemon.cli_text(&["reload"]);
    };
    let limit = "messages_per_day";
    for _ in 0..2 {
        relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    }
    reload("limits.user.messages_per_day = 2");
    relay.daemon.await_counts("ann@acme.example", limit, 2, 0);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    reload("limits.user.messages_per_day = 3");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    reload("");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    assert_eq!(relay.daemon.quota("ann@acme.example", limit).used, 4);
    reload("limits.user.messages_per_day = 4");
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "450 4.4.5", "Daily SMTP relay limit exceeded for user");
    client.quit();
}
on!(limits_change_by_reload: postfix_both, sendmail_milter);

/// Nobody's session is dropped by a reload, and a transaction keeps the configuration that it began with.
fn reload_in_mid_transaction(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = acme_client(&relay);
    client.open("ann@acme.example", "one@dest.example");
    relay.daemon.write_customer("acme", &relay.front.local(&crate::customers::ACME.replace("ann@", "anna@")));
    relay.daemon.ask_to_reload();
    let mut other = acme_client(&relay);
    eventually("the new configuration is in force", || {
        other.send("anna@acme.example", &["one@dest.example"]).delivered().then_some(())
    });
    assert!(client.command("RCPT TO:<two@dest.example>").accepted(), "{}", client.transcript());
    assert_eq!(client.command("DATA").code, 354);
    assert_eq!(client.content("began-before").code, 250, "{}", client.transcript());
    assert_eq!(relay.sink.await_mail("began-before").recipients.len(), 2);
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.7.1", "");
    client.quit();
    other.quit();
}
on!(reload_in_mid_transaction: every_front);
