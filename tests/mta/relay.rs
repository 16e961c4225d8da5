//! A whole relay: an MTA in front, relaykeeper beside it, a sink behind.

use crate::bed::{Folder, Mta, MtaSetup};
use crate::daemon::Daemon;
use crate::sink::{Envelope, Sink};
use crate::smtp::{Client, Reply, Sent};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Which MTA asks, and by which protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    PostfixPolicy,
    PostfixMilter,
    /// Postfix with both protocols.
    PostfixBoth,
    SendmailMilter,
}

impl Front {
    /// The policy protocol cannot rewrite a sender, nor tell of RSET and lost connections.
    pub fn has_milter(self) -> bool {
        self != Front::PostfixPolicy
    }

    pub fn is_sendmail(self) -> bool {
        self == Front::SendmailMilter
    }

    /// Sendmail knows no XCLIENT: its clients come from 127.0.0.0/8 and ::1. This maps what a scenario says
    /// (192.0.2.0/24, 198.51.100.0/24, 198.18.5.0/24, 203.0.113.0/24, 2001:db8::/48) to there, addresses and whole files alike.
    pub fn local(self, text: &str) -> String {
        if !self.is_sendmail() {
            return text.to_owned();
        }
        let text = text
            .replace("192.0.2.", "127.0.2.")
            .replace("198.51.100.", "127.51.100.")
            .replace("198.18.5.", "127.18.5.")
            .replace("203.0.113.", "127.0.113.");
        text.replace("2001:db8::/48", "::1/128").replace("2001:db8::7", "::1")
    }
}

/// One test for each front end, named after it: `on!(accepted_by_address: postfix_policy, sendmail_milter);`
macro_rules! on {
    ($scenario:ident: every_front) => { $crate::relay::on!($scenario: postfix_policy, postfix_milter, postfix_both, sendmail_milter); };
    ($scenario:ident: $($front:ident),+) => {
        mod $scenario {
            $(#[test] fn $front() { super::$scenario($crate::relay::front!($front)); })+
        }
    };
}
macro_rules! front {
    (postfix_policy) => {
        $crate::relay::Front::PostfixPolicy
    };
    (postfix_milter) => {
        $crate::relay::Front::PostfixMilter
    };
    (postfix_both) => {
        $crate::relay::Front::PostfixBoth
    };
    (sendmail_milter) => {
        $crate::relay::Front::SendmailMilter
    };
}
pub(crate) use {front, on};

/// `name@realm:password`
const LOGINS: [&str; 3] =
    ["kim@hooli.example:secret-kim", "kim@mx.test.example:secret-short", "car+ol@hooli.example:secret-carol"];

/// What a scenario wants to be different.
#[derive(Default)]
pub struct Setup {
    main: String,
    customers: Vec<(String, String)>,
    main_cf: String,
    master_cf: String,
    mc: String,
    earlier_milter: Option<PathBuf>,
}

impl Setup {
    pub fn new() -> Self {
        Self::default()
    }

    /// The customers that most scenarios use.
    pub fn with_customers() -> Self {
        crate::customers::ALL.iter().fold(Self::new(), |setup, (name, text)| setup.customer(name, text))
    }

    /// TOML over the harness's own main file.
    pub fn main(mut self, toml: &str) -> Self {
        self.main.push_str(toml);
        self.main.push('\n');
        self
    }

    pub fn customer(mut self, name: &str, toml: &str) -> Self {
        self.customers.push((name.to_owned(), toml.to_owned()));
        self
    }

    /// Further lines for main.cf.
    pub fn postfix(mut self, lines: &str) -> Self {
        self.main_cf.push_str(lines);
        self
    }

    /// Further lines for master.cf.
    pub fn postfix_services(mut self, lines: &str) -> Self {
        self.master_cf.push_str(lines);
        self
    }

    /// Further lines for sendmail.mc.
    pub fn sendmail(mut self, lines: &str) -> Self {
        self.mc.push_str(lines);
        self
    }

    /// A milter that is asked before relaykeeper (which is to be the last).
    pub fn after_milter(mut self, socket: PathBuf) -> Self {
        self.earlier_milter = Some(socket);
        self
    }

    pub fn start(self, front: Front) -> Relay {
        self.start_in(front, Folder::new())
    }

    pub fn start_in(self, front: Front, folder: Folder) -> Relay {
        let customers: Vec<_> = self.customers.iter().map(|(name, text)| (name.clone(), front.local(text))).collect();
        let mut daemon = Daemon::configure(folder.path(), &front.local(&self.main), &customers);
        daemon.cli_text(&["check"]);
        daemon.start(); // first: Sendmail wants the socket to be there
        let sink = Sink::start(&folder);
        let mut setup = MtaSetup {
            logins: LOGINS.map(str::to_owned).into(),
            main_cf: self.main_cf,
            master_cf: self.master_cf,
            mc: self.mc,
            sink_port: sink.port,
            ..MtaSetup::default()
        };
        setup.milters.extend(self.earlier_milter);
        if front.has_milter() {
            setup.milters.push(daemon.milter_socket());
        }
        let mta = match front {
            Front::PostfixPolicy | Front::PostfixBoth => {
                setup.policy = Some(format!("unix:{}", daemon.policy_socket().display()));
                Mta::postfix(folder.path(), &setup)
            }
            Front::PostfixMilter => {
                let table = folder.path().join("clients.cidr");
                std::fs::write(&table, daemon.cli_text(&["export", "postfix-cidr"])).unwrap();
                setup.mynetworks = format!("cidr:{}", table.display());
                Mta::postfix(folder.path(), &setup)
            }
            Front::SendmailMilter => {
                setup.access = daemon.cli_text(&["export", "sendmail-access"]);
                Mta::sendmail(folder.path(), &setup)
            }
        };
        Relay { front, mta, daemon, sink, _folder: folder }
    }
}

pub struct Relay {
    pub front: Front,
    pub mta: Mta,
    pub daemon: Daemon,
    pub sink: Sink,
    _folder: Folder,
}

impl Relay {
    /// The address that a client has here which a scenario calls `address`.
    pub fn address(&self, address: &str) -> IpAddr {
        self.front.local(address).parse().unwrap()
    }

    /// A client from this address, before its EHLO.
    pub fn connect(&self, address: &str) -> Client {
        let address = self.address(address);
        if self.front.is_sendmail() {
            let server =
                if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
            return Client::connect(Some(address), SocketAddr::new(server, self.mta.port));
        }
        let mut client = Client::connect(None, (Ipv4Addr::LOCALHOST, self.mta.port).into());
        client.pretend(address);
        client
    }

    /// A client from this address that has said EHLO.
    pub fn client(&self, address: &str, helo: &str) -> Client {
        let mut client = self.connect(address);
        client.ehlo(helo);
        client
    }

    /// A client that has said EHLO over TLS.
    pub fn tls_client(&self, address: &str, helo: &str) -> Client {
        let mut client = self.client(address, helo);
        client.starttls().ehlo(helo);
        client
    }

    /// Sends one message that must be accepted, and awaits it behind the MTA.
    pub fn deliver(&self, client: &mut Client, sender: &str, recipients: &[&str]) -> Envelope {
        let sent = client.send(sender, recipients);
        assert!(sent.accepted(), "refused: {}\n{}", sent.refusal().unwrap(), client.transcript());
        self.sink.await_mail(&sent.id)
    }

    /// Asserts that `sent` was refused with this code, these first words (ADDRESS in them as a scenario says it), and that
    /// the reply's reference is the one in the log. Gives the text of the reply, without the MTA's own prefix.
    pub fn assert_refused(&self, sent: &Sent, code: &str, first_words: &str) -> String {
        assert!(!sent.delivered(), "was delivered: {sent:?}");
        let reply = sent.refusal().unwrap_or_else(|| panic!("not refused: {sent:?}"));
        let text = self.assert_reply(reply, code, first_words);
        let reference = reference(&text).unwrap_or_else(|| panic!("no reference at the end: {text}"));
        let verdict = if code.starts_with('4') { "verdict=defer" } else { "verdict=reject" };
        self.daemon.await_line(&[&format!("ref={reference}"), verdict, "reason=", "client="]);
        text
    }

    /// Asserts code and first words alone.
    pub fn assert_reply(&self, reply: &Reply, code: &str, first_words: &str) -> String {
        let first_words = self.front.local(first_words);
        let (number, rest) = code.split_once(' ').expect("reply code and status");
        let text = reply.text();
        let text = text.strip_prefix(rest).unwrap_or_else(|| panic!("not {code} but {reply}")).trim_start();
        assert_eq!(reply.code.to_string(), number, "not {code} but {reply}");
        let text = without_mta_prefix(text);
        assert!(text.starts_with(&first_words), "not {first_words:?} but {reply}");
        text.to_owned()
    }

    /// Nothing of a refused message may be on its way: the queue is empty, and no such message is behind the MTA.
    pub fn assert_never_delivered(&mut self, sent: &Sent) {
        self.mta.await_empty_queue();
        assert!(self.sink.with_id(&sent.id).is_empty(), "refused and delivered all the same: {sent:?}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- log of relaykeeper ----\n{}---- log of the MTA ----\n{}----",
                self.daemon.log(),
                self.mta.log()
            );
        }
    }
}

