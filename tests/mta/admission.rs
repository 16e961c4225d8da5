//! Who is let through, and with which envelope (relay service, sections 1 to 3).

use crate::relay::{Front, Setup, on};
use crate::smtp::Reply;

fn by_address(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mx.unrelated.example");
    let envelope = relay.deliver(&mut client, "ann@acme.example", &["one@dest.example", "two@dest.example"]);
    assert_eq!(envelope.sender, "ann@acme.example");
    assert_eq!(envelope.recipients, ["one@dest.example", "two@dest.example"]);
    let address = relay.address("192.0.2.7").to_string();
    relay.daemon.await_line(&[
        "verdict=accept",
        "customer=acme",
        "user=ann@acme.example",
        &format!("client={address}"),
        "recipients=2",
    ]);
    relay.deliver(&mut client, "bob@acme.example", &["one@dest.example"]); // the same session goes on
    client.quit();
}
on!(by_address: every_front);

fn by_parent_domain_of_helo(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "smtp3.branch.ACME.example.");
    // A bounce has no sender domain: only the HELO name says whose it is.
    let envelope = relay.deliver(&mut client, "", &["one@dest.example"]);
    assert_eq!(envelope.sender, "");
    relay.daemon.await_line(&["verdict=accept", "customer=acme"]);
    client.quit();
}
on!(by_parent_domain_of_helo: every_front);

fn by_login_over_tls(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.tls_client("203.0.113.99", "laptop.elsewhere.example");
    client.login("kim@hooli.example", "secret-kim");
    let envelope = relay.deliver(&mut client, "kim@hooli.example", &["one@dest.example"]);
    assert_eq!(envelope.sender, "kim@hooli.example");
    relay.daemon.await_line(&["verdict=accept", "customer=hooli", "user=kim@hooli.example"]);
    client.quit();
}
on!(by_login_over_tls: every_front);

fn tls_from_an_address(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.tls_client("198.18.5.7", "lab.elsewhere.example");
    relay.deliver(&mut client, "anybody@umbrella.example", &["one@dest.example"]);
    client.quit();
}
on!(tls_from_an_address: every_front);

fn from_ipv6(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("2001:db8::7", "mail.acme.example");
    relay.deliver(&mut client, "ann@acme.example", &["one@dest.example"]);
    let address = relay.address("2001:db8::7").to_string();
    relay.daemon.await_line(&["verdict=accept", "customer=acme", &format!("client={address}")]);
    client.quit();
}
on!(from_ipv6: every_front);

fn alias_of_a_registered_user(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let envelope = relay.deliver(&mut client, "A.NN@acme-mail.example", &["one@dest.example"]);
    assert_eq!(envelope.sender.to_lowercase(), "a.nn@acme-mail.example");
    client.quit();
    // An alias counts for its user.
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", 1, 0);
}
on!(alias_of_a_registered_user: every_front);

fn own_domains_with_subdomain(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("198.51.100.9", "mx.unrelated.example");
    for sender in ["anybody@globex.example", "anybody@eu.sales.globex.example"] {
        assert_eq!(relay.deliver(&mut client, sender, &["one@dest.example"]).sender, sender);
    }
    client.quit();
    relay.daemon.await_counts("globex", "customer.recipients_per_day", 2, 0);
}
on!(own_domains_with_subdomain: every_front);

fn any_sender_is_rewritten(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("203.0.113.5", "smtp3.branch.initech.example");
    // Not the host's name but the registered domain that it lies in.
    let envelope = relay.deliver(&mut client, "guest@elsewhere.example", &["one@dest.example"]);
    assert_eq!(envelope.sender, "postmaster@initech.example");
    // Its own senders and the empty one stay what they are.
    for sender in ["clerk@hq.initech.example", ""] {
        assert_eq!(relay.deliver(&mut client, sender, &["one@dest.example"]).sender, sender);
    }
    client.quit();
}
on!(any_sender_is_rewritten: postfix_milter, postfix_both, sendmail_milter);

/// The policy protocol cannot rewrite. Deferred, so that nothing leaves with the wrong sender, and nothing is lost.
fn rewriting_needs_the_milter(front: Front) {
    let mut relay = Setup::with_customers().start(front);
    let mut client = relay.client("203.0.113.5", "mail.initech.example");
    let sent = client.send("guest@elsewhere.example", &["one@dest.example"]);
    assert!(sent.refusal().is_some_and(|reply| (400..500).contains(&reply.code)), "{sent:?}");
    relay.assert_never_delivered(&sent);
    relay.deliver(&mut client, "clerk@initech.example", &["one@dest.example"]);
    client.quit();
}
on!(rewriting_needs_the_milter: postfix_policy);

/// A login without `@` is one of the users' `logins`. Over Sendmail and Postfix alike.
fn short_login(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.tls_client("203.0.113.99", "laptop.elsewhere.example");
    client.login("kim", "secret-short");
    relay.deliver(&mut client, "kim@hooli.example", &["one@dest.example"]);
    client.quit();
}
on!(short_login: every_front);

/// All commands of a transaction in one write.
fn pipelined(front: Front) {
    let relay = Setup::with_customers().start(front);
    let mut client = relay.client("192.0.2.7", "mail.acme.example");
    let replies = client.pipeline(&[
        "MAIL FROM:<ann@acme.example>",
        "RCPT TO:<one@dest.example>",
        "RCPT TO:<two@dest.example>",
        "DATA",
    ]);
    assert_eq!(
        replies.iter().map(|reply| reply.code).collect::<Vec<_>>(),
        [250, 250, 250, 354],
        "{}",
        client.transcript()
    );
    let end: Reply = client.content("pipelined");
    assert_eq!(end.code, 250, "{end}");
    assert_eq!(relay.sink.await_mail("pipelined").recipients.len(), 2);
    client.quit();
    relay.daemon.await_counts("acme", "customer.recipients_per_day", 2, 0);
}
on!(pipelined: every_front);
