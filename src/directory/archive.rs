//! Where copies of a customer's mail go: one address, or one for each sender.

use crate::envelope::Address;
use std::fmt;

/// A storage address, in which `{local}` and `{domain}` stand for the sender whose mail it is (relay service, section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveAddress {
    local: Box<str>,
    domain: Box<str>,
}

/// Why a text is no storage address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveAddressError {
    #[error("the domain is missing")]
    NoDomain,
    #[error("{{{0}}} stands for nothing")]
    UnknownName(String),
    #[error("a brace is not closed, or not opened")]
    LoneBrace,
    #[error("a sender could choose where copies go")]
    OpenDomain,
}

/// The longest local part that is put in for `{local}`, in bytes (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL: usize = 64;

impl ArchiveAddress {
    /// Reads the places that stand for something. Whether the rest makes an address shows when it is [expanded](Self::expand).
    pub fn parse(text: &str) -> Result<ArchiveAddress, ArchiveAddressError> {
        let (local, domain) = text.trim().rsplit_once('@').ok_or(ArchiveAddressError::NoDomain)?;
        check_braces(local)?;
        check_braces(domain)?;
        if let Some((_, fixed)) = domain.rsplit_once('}') {
            // At least `.archive.example` has to be the customer's own words.
            let is_fixed = fixed.strip_prefix('.').is_some_and(|rest| rest.trim_end_matches('.').contains('.'));
            if !is_fixed {
                return Err(ArchiveAddressError::OpenDomain);
            }
        }
        Ok(ArchiveAddress { local: local.into(), domain: domain.to_lowercase().into() })
    }

    /// The address for mail of `owner`. What cannot stand in an address without quotes becomes `_`, and a local part is
    /// cut after 64 bytes. `None` where no address comes of it.
    pub fn expand(&self, owner: &Address) -> Option<Address> {
        let local =
            put_in(&self.local, owner, MAX_LOCAL, |c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c));
        let domain = put_in(&self.domain, owner, usize::MAX, |c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        // Dots that open, close or come twice need quotes, and labels that are empty are none.
        let local = local.split('.').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        let domain = domain.split('.').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        let is_good = !local.is_empty() && domain.len() <= 253 && domain.split('.').all(|label| label.len() <= 63);
        if is_good { Address::from_internal(&format!("{local}@{domain}").to_lowercase()).ok() } else { None }
    }
}

fn check_braces(text: &str) -> Result<(), ArchiveAddressError> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let Some((name, after)) = rest[at..].strip_prefix('{').and_then(|open| open.split_once('}')) else {
            return Err(ArchiveAddressError::LoneBrace);
        };
        if !["local", "domain"].contains(&name) {
            return Err(ArchiveAddressError::UnknownName(name.to_owned()));
        }
        rest = after;
    }
    Ok(())
}

/// What the places stand for, each cut after `most` bytes, with every character that may not be there made `_`.
fn put_in(template: &str, owner: &Address, most: usize, may_stand: impl Fn(char) -> bool) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if may_stand(c) && !"{}".contains(c) { c } else { '_' }).take(most).collect()
    };
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, inside)) = rest.split_once('{') {
        let Some((name, after)) = inside.split_once('}') else { break };
        text.push_str(before);
        text.push_str(&plain(if name == "local" { owner.local_part() } else { owner.domain() }));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// As it was written.
impl fmt::Display for ArchiveAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(template: &str, owner: &str) -> String {
        let owner = Address::from_path(owner).unwrap();
        ArchiveAddress::parse(template).unwrap().expand(&owner).unwrap().to_string()
    }

    #[test]
    fn places_stand_for_the_sender() {
        for (template, expected) in [
            ("vault@acme.example", "vault@acme.example"),
            ("{local}@archive.acme.example", "kim@archive.acme.example"),
            ("vault+{local}@acme.example", "vault+kim@acme.example"),
            ("{local}.{domain}@archive.example", "kim.acme.example@archive.example"),
            ("{local}@{domain}.archive.example", "kim@acme.example.archive.example"),
        ] {
            assert_eq!(expand(template, "kim@acme.example"), expected);
        }
    }

    #[test]
    fn a_sender_cannot_choose_where_copies_go() {
        for (owner, expected) in [
            ("\"x@evil.example> <\"@acme.example", "x_evil.example___@archive.example"),
            ("\"a b\"@acme.example", "a_b@archive.example"),
            ("{domain}@acme.example", "_domain_@archive.example"),
            ("..a..b.@acme.example", "a.b@archive.example"),
            ("björn@acme.example", "bj_rn@archive.example"),
        ] {
            assert_eq!(expand("{local}@archive.example", owner), expected);
        }
        let long = format!("{}@acme.example", "x".repeat(500));
        assert_eq!(expand("{local}@archive.example", &long), format!("{}@archive.example", "x".repeat(64)));
        assert_eq!(expand("v@{domain}.archive.example", "root"), "v@archive.example");
    }

    #[test]
    fn what_is_no_storage_address() {
        for (text, why) in [
            ("vault", ArchiveAddressError::NoDomain),
            ("{user}@archive.example", ArchiveAddressError::UnknownName("user".into())),
            ("{local@archive.example", ArchiveAddressError::LoneBrace),
            ("local}@archive.example", ArchiveAddressError::LoneBrace),
            ("{{local}}@archive.example", ArchiveAddressError::UnknownName("{local".into())),
            ("vault@{domain}", ArchiveAddressError::OpenDomain),
            ("vault@archive.{domain}", ArchiveAddressError::OpenDomain),
            ("vault@{domain}archive.example", ArchiveAddressError::OpenDomain),
            ("vault@{domain}.example", ArchiveAddressError::OpenDomain),
        ] {
            assert_eq!(ArchiveAddress::parse(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whoever_sends_the_domain_is_the_customers(owner in "\\PC{1,80}") {
            let template = ArchiveAddress::parse("{local}@{domain}.archive.example").unwrap();
            if let Ok(owner) = Address::from_internal(&owner)
                && let Some(address) = template.expand(&owner)
            {
                prop_assert!(address.domain().ends_with("archive.example"), "{}", address);
                prop_assert_eq!(address.as_str().matches('@').count(), 1);
                prop_assert!(address.as_str().bytes().all(|b| b.is_ascii_graphic()), "{}", address);
            }
        }
    }
}
