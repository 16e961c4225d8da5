//! Domain names in the one form in which they compare: lower case, A-labels, no trailing dot.

use std::borrow::Cow;
use std::fmt;

/// A registrable name of a customer, checked: letters, digits, hyphens (RFC 5890), at least two labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

/// Why a text cannot be a customer's domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("it is empty")]
    Empty,
    #[error("a single label identifies nobody; write the whole name, such as \"{0}.example\"")]
    SingleLabel(String),
    #[error("an address literal is not a domain")]
    AddressLiteral,
    #[error("it is not a valid domain name (RFC 5890)")]
    Invalid,
    #[error("it is longer than 253 characters")]
    TooLong,
    #[error("it is a public suffix, under which others register names; write the name below it")]
    PublicSuffix,
}

impl Domain {
    /// Parses a domain as an administrator writes it: Unicode or A-labels, any case, with or without the final dot.
    pub fn parse(text: &str) -> Result<Domain, DomainError> {
        let text = text.trim();
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Err(DomainError::Empty);
        }
        if bare.starts_with('[') || bare.parse::<std::net::IpAddr>().is_ok() {
            return Err(DomainError::AddressLiteral);
        }
        let name = idna::domain_to_ascii_strict(bare).map_err(|_| DomainError::Invalid)?;
        if name.len() > 253 {
            return Err(DomainError::TooLong);
        }
        if !name.contains('.') {
            return Err(DomainError::SingleLabel(name));
        }
        if is_icann_suffix(&name) {
            return Err(DomainError::PublicSuffix);
        }
        Ok(Domain(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The form in which any domain that a client named is compared, without final dots. What is not a domain stays as it is,
/// in lower case: it will match nothing that is registered.
pub fn canonical_domain(text: &str) -> Cow<'_, str> {
    let bare = text.trim_end_matches('.');
    if bare.is_ascii() {
        if bare.bytes().any(|b| b.is_ascii_uppercase()) {
            return Cow::Owned(bare.to_ascii_lowercase());
        }
        return Cow::Borrowed(bare);
    }
    // UTS #46 turns a full-width @ into one, and other scripts' full stops into dots.
    let name = idna::domain_to_ascii(bare).ok().filter(|name| name.bytes().all(is_name_byte));
    let mut name = name.unwrap_or_else(|| bare.to_lowercase());
    name.truncate(name.trim_end_matches('.').len());
    Cow::Owned(name)
}

/// Whether UTS #46 makes another name of `domain` than a valid one in other letters (a full-width dot, a soft hyphen, a
/// ligature). MTAs compare without that mapping, and look up with it.
pub(super) fn is_mapped(domain: &str) -> bool {
    let is_mapped = |label: &str| {
        let (unicode, _) = idna::domain_to_unicode(&canonical_domain(label));
        unicode != label.to_lowercase()
    };
    !domain.is_ascii() && domain.split('.').any(|label| !label.is_ascii() && is_mapped(label))
}

/// What names consist of. Underscores are in use, although host names have none.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// The names under which `domain` may be registered, the most specific first: itself, then each parent that lies
/// below its public suffix. `domain` is in canonical form.
pub fn claims_of(domain: &str) -> impl Iterator<Item = &str> {
    // The suffix is looked up only when the name itself is not registered: most of the time it is.
    let mut suffix_length = None;
    let mut last: Option<&str> = None;
    std::iter::from_fn(move || {
        let name = match last {
            None => domain,
            Some(name) => {
                let (_, parent) = name.split_once('.')?;
                let shortest =
                    *suffix_length.get_or_insert_with(|| psl::suffix_str(domain).map_or(usize::MAX, str::len));
                Some(parent).filter(|parent| parent.len() > shortest)?
            }
        };
        last = Some(name);
        Some(name)
    })
}

/// Whether others register names directly below `domain` (the Public Suffix List, both of its sections).
pub fn is_public_suffix(domain: &str) -> bool {
    psl::suffix_str(domain).is_some_and(|suffix| suffix == domain)
}

fn is_icann_suffix(domain: &str) -> bool {
    use psl::Psl;
    psl::List
        .suffix(domain.as_bytes())
        .is_some_and(|suffix| suffix.as_bytes() == domain.as_bytes() && suffix.typ() != Some(psl::Type::Private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_domain_is_one_domain() {
        for text in ["bücher.example", "BÜCHER.example.", "xn--bcher-kva.example", " Xn--Bcher-Kva.Example "] {
            assert_eq!(Domain::parse(text).unwrap().as_str(), "xn--bcher-kva.example", "{text}");
        }
    }

    #[test]
    fn what_is_no_domain_is_told_apart() {
        assert_eq!(Domain::parse("  "), Err(DomainError::Empty));
        assert_eq!(Domain::parse("localhost"), Err(DomainError::SingleLabel("localhost".into())));
        assert_eq!(Domain::parse("[192.0.2.1]"), Err(DomainError::AddressLiteral));
        assert_eq!(Domain::parse("192.0.2.1"), Err(DomainError::AddressLiteral));
        assert_eq!(Domain::parse("a b.example"), Err(DomainError::Invalid));
        assert_eq!(Domain::parse("-.example"), Err(DomainError::Invalid));
        assert_eq!(Domain::parse("co.uk"), Err(DomainError::PublicSuffix));
        assert!(Domain::parse("github.io").is_ok(), "the owner of a private suffix may send from it");
    }

    #[test]
    fn claims_stop_below_the_public_suffix() {
        let claims = |name| claims_of(name).collect::<Vec<_>>();
        assert_eq!(claims("a.b.acme.co.uk"), ["a.b.acme.co.uk", "b.acme.co.uk", "acme.co.uk"]);
        assert_eq!(claims("acme.example"), ["acme.example"]);
        assert_eq!(claims("user.github.io"), ["user.github.io"], "a neighbour below github.io is a stranger");
        assert_eq!(claims("example"), ["example"]);
        assert_eq!(claims(""), [""]);
    }

    #[test]
    fn comparison_ignores_case_and_the_final_dot() {
        assert_eq!(canonical_domain("Acme.EXAMPLE."), "acme.example");
        assert_eq!(canonical_domain("acme.example.."), "acme.example", "as Sendmail has it");
        assert_eq!(canonical_domain("bücher.example"), "xn--bcher-kva.example");
        assert_eq!(canonical_domain("bücher。example。"), "xn--bcher-kva.example");
    }

    #[test]
    fn names_that_mtas_compare_otherwise_are_told_apart() {
        for name in ["bücher.example", "BÜCHER.example.", "xn--bcher-kva.STRAßE.example", "例え.テスト", "acme.example"]
        {
            assert!(!is_mapped(name), "{name}");
        }
        for name in ["own。example", "ｏｗｎ.example", "o\u{ad}wn.example", "ﬁ.example", "bu\u{308}cher.example"]
        {
            assert!(is_mapped(name), "{name}");
        }
    }
}
