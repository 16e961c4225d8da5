//! Mail addresses of MAIL FROM and RCPT TO, in the one form in which they compare.
//!
//! Two readings lead there, because an MTA passes addresses on in two ways:
//! - as a [path](Address::from_path), as the client typed it (milter protocol);
//! - in [Postfix's internal form](Address::from_internal), already parsed and without quotes (policy protocol).

use super::address_error::AddressError;
use super::domain::{canonical_domain, is_mapped, is_name_byte};
use super::path::{self, Path, has_empty_label};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The longest address that is read, and the longest canonical form, in bytes. RFC 5321, 4.5.3.1.3 allows a path of
/// 256; source routes and generous MTAs need more.
pub const MAX_ADDRESS: usize = 1024;

/// An address that compares by its canonical form: no brackets, source route or quotes, lower case, the domain in
/// A-labels. The domain is empty where none was given (`MAIL FROM:<root>`). It is shown as it was written.
#[derive(Clone, Debug)]
pub struct Address {
    canonical: Box<str>,
    local_length: usize,
    /// As it was written, without brackets; `None` where that is the canonical form.
    written: Option<Box<str>>,
    has_route: bool,
    is_quoted: bool,
    /// MTAs may take the domain for another than it is in canonical form.
    is_mapped: bool,
}

/// The reverse-path: empty for bounces and out-of-office notes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    Empty,
    Address(Address),
}

impl Address {
    /// Reads an address as a client types it in MAIL or RCPT: RFC 5321, 4.1.2 and RFC 6531, 3.3. Angle brackets may be
    /// missing and a source route is skipped. What an MTA would read in its own way is an error.
    pub fn from_path(typed: &str) -> Result<Address, AddressError> {
        let Path { local, domain, written, has_route, is_quoted } = path::parse(typed)?;
        let address = Address { has_route, is_quoted, ..Address::canonical(&local, domain, written)? };
        if address.is_mapped || !domain.is_empty() && !is_domain(address.domain()) {
            return Err(AddressError::BadDomain);
        }
        Ok(address)
    }

    /// Reads an address in Postfix's internal form: what stands before the last `@` is the local part, whatever it
    /// holds (`kim doe@acme.example`).
    pub fn from_internal(text: &str) -> Result<Address, AddressError> {
        check_text(text)?;
        let (local, domain) = text.rsplit_once('@').unwrap_or((text, ""));
        Address::canonical(local, domain, text)
    }

    /// Reads an address that a person or a lookup table names, in either form.
    pub fn from_either(text: &str) -> Result<Address, AddressError> {
        Address::from_path(text).or_else(|error| Address::from_internal(text).map_err(|_| error))
    }

    fn canonical(local: &str, domain: &str, written: &str) -> Result<Address, AddressError> {
        let is_mapped = is_mapped(domain);
        let domain = canonical_domain(domain);
        let mut text = String::with_capacity(local.len() + 1 + domain.len());
        push_lower_case(&mut text, local);
        let local_length = text.len();
        // `"ann@acme.example"` without a domain must never pass for the address of a user.
        if !domain.is_empty() || local.contains('@') {
            text.push('@');
            text.push_str(&domain);
        }
        match text.len() {
            // Postfix takes a lone @ for the empty address.
            0 => return Err(AddressError::Empty),
            1..=MAX_ADDRESS => {}
            _ => return Err(AddressError::TooLong),
        }
        let written = (*text != *written).then(|| written.into());
        Ok(Address { canonical: text.into(), local_length, written, has_route: false, is_quoted: false, is_mapped })
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// What stands before the last `@`, without quotes, in lower case.
    pub fn local_part(&self) -> &str {
        &self.canonical[..self.local_length]
    }

    /// The domain in canonical form; empty where the address has none.
    pub fn domain(&self) -> &str {
        self.canonical.get(self.local_length + 1..).unwrap_or("")
    }

    /// Whether an MTA may deliver mail for this address elsewhere than to its domain: the local part holds one of the
    /// characters that Postfix (`resolve_dequoted_address`, `allow_percent_hack`, `swap_bangpath`) and Sendmail (class O)
    /// route by, or there is a source route (Sendmail's `_USE_DEPRECATED_ROUTE_ADDR_`), or the domain is no valid name as it
    /// was written.
    pub fn may_be_routed_on(&self) -> bool {
        self.has_route || self.is_mapped || self.local_part().contains(['@', '%', '!'])
    }

    /// Whether every MTA reads the address in the same way: only the operator's own tables can change where it leads.
    pub(super) fn is_plain(&self) -> bool {
        !self.is_quoted && !self.may_be_routed_on()
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Address) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Address) -> Ordering {
        self.canonical.cmp(&other.canonical)
    }
}

/// As it was written, without brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.written.as_deref().unwrap_or(&self.canonical))
    }
}

impl Sender {
    /// Reads what a client types in MAIL: see [`Address::from_path`].
    pub fn from_path(typed: &str) -> Result<Sender, AddressError> {
        Sender::of(Address::from_path(typed))
    }

    /// Reads Postfix's internal form: see [`Address::from_internal`].
    pub fn from_internal(text: &str) -> Result<Sender, AddressError> {
        Sender::of(Address::from_internal(text))
    }

    /// Reads a sender that a person or a lookup table names: see [`Address::from_either`].
    pub fn from_either(text: &str) -> Result<Sender, AddressError> {
        Sender::of(Address::from_either(text))
    }

    fn of(address: Result<Address, AddressError>) -> Result<Sender, AddressError> {
        match address {
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

/// What holds for both readings: bounded length, no control characters, and UTF-8. (What was not UTF-8 has U+FFFD by
/// now; different addresses must not become one.)
pub(super) fn check_text(text: &str) -> Result<(), AddressError> {
    if text.len() > MAX_ADDRESS {
        return Err(AddressError::TooLong);
    }
    // Nearly all are printable ASCII. Without an early end this is one instruction for many bytes.
    if text.bytes().fold(true, |printable, byte| printable & matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    for c in text.chars() {
        match c {
            char::REPLACEMENT_CHARACTER => return Err(AddressError::NotUtf8),
            c if c.is_control() => return Err(AddressError::ControlCharacter),
            _ => {}
        }
    }
    Ok(())
}

/// A host name or an address literal, in canonical form.
fn is_domain(domain: &str) -> bool {
    if domain.starts_with('[') {
        domain.is_ascii()
    } else {
        domain.bytes().all(is_name_byte) && !has_empty_label(domain)
    }
}

fn push_lower_case(out: &mut String, text: &str) {
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text);
        out[start..].make_ascii_lowercase();
        return;
    }
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c.to_ascii_lowercase());
        } else {
            out.extend(c.to_lowercase());
        }
    }
}

#[cfg(test)]
mod tests;
