//! Odd addresses through real MTAs: what left = what was judged = what was counted, with a sender that the customer is allowed.

use crate::bed::eventually;
use crate::relay::{Front, Relay, Setup, on};
use crate::smtp::{Client, Reply, new_id};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    recipient: Vec<Case>,
    sender: Vec<Case>,
}

/// See `addresses.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    typed: String,
    expect: Option<Outcome>,
    leaves: Option<String>,
    #[serde(default)]
    undeliverable: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Exempt,
    Counted,
    Refused,
}

/// A transaction of one customer with one recipient.
struct Sent<'a> {
    case: &'a Case,
    customer: &'static Customer,
    id: String,
    /// The last reply: to the end of the message, or the one that refused it.
    reply: Reply,
}

/// Whose mail it is, and which senders its setting allows.
struct Customer {
    name: &'static str,
    client: &'static str,
    allows: fn(&str) -> bool,
}

const ACME: Customer =
    Customer { name: "acme", client: "192.0.2.7", allows: |sender| without_tag(sender) == "ann@acme.example" };
const GLOBEX: Customer =
    Customer { name: "globex", client: "198.51.100.7", allows: |sender| domain(sender) == "globex.example" };
const INITECH: Customer =
    Customer { name: "initech", client: "203.0.113.7", allows: |sender| domain(sender) == "initech.example" };

fn what_left_is_what_was_judged_and_counted(front: Front) {
    let corpus: Corpus = toml::from_str(include_str!("addresses.toml")).unwrap();
    let mut relay = relay(front);
    let mut all = Vec::new();
    let mut client = relay.client(ACME.client, "mail.acme.example");
    for case in &corpus.recipient {
        all.push(transaction(&mut client, case, &ACME, "<ann@acme.example>", &case.typed));
    }
    client.quit();
    for customer in [&ACME, &GLOBEX, &INITECH] {
        let name = format!("{}.example", customer.name);
        let mut client = relay.client(customer.client, &format!("mail.{name}"));
        for case in &corpus.sender {
            let sender = case.typed.replace("DOMAIN", &name);
            all.push(transaction(&mut client, case, customer, &sender, "<you@dest.example>"));
        }
        client.quit();
    }
    relay.mta.await_empty_queue();
    let outcomes: Vec<Outcome> = all.iter().map(|sent| check(&relay, sent)).collect();
    for outcome in [Outcome::Exempt, Outcome::Counted, Outcome::Refused] {
        let number = outcomes.iter().filter(|&&found| found == outcome).count();
        assert!(number >= 10, "{number} {outcome:?}: the corpus does not reach what it tests");
    }
    for customer in [&ACME, &GLOBEX, &INITECH] {
        let of_customer = all.iter().zip(&outcomes).filter(|(sent, _)| sent.customer.name == customer.name);
        let counted = of_customer.filter(|(_, outcome)| **outcome == Outcome::Counted).count() as u64;
        relay.daemon.await_counts(customer.name, "customer.recipients_per_day", counted, 0);
    }
    // The user's limits count what leaves with the user's address, and nothing else.
    let anns = all.iter().zip(&outcomes).filter(|(sent, outcome)| {
        **outcome == Outcome::Counted
            && sent.customer.name == "acme"
            && !relay.sink.with_id(&sent.id)[0].sender.is_empty()
    });
    relay.daemon.await_counts("ann@acme.example", "messages_per_day", anns.count() as u64, 0);
}
on!(what_left_is_what_was_judged_and_counted: every_front);

/// Sendmail tells a milter `car+2Bol@hooli.example`.
fn a_login_with_a_plus_is_that_login(front: Front) {
    let hooli = crate::customers::HOOLI.replace("kim@hooli.example", "car+ol@hooli.example");
    let setup = Setup::new().customer("hooli", &hooli).main("relay.sender_must_match_login = true");
    let relay = setup.start(front);
    let mut client = relay.tls_client("192.0.2.7", "laptop");
    client.login("car+ol@hooli.example", "secret-carol");
    relay.deliver(&mut client, "car+ol@hooli.example", &["you@dest.example"]);
    client.quit();
    relay.daemon.await_line(&["verdict=accept", "login=car+ol@hooli.example", "user=car+ol@hooli.example"]);
}
on!(a_login_with_a_plus_is_that_login: postfix_milter, sendmail_milter);

/// own.example is local to the MTA; all mail goes to the sink.
fn relay(front: Front) -> Relay {
    Setup::with_customers()
        .main("relay.exempt_recipient_domains = [\"own.example\", \"inbound.example\"]")
        .postfix(
            "mydestination = own.example, localhost\nlocal_transport = $default_transport\nlocal_recipient_maps =\n",
        )
        .sendmail("LOCAL_DOMAIN(`own.example')dnl\ndefine(`MAIL_HUB', `relay:[127.0.0.1]')dnl\n")
        .start(front)
}

