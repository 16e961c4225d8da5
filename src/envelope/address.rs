//! Mail addresses as MAIL FROM and RCPT TO name them (RFC 5321, 4.1.2), in the one form in which they compare.

use super::domain::canonical_domain;
use std::fmt;

/// The longest address that is looked at, in bytes. RFC 5321, 4.5.3.1.3 allows a path of 256; source routes and
/// generous MTAs need more.
pub const MAX_ADDRESS: usize = 1024;

/// An address in canonical form: no brackets, source route or quotes, lower case, the domain in A-labels.
/// The domain is empty where none was given (`MAIL FROM:<root>`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: Box<str>,
    local_length: usize,
}

/// The reverse-path: empty for bounces and out-of-office notes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    Empty,
    Address(Address),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is longer than 1024 bytes")]
    TooLong,
    #[error("the address holds control characters")]
    ControlCharacters,
    #[error("the address is empty")]
    Empty,
}

impl Address {
    /// Parses an address as an MTA passes it on: with or without brackets, source routes and quotes.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        match bare_path(text)? {
            "" => Err(AddressError::Empty),
            path => Ok(Address::canonical(path)),
        }
    }

    fn canonical(path: &str) -> Address {
        let (local, domain) = path.rsplit_once('@').unwrap_or((path, ""));
        let domain = canonical_domain(domain);
        let mut text = String::with_capacity(local.len() + 1 + domain.len());
        push_local_part(&mut text, local);
        let local_length = text.len();
        if !domain.is_empty() {
            text.push('@');
            text.push_str(&domain);
        }
        Address { text: text.into(), local_length }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the last `@`, without quotes, in lower case.
    pub fn local_part(&self) -> &str {
        &self.text[..self.local_length]
    }

    /// The domain in canonical form; empty where the address has none.
    pub fn domain(&self) -> &str {
        self.text.get(self.local_length + 1..).unwrap_or("")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Sender {
    pub fn parse(text: &str) -> Result<Sender, AddressError> {
        match Address::parse(text) {
            Ok(address) => Ok(Sender::Address(address)),
            Err(AddressError::Empty) => Ok(Sender::Empty),
            Err(other) => Err(other),
        }
    }

    pub fn address(&self) -> Option<&Address> {
        match self {
            Sender::Empty => None,
            Sender::Address(address) => Some(address),
        }
    }

    /// The domain in canonical form; empty where there is none.
    pub fn domain(&self) -> &str {
        self.address().map_or("", Address::domain)
    }
}

/// The empty sender shows as `<>`, as in mail logs.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Empty => f.write_str("<>"),
            Sender::Address(address) => address.fmt(f),
        }
    }
}

/// `<@a.example,@b.example:user@c.example>` → `user@c.example`
fn bare_path(text: &str) -> Result<&str, AddressError> {
    if text.len() > MAX_ADDRESS {
        return Err(AddressError::TooLong);
    }
    if has_control_characters(text) {
        return Err(AddressError::ControlCharacters);
    }
    let text = text.trim();
    let path = text.strip_prefix('<').map_or(text, |inner| inner.strip_suffix('>').unwrap_or(inner)).trim();
    Ok(match path.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, destination)) => destination,
        None => path,
    })
}

fn has_control_characters(text: &str) -> bool {
    if text.is_ascii() {
        return text.bytes().any(|byte| byte.is_ascii_control());
    }
    text.chars().any(char::is_control)
}

/// Postfix's policy protocol gives local parts without quotes, milters get them as typed: here both are the same.
fn push_local_part(out: &mut String, local: &str) {
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if quoted.is_none() && local.is_ascii() {
        let start = out.len();
        out.push_str(local);
        return out[start..].make_ascii_lowercase();
    }
    let mut characters = quoted.unwrap_or(local).chars();
    while let Some(mut c) = characters.next() {
        if c == '\\' && quoted.is_some() {
            c = characters.next().unwrap_or('\\');
        }
        if c.is_ascii() {
            out.push(c.to_ascii_lowercase());
        } else {
            out.extend(c.to_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_address_is_one_address() {
        for text in [
            "ann@acme.example",
            "<Ann@ACME.example>",
            "<@relay.example,@b.example:ann@acme.example.>",
            " <\"ann\"@acme.example> ",
            "\"a\\nn\"@Acme.Example",
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.as_str(), "ann@acme.example", "{text}");
            assert_eq!((address.local_part(), address.domain()), ("ann", "acme.example"));
        }
    }

    #[test]
    fn an_address_may_lack_a_domain() {
        let address = Address::parse("<Postmaster>").unwrap();
        assert_eq!((address.as_str(), address.domain()), ("postmaster", ""));
        assert_eq!(Address::parse("root@").unwrap().as_str(), "root");
    }

    #[test]
    fn the_last_at_sign_divides() {
        let address = Address::parse("\"a@b\"@c.example").unwrap();
        assert_eq!((address.local_part(), address.domain()), ("a@b", "c.example"));
    }

    #[test]
    fn the_empty_sender() {
        assert_eq!(Sender::parse("<>").unwrap(), Sender::Empty);
        assert_eq!(Sender::parse("").unwrap(), Sender::Empty);
        assert_eq!(Sender::Empty.to_string(), "<>");
    }

    #[test]
    fn hostile_addresses_are_refused() {
        assert_eq!(Address::parse(&"a".repeat(MAX_ADDRESS + 1)), Err(AddressError::TooLong));
        assert_eq!(Address::parse("a\r\nb@c.example"), Err(AddressError::ControlCharacters));
        assert_eq!(Address::parse("<>"), Err(AddressError::Empty));
    }
}