/// Postfix: `<you@dest.example>: Recipient address rejected: TEXT`, Sendmail: `<you@dest.example>... TEXT` → TEXT
fn without_mta_prefix(text: &str) -> &str {
    if !text.starts_with('<') {
        return text;
    }
    let rest = text.split_once(" rejected: ").or_else(|| text.split_once(">... "));
    rest.map_or(text, |(_, rest)| rest)
}

/// `… [K7Q2-9FTM-XW]` → the reference, of at least ten characters.
fn reference(text: &str) -> Option<&str> {
    let (_, reference) = text.strip_suffix(']')?.rsplit_once('[')?;
    let long_enough = reference.chars().filter(char::is_ascii_alphanumeric).count() >= 10;
    (long_enough && reference.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-'))
        .then_some(reference)
}

#[test]
fn replies_are_taken_apart() {
    assert_eq!(without_mta_prefix("<a@b>: Recipient address rejected: Peak [X]"), "Peak [X]");
    assert_eq!(without_mta_prefix("<a@b>... Peak [X]"), "Peak [X]");
    assert_eq!(without_mta_prefix("Peak [X]"), "Peak [X]");
    assert_eq!(reference("Peak limit (acme) [K7Q2-9FTM-XW]"), Some("K7Q2-9FTM-XW"));
    assert_eq!(reference("Mail relay denied [192.0.2.7]"), None);
    assert_eq!(Front::SendmailMilter.local("192.0.2.0/24 2001:db8::/48 [2001:db8::7]"), "127.0.2.0/24 ::1/128 [::1]");
}
