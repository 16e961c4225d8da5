//! What is known of a transaction, and what it is judged by.

use crate::config::Relay;
use crate::directory::Directory;
use crate::envelope::Sender;
use std::net::IpAddr;

/// What the MTA says of a transaction, parsed. Nothing here is trusted but the client's address and what the MTA itself checked
/// (login, TLS).
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
    /// The envelope sender as the client gave it.
    pub sender: &'a Sender,
    /// `SIZE=` of MAIL (RFC 1870), in bytes; `None` without.
    pub declared_size: Option<u64>,
}

impl Facts<'_> {
    pub fn has_login(&self) -> bool {
        !self.login.is_empty()
    }

    pub fn has_tls(&self) -> bool {
        !self.tls.is_empty()
    }
}

/// What a transaction is judged by: one snapshot of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub relay: &'a Relay,
    pub directory: &'a Directory,
}
