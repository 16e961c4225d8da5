//! Everything a transaction is evaluated by: what the MTA says, the configuration, administrators' orders, and what only the
//! running daemon knows.

use super::front_end::FrontEnd;
use crate::clock::Moment;
use crate::config::Relay;
use crate::directory::{Directory, Subject};
use crate::envelope::{Address, Envelope, Sender};
use crate::ledger::RecipientKey;
use crate::orders::Orders;
use jiff::Timestamp;
use std::net::IpAddr;

/// What the MTA says of a transaction, with a sender that is valid. Nothing here is trusted but the client's address and what the
/// MTA itself checked (login, TLS).
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `None` when the MTA does not know it.
    pub client: Option<IpAddr>,
    /// As given at HELO or EHLO; empty when none was given.
    pub helo: &'a str,
    /// The protocol version (`TLSv1.3`); empty without TLS.
    pub tls: &'a str,
    /// The name that SMTP AUTH confirmed; empty without.
    pub login: &'a str,
    /// Postfix got the login by XCLIENT, from a proxy that had checked it.
    pub proxied_login: bool,
    /// The envelope sender as the client gave it.
    pub sender: &'a Sender,
    /// `SIZE=` of MAIL (RFC 1870), in bytes; `None` without.
    pub declared_size: Option<u64>,
}

impl<'a> Facts<'a> {
    /// `None` when the sender is malformed.
    pub fn of(envelope: &'a Envelope) -> Option<Facts<'a>> {
        Some(Facts {
            client: envelope.client,
            helo: &envelope.helo,
            tls: &envelope.tls,
            login: &envelope.login,
            proxied_login: envelope.proxied_login,
            sender: envelope.sender.as_ref().ok()?,
            declared_size: envelope.declared_size,
        })
    }

    pub fn has_login(&self) -> bool {
        !self.login.is_empty()
    }

    pub fn has_tls(&self) -> bool {
        !self.tls.is_empty()
    }
}

/// One snapshot of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub relay: &'a Relay,
    pub directory: &'a Directory,
}

/// What a transaction is evaluated by at one moment.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub envelope: &'a Envelope,
    pub rules: Rules<'a>,
    pub front_end: FrontEnd,
    pub orders: &'a Orders,
    pub live: &'a dyn LiveFacts,
}

/// What only the running daemon knows. Each is asked for only when a rule needs it.
pub trait LiveFacts: Sync {
    /// The time on the wall clock.
    fn now(&self) -> Timestamp;

    /// What the wall clock shows at a moment of the ledger's time line, in milliseconds since 1970.
    fn wall_clock(&self, moment: Moment) -> i64;

    /// The recipient as the ledger remembers it, from its canonical address.
    fn recipient_key(&self, canonical_address: &str) -> RecipientKey;

    /// The user's signs of abuse in words, if `on_abuse = "defer"` and there are any.
    fn signs_of_abuse(&self, user: &Subject) -> Option<Box<str>>;

    /// Whether a letter of relaykeeper's own is on its way to this address.
    fn has_own_mail_for(&self, recipient: &Address) -> bool;
}
