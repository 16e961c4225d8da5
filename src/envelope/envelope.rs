//! What an MTA says of a transaction when it begins.

use super::{Read, Sender};
use std::fmt;
use std::net::IpAddr;

/// The longest HELO name, TLS version and login that are stored, in bytes; an SMTP line has 512 octets (RFC 5321,
/// 4.5.3.1.4).
const MAX_NAME: usize = 512;

/// What Postfix reports as the SASL method of a login that a proxy handed over.
pub const XCLIENT: &str = "XCLIENT";

/// The facts of one transaction at MAIL, all of them bounded.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub client: Option<IpAddr>,
    pub helo: Box<str>,
    pub tls: Box<str>,
    pub login: Box<str>,
    /// The login came by XCLIENT, which Postfix takes from `smtpd_authorized_xclient_hosts` only.
    pub proxied_login: bool,
    /// An address that cannot be read is refused at the first recipient.
    pub sender: Read<Sender>,
    /// `SIZE=` of MAIL (RFC 1870), in bytes.
    pub declared_size: Option<u64>,
}

impl Envelope {
    /// From what the MTA says; empty is what it does not know.
    pub fn new(client: Option<IpAddr>, helo: &str, tls: &str, login: &str, sender: Read<Sender>) -> Envelope {
        Envelope {
            client,
            helo: bounded(helo),
            tls: bounded(tls),
            login: bounded(login),
            proxied_login: false,
            sender,
            declared_size: None,
        }
    }

    /// With the SASL method that goes with the login. After XCLIENT Postfix gives that word in its place (`smtpd_sasl_auth_extern`,
    /// smtpd_sasl_proto.c).
    pub fn with_sasl_method(self, method: &str) -> Envelope {
        Envelope { proxied_login: method == XCLIENT && !self.login.is_empty(), ..self }
    }

    /// With the size that the client declared. 0 is what Postfix says where there is none.
    pub fn declaring(self, size: Option<u64>) -> Envelope {
        Envelope { declared_size: size.filter(|&size| size > 0), ..self }
    }

    /// The sender as it was written, also where it could not be read; `None` before MAIL.
    pub fn written_sender(&self) -> Option<WrittenSender<'_>> {
        let is_known = self.sender.as_ref().map_or_else(|bad| !bad.written().is_empty(), |_| true);
        is_known.then_some(WrittenSender(&self.sender))
    }
}

/// Displays a sender as it was written.
pub struct WrittenSender<'a>(&'a Read<Sender>);

impl fmt::Display for WrittenSender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(sender) => sender.fmt(f),
            Err(bad) => f.write_str(bad.written()),
        }
    }
}

/// A name that a client said, in bounds. What is cut never passes for something shorter: no name and no login ends in dots.
pub fn bounded(text: &str) -> Box<str> {
    if text.len() <= MAX_NAME {
        return text.into();
    }
    let end = (0..=MAX_NAME).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}...", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_passes_for_nothing_else() {
        let login = format!("{}@acme.example", "l".repeat(MAX_NAME - 13));
        let envelope = |login: &str| Envelope::new(None, "", "", login, Ok(Sender::Empty));
        assert_eq!(*envelope(&login).login, login);
        let longer = envelope(&format!("{login}.evil.example")).login;
        assert!(longer.ends_with("@acme.example...") && longer.len() == MAX_NAME + 3, "{longer}");
        assert!(envelope(&"ö".repeat(MAX_NAME)).login.len() <= MAX_NAME + 3);
    }
}
