//! Is the envelope sender one of the customer's? (relay service, sections 1 to 3)

use super::facts::{Facts, Rules};
use crate::config::SenderForm;
use crate::directory::{Customer, Owner, User};
use crate::envelope::{Address, Sender, canonical_login};
use std::sync::Arc;

/// What the envelope sender is to the identified customer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing<'a> {
    /// The registered user whose address, alias or further address it is.
    pub user: Option<&'a User>,
    /// Its domain is one of the customer's, or below one.
    pub own_domain: bool,
}

pub(super) fn standing<'a>(sender: &Sender, customer: &'a Arc<Customer>, rules: &Rules) -> Standing<'a> {
    let Some(address) = sender.address() else { return Standing { user: None, own_domain: false } };
    let user = find_user(customer, address, &rules.relay.sender_forms);
    let own_domain = match rules.directory.owner_of_domain(address.domain()).map(|claim| claim.owner) {
        Some(Owner::Customer(owner)) => Arc::ptr_eq(owner, customer),
        _ => false,
    };
    Standing { user, own_domain }
}

/// Whether the sender is the user that logged in, by address or alias. Without a login there is nothing to match.
pub(super) fn matches_login(facts: &Facts, customer: &Customer, user: Option<&User>, rules: &Rules) -> bool {
    if !facts.has_login() || *facts.sender == Sender::Empty {
        return true;
    }
    match (login_user(facts, customer, rules), user) {
        (Some(login_user), Some(user)) => std::ptr::eq(login_user, user),
        _ => false,
    }
}

/// The customer's user that logged in: by a `logins` entry, else by address or alias.
pub(super) fn login_user<'a>(facts: &Facts, customer: &'a Customer, rules: &Rules) -> Option<&'a User> {
    if !facts.has_login() {
        return None;
    }
    let login = canonical_login(facts.login);
    match rules.directory.owner_of_login(&login) {
        Some((owner, id)) if owner.name == customer.name => customer.users.get(id),
        _ => customer.users.find(&login),
    }
}

/// The user an address belongs to: as it is, or without what the configured forms allow to be added.
fn find_user<'a>(customer: &'a Customer, address: &Address, forms: &[SenderForm]) -> Option<&'a User> {
    if let Some(user) = customer.users.find(address.as_str()) {
        return Some(user);
    }
    let (mut local, mut domain) = (address.local_part(), address.domain());
    if forms.contains(&SenderForm::Srs) {
        (local, domain) = without_srs(local).unwrap_or((local, domain));
    }
    if forms.contains(&SenderForm::Batv) {
        local = without_batv(local);
    }
    if forms.contains(&SenderForm::Plus) {
        local = local.split_once('+').map_or(local, |(user, _tag)| user);
    }
    if local.is_empty() || local.len() == address.local_part().len() {
        return None;
    }
    customer.users.find(&format!("{local}@{domain}"))
}

/// The address that was forwarded: `SRS0=HASH=TT=DOMAIN=user`, or `SRS1=HASH=FORWARDER==HASH=TT=DOMAIN=user` when that
/// happened twice (Sender Rewriting Scheme). In canonical form all is in lower case.
fn without_srs(local: &str) -> Option<(&str, &str)> {
    const SEPARATORS: [char; 3] = ['=', '+', '-'];
    let opaque = match local.strip_prefix("srs1").and_then(|rest| rest.strip_prefix(SEPARATORS)) {
        Some(rest) => rest.splitn(3, '=').nth(2)?.strip_prefix(SEPARATORS)?,
        None => local.strip_prefix("srs0")?.strip_prefix(SEPARATORS)?,
    };
    let mut parts = opaque.splitn(4, '=').skip(2);
    let (domain, user) = (parts.next()?, parts.next()?);
    Some((user, domain))
}

/// `prvs=TAG=user` (draft-levine-smtp-batv)
fn without_batv(local: &str) -> &str {
    match local.strip_prefix("prvs=").and_then(|rest| rest.split_once('=')) {
        Some((tag, user)) if tag.len() == 10 => user,
        _ => local,
    }
}
