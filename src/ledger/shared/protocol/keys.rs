//! The names of the store's keys.
//!
//! A customer's name is the hash tag, in braces, so that all keys of a customer are in one slot of a Cluster (Redis Cluster
//! specification, "Hash tags"). Names are percent-encoded, so that none can contain braces of its own.

use crate::directory::{Parties, Subject, SubjectKind};
use std::fmt::Write;

/// What every key begins with, for access control lists: `~rk:*`.
pub(in crate::ledger::shared) const PREFIX: &str = "rk:";

/// The key of a customer's account. All keys of the customer are in its slot.
pub(in crate::ledger::shared) fn of_customer(prefix: &str, customer: &str) -> String {
    key(prefix, customer, ":c", "")
}

/// The keys of a transaction: two for the customer's account, then two for the user's and two for the login's, if any.
pub(in crate::ledger::shared) fn of_parties(prefix: &str, parties: &Parties) -> Vec<String> {
    let mut keys = Vec::with_capacity(6);
    keys.extend(of_account(prefix, &parties.customer, SubjectKind::Customer, ""));
    for (kind, name) in [(SubjectKind::User, &parties.user), (SubjectKind::Login, &parties.login)] {
        if let Some(name) = name {
            keys.extend(of_account(prefix, &parties.customer, kind, name));
        }
    }
    keys
}

/// The keys of a subject: two for the customer's account; of a user or login, two for its own account, too.
pub(in crate::ledger::shared) fn of_subject(prefix: &str, subject: &Subject) -> Vec<String> {
    let customer = &*subject.customer;
    let mut keys = of_account(prefix, customer, SubjectKind::Customer, "").to_vec();
    if subject.kind != SubjectKind::Customer {
        keys.extend(of_account(prefix, customer, subject.kind, &subject.name));
    }
    keys
}

/// The second key of an account, by its first.
pub(in crate::ledger::shared) fn second(key: &str) -> String {
    let place = key.find('}').map_or(key.len(), |brace| key.len().min(brace + 3));
    let (before, after) = key.split_at(place);
    format!("{before}+{after}")
}

/// Matches the first keys of all accounts of a kind (SCAN … MATCH).
pub(in crate::ledger::shared) fn pattern(prefix: &str, kind: SubjectKind) -> String {
    match kind {
        SubjectKind::Customer => format!("{prefix}{{*}}:c"),
        SubjectKind::User => format!("{prefix}{{*}}:u:*"),
        SubjectKind::Login => format!("{prefix}{{*}}:l:*"),
    }
}

/// Whose account a first key belongs to.
pub(in crate::ledger::shared) fn subject_of(prefix: &str, key: &str) -> Option<Subject> {
    let (customer, rest) = key.strip_prefix(prefix)?.strip_prefix('{')?.split_once('}')?;
    let customer = decode(customer)?;
    let (kind, name) = match rest.strip_prefix(':')?.split_once(':') {
        Some(("u", name)) => (SubjectKind::User, decode(name)?),
        Some(("l", name)) => (SubjectKind::Login, decode(name)?),
        None if rest == ":c" => (SubjectKind::Customer, customer.clone()),
        _ => return None,
    };
    Some(Subject { kind, customer: customer.into(), name: name.into() })
}

/// An account's first key, which every request reads, and its second one, for what may grow long.
fn of_account(prefix: &str, customer: &str, kind: SubjectKind, name: &str) -> [String; 2] {
    let [first, second] = match kind {
        SubjectKind::Customer => [":c", ":c+"],
        SubjectKind::User => [":u:", ":u+:"],
        SubjectKind::Login => [":l:", ":l+:"],
    };
    [key(prefix, customer, first, name), key(prefix, customer, second, name)]
}

fn key(prefix: &str, customer: &str, what: &str, name: &str) -> String {
    let mut key = String::with_capacity(prefix.len() + customer.len() + what.len() + name.len() + 2);
    key.push_str(prefix);
    key.push('{');
    // An empty hash tag would not count as one.
    if customer.is_empty() {
        key.push('%');
    }
    encode(&mut key, customer);
    key.push('}');
    key.push_str(what);
    encode(&mut key, name);
    key
}

/// Percent-encodes everything but letters, digits and what is usual in names and addresses.
fn encode(to: &mut String, name: &str) {
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"@.-_+=/'".contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _ = write!(to, "%{byte:02x}");
        }
    }
}

fn decode(text: &str) -> Option<String> {
    if text == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_keys_of_a_customer_share_its_tag() {
        let parties = Parties { customer: "a{b}c".into(), user: Some("ann@x.example".into()), login: Some("{".into()) };
        let expected = [
            "rk:{a%7bb%7dc}:c",
            "rk:{a%7bb%7dc}:c+",
            "rk:{a%7bb%7dc}:u:ann@x.example",
            "rk:{a%7bb%7dc}:u+:ann@x.example",
            "rk:{a%7bb%7dc}:l:%7b",
            "rk:{a%7bb%7dc}:l+:%7b",
        ];
        assert_eq!(of_parties(PREFIX, &parties), expected);
    }

    proptest! {
        #[test]
        fn a_first_key_identifies_its_subject(customer in ".{0,8}", name in ".{0,8}") {
            for kind in [SubjectKind::Customer, SubjectKind::User, SubjectKind::Login] {
                let name = if kind == SubjectKind::Customer { &customer } else { &name };
                let subject = Subject { kind, customer: customer.as_str().into(), name: name.as_str().into() };
                let keys = of_subject(PREFIX, &subject);
                let [.., own, other] = &keys[..] else { panic!("{keys:?}") };
                prop_assert_eq!(subject_of(PREFIX, own), Some(subject));
                prop_assert_eq!(&second(own), other);
                prop_assert_eq!(subject_of(PREFIX, other), None);
                let tag = keys[0].split(['{', '}']).nth(1).unwrap();
                prop_assert!(!tag.is_empty());
                let has_one_tag = |key: &String| key.matches('{').count() == 1 && key.matches('}').count() == 1;
                prop_assert!(keys.iter().all(has_one_tag));
            }
        }
    }
}
