//! Paths as clients type them in MAIL and RCPT (RFC 5321, 4.1.2; RFC 6531, 3.3).
//!
//! MTAs read more than that: Postfix drops `(comments)`, even unclosed ones, and takes a backslash away; Sendmail turns a
//! blank into a dot and looks for the innermost brackets. Two readings of one address are two addresses, so that
//! what is not in the grammar is refused. Deliberately accepted beyond it, because every MTA agrees: dots in any place
//! of the local part, missing brackets, blanks around the path, a final dot of the domain, underscores in it.

use super::AddressError;
use super::address::check_text;
use std::borrow::Cow;

/// A path, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// Without quotes.
    pub local: Cow<'a, str>,
    /// Empty where none was given.
    pub domain: &'a str,
    /// The path without brackets.
    pub written: &'a str,
    pub has_route: bool,
    pub is_quoted: bool,
}

/// What cannot stand outside quotes: the RFC's specials, and the blank. Of these only brackets may stand in a domain.
const SPECIALS: &[u8] = b" ()<>,;:\\\"[]";

/// By byte, for a search that looks at each once.
const IS_SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < SPECIALS.len() {
        table[SPECIALS[at] as usize] = true;
        at += 1;
    }
    table
};

pub(super) fn parse(typed: &str) -> Result<Path<'_>, AddressError> {
    check_text(typed)?;
    let written = without_brackets(typed.trim_matches(' '))?;
    if written.is_empty() {
        return Err(AddressError::Empty);
    }
    let (mailbox, has_route) = match written.starts_with('@') {
        true => (after_route(written)?, true),
        false => (written, false),
    };
    let (local, rest, is_quoted) = match mailbox.strip_prefix('"') {
        Some(inside) => {
            let (local, rest) = quoted_string(inside)?;
            (Cow::Owned(local), rest, true)
        }
        None => {
            let (local, rest) = mailbox.split_at(memchr::memchr(b'@', mailbox.as_bytes()).unwrap_or(mailbox.len()));
            if let Some(special) = local.bytes().find(|&byte| IS_SPECIAL[byte as usize]) {
                return Err(AddressError::Unquoted(special.into()));
            }
            (Cow::Borrowed(local), rest, false)
        }
    };
    if local.is_empty() {
        return Err(AddressError::NoLocalPart);
    }
    let domain = match rest.strip_prefix('@') {
        Some(domain) => checked_domain(domain)?,
        None if rest.is_empty() => "",
        None => return Err(AddressError::PartlyQuoted),
    };
    Ok(Path { local, domain, written, has_route, is_quoted })
}

fn without_brackets(text: &str) -> Result<&str, AddressError> {
    match text.strip_prefix('<') {
        Some(inner) => inner.strip_suffix('>').ok_or(AddressError::LoneBracket),
        None if text.ends_with('>') => Err(AddressError::LoneBracket),
        None => Ok(text),
    }
}

/// What follows `@a.example,@[192.0.2.1]:`.
fn after_route(path: &str) -> Result<&str, AddressError> {
    let mut rest = path;
    loop {
        let hop = rest.strip_prefix('@').ok_or(AddressError::BadRoute)?;
        // A literal may hold colons.
        let from = if hop.starts_with('[') { hop.find(']').ok_or(AddressError::BadRoute)? } else { 0 };
        let Some(length) = hop[from..].find([',', ':']) else {
            // `@acme.example` is no route.
            return Err(if rest.len() == path.len() { AddressError::NoLocalPart } else { AddressError::BadRoute });
        };
        let (domain, end) = hop.split_at(from + length);
        checked_domain(domain).map_err(|_| AddressError::BadRoute)?;
        match end.strip_prefix(':') {
            Some("") => return Err(AddressError::NoLocalPart),
            Some(mailbox) => return Ok(mailbox),
            None => rest = &end[1..],
        }
    }
}

/// The content of a quoted string up to its closing mark, and what follows. A backslash quotes the next character.
fn quoted_string(inside: &str) -> Result<(String, &str), AddressError> {
    let mut content = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    loop {
        match characters.next().ok_or(AddressError::OpenQuote)? {
            '"' => return Ok((content, characters.as_str())),
            '\\' => content.push(characters.next().ok_or(AddressError::OpenQuote)?),
            c => content.push(c),
        }
    }
}

fn checked_domain(domain: &str) -> Result<&str, AddressError> {
    let (name, is_literal) = match domain.strip_prefix('[') {
        Some(inside) => (inside.strip_suffix(']').ok_or(AddressError::BadDomain)?, true),
        None => (domain, false),
    };
    let foreign = |&byte: &u8| byte == b'@' || IS_SPECIAL[byte as usize] && !(is_literal && byte == b':');
    match name.bytes().find(foreign) {
        Some(b'@') => Err(AddressError::SecondAt),
        Some(special) => Err(AddressError::Unquoted(special.into())),
        None if name.is_empty() => Err(AddressError::NoDomain),
        // Sendmail drops as many final dots as there are.
        None if !is_literal && has_empty_label(name.strip_suffix('.').unwrap_or(name)) => Err(AddressError::BadDomain),
        None => Ok(domain),
    }
}

/// Whether a label of a domain is missing. `true` of the empty domain, too.
pub(super) fn has_empty_label(domain: &str) -> bool {
    let mut previous = b'.';
    for byte in domain.bytes() {
        if byte == b'.' && previous == b'.' {
            return true;
        }
        previous = byte;
    }
    previous == b'.'
}