fn transaction<'a>(
    client: &mut Client,
    case: &'a Case,
    customer: &'static Customer,
    sender: &str,
    recipient: &str,
) -> Sent<'a> {
    let id = new_id();
    let mut reply = client.command(&format!("MAIL FROM:{sender}"));
    if reply.accepted() {
        reply = client.command(&format!("RCPT TO:{recipient}"));
    }
    if reply.accepted() {
        reply = client.command("DATA");
        assert!(reply.accepted(), "{reply}\n{}", client.transcript());
        reply = client.content(&id);
    } else {
        client.command("RSET");
    }
    Sent { case, customer, id, reply }
}

/// Checks one transaction by itself, and says what became of it.
fn check(relay: &Relay, sent: &Sent) -> Outcome {
    let Sent { case, customer, id, reply } = sent;
    let typed = format!("{}, {:?}: {reply}", customer.name, case.typed);
    let outcome = if reply.accepted() { judged(relay, reply) } else { Outcome::Refused };
    if outcome != Outcome::Refused && !case.undeliverable {
        eventually("it leaves", || (!relay.sink.with_id(id).is_empty()).then_some(()));
    }
    let left = relay.sink.with_id(id);
    match (&left[..], outcome) {
        (_, _) if case.undeliverable => {}
        ([], Outcome::Refused) => {}
        ([left], Outcome::Exempt | Outcome::Counted) => {
            let [recipient] = &left.recipients[..] else { panic!("{typed}: {left:?}") };
            let (sender, recipient) = (internal(&left.sender), internal(recipient));
            assert!(sender.is_empty() || (customer.allows)(&sender), "{typed}: left with the sender {sender}");
            assert!(
                outcome == Outcome::Counted || is_inbound(relay.front, &recipient),
                "{typed}: left for {recipient} without being judged"
            );
            assert!(case.leaves.as_ref().is_none_or(|leaves| *leaves == recipient), "{typed}: left for {recipient}");
        }
        _ => panic!("{typed}: {outcome:?}, but {left:?} left"),
    }
    // An MTA may refuse what we would not; over the policy protocol it has read the address already.
    let by_mta = !reply.accepted() && !reply.text().ends_with(']');
    if let Some(expected) = case.expect.filter(|_| relay.front.has_milter() && !by_mta) {
        assert_eq!(outcome, expected, "{typed}");
    }
    outcome
}

/// Whether mail to this address goes nowhere else.
fn is_inbound(front: Front, recipient: &str) -> bool {
    let (local, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
    let is_inbound = match front.is_sendmail() {
        // Its own domains have become that of MAIL_HUB.
        true => ["[127.0.0.1]", "inbound.example"].contains(&domain),
        false => ["own.example", "inbound.example"].contains(&domain),
    };
    is_inbound && !local.contains(['@', '%', '!'])
}

/// What relaykeeper logged about an accepted message.
fn judged(relay: &Relay, reply: &Reply) -> Outcome {
    let text = reply.text();
    let mut words = text.split_whitespace();
    let queue_id = if relay.front.is_sendmail() { words.nth(1) } else { words.next_back() }.unwrap();
    let line = relay.daemon.await_line(&[&format!("{queue_id}: "), "verdict=accept"]);
    if line.contains("reason=exempt-recipient-domain") {
        return Outcome::Exempt;
    }
    assert!(line.contains("recipients=1") && line.contains("customer="), "{line}");
    Outcome::Counted
}

/// Without quotes, in lower case.
fn internal(path: &str) -> String {
    let Some(quoted) = path.strip_prefix('"') else { return path.to_lowercase() };
    let (mut local, mut rest) = (String::new(), quoted.chars());
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => local.extend(rest.next()),
            c => local.push(c),
        }
    }
    (local + rest.as_str()).to_lowercase()
}

fn domain(internal: &str) -> &str {
    internal.rsplit_once('@').map_or("", |(_, domain)| domain)
}

fn without_tag(internal: &str) -> String {
    let (local, domain) = internal.rsplit_once('@').unwrap_or((internal, ""));
    format!("{}@{domain}", local.split_once('+').map_or(local, |(user, _)| user))
}

#[test]
fn addresses_are_compared_without_quotes() {
    assert_eq!(internal("\"a\\\"B\"@X.example"), "a\"b@x.example");
    assert_eq!((domain("a@b@c.example"), domain("a")), ("c.example", ""));
    assert_eq!(without_tag("ann+x@acme.example"), "ann@acme.example");
}
