//! What an MTA said of a transaction when it began, kept until it ends.

use crate::envelope::{AddressError, Sender};
use crate::policy::Facts;
use std::net::IpAddr;

/// Owned facts of one transaction. Lengths are bounded by whoever fills it from the wire.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub client: Option<IpAddr>,
    pub helo: Box<str>,
    pub tls: Box<str>,
    pub login: Box<str>,
    /// An address that breaks every bound is refused at the first recipient.
    pub sender: Result<Sender, AddressError>,
}

impl Envelope {
    /// `None` when the sender could not be read.
    pub fn facts(&self) -> Option<Facts<'_>> {
        Some(Facts {
            client: self.client,
            helo: &self.helo,
            tls: &self.tls,
            login: &self.login,
            sender: self.sender.as_ref().ok()?,
        })
    }
}
