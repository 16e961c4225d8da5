//! Every refusal of section 12, word for word, as a client of a real MTA reads it.

use crate::customers::ACME;
use crate::relay::{Front, Setup, on};

fn unknown_customer(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mx.nobody.example");
    let sent = client.send("someone@unheard-of.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "550 5.7.0", "Mail relay denied [192.0.2.7]");
    assert!(text.contains("unheard-of.example") && text.contains("mx.nobody.example"), "the domains looked up: {text}");
    relay.assert_never_delivered(&sent);
    client.quit();
}
on!(unknown_customer: every_front);

/// The address belongs to another customer: so the MTA itself would let it through.
fn wrong_address(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = relay.client("198.51.100.9", "mx.nobody.example");
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "550 5.7.1", "Invalid credentials for relay [198.51.100.9]");
    assert!(text.contains("acme.example"), "the domain: {text}");
    relay.assert_never_delivered(&sent);
    client.quit();
}
on!(wrong_address: every_front);

/// An address in nobody's range: where the MTA asks for permission, the reply is ours; else it is the MTA's own.
fn address_of_nobody(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = relay.client("203.0.114.1", "mail.acme.example");
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    match front {
        Front::PostfixPolicy | Front::PostfixBoth => {
            relay.assert_refused(&sent, "550 5.7.1", "Invalid credentials for relay [203.0.114.1]");
        }
        Front::PostfixMilter | Front::SendmailMilter => {
            let reply = sent.refusal().expect("refused").to_string().to_lowercase();
            assert!(reply.contains("relay access denied") || reply.contains("relaying denied"), "{reply}");
        }
    }
    relay.assert_never_delivered(&sent);
    client.quit();
}
on!(address_of_nobody: postfix_policy, postfix_milter, postfix_both);

/// A range that is switched off admits nobody.
fn range_switched_off(front: Front) {
    let acme = ACME.replace("range = \"192.0.2.0/24\"", "range = \"192.0.2.0/24\"\nenabled = false");
    let relay = Setup::with_customers().customer("acme", &acme).start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = client.send("ann@acme.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "550 5.7.1", "Invalid credentials for relay [192.0.2.7]");
    client.quit();
}
on!(range_switched_off: postfix_policy, postfix_both);

fn authentication_required(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.tls_client("192.0.2.7", "laptop.elsewhere.example");
    let sent = client.send("kim@hooli.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "530 5.7.0", "Authentication required");
    client.quit();
}
on!(authentication_required: every_front);

fn tls_required(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("198.18.5.7", "lab.elsewhere.example");
    let sent = client.send("anybody@umbrella.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "530 5.7.0", "Must issue a STARTTLS command first");
    // The same session, now over TLS
    client.starttls().ehlo("lab.elsewhere.example");
    relay.deliver(&mut client, "anybody@umbrella.example", &["one@dest.example"]);
    client.quit();
}
on!(tls_required: every_front);

fn tls_required_of_a_login(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "laptop.elsewhere.example");
    client.login("kim@hooli.example", "secret-kim");
    let sent = client.send("kim@hooli.example", &["one@dest.example"]);
    relay.assert_refused(&sent, "530 5.7.0", "Must issue a STARTTLS command first");
    client.quit();
}
on!(tls_required_of_a_login: every_front);

fn unregistered_user(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let sent = client.send("stranger@acme.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "550 5.7.1", "");
    for part in ["stranger@acme.example", "head office", "registered"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    relay.assert_never_delivered(&sent);
    client.quit();
}
on!(unregistered_user: every_front);

fn sender_outside_own_domains(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("198.51.100.9", "mail.globex.example");
    let sent = client.send("guest@elsewhere.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "550 5.7.1", "");
    for part in ["guest@elsewhere.example", "plant", "own domains"] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    client.quit();
}
on!(sender_outside_own_domains: every_front);

/// `%` is special to both MTAs in a milter's reply; whatever the client said must come back as it was.
fn percent_signs_arrive(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "100%sure.%s.nobody.example");
    let sent = client.send("50%off%n@acme.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "550 5.7.1", "");
    assert!(text.contains("50%off%n@acme.example"), "{text}");
    let sent = client.send("50%off@unheard-of.example", &["one@dest.example"]);
    let text = relay.assert_refused(&sent, "550 5.7.0", "Mail relay denied [192.0.2.7]");
    assert!(text.contains("100%sure.%s.nobody.example"), "{text}");
    client.quit();
}
on!(percent_signs_arrive: every_front);
