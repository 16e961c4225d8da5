//! Is the envelope sender one of the customer's? (relay service, sections 1 to 3)

use super::identify::Login;
use super::sender_form::{bare_spelling, forwarded_address};
use crate::config::SenderForm;
use crate::directory::{Customer, Further, Owner, User};
use crate::envelope::{Address, Sender};
use crate::policy::facts::Rules;
use std::sync::Arc;

/// What the envelope sender is to the identified customer.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct SenderRelation<'a> {
    /// The registered user whose address, alias or further address it is; of forwarded mail, that of the address within.
    pub user: Option<&'a User>,
    /// Its domain is one of the customer's, or below one.
    pub own_domain: bool,
    /// Mail that a forwarder of the customer's passes on (`sender_forms = ["srs"]`): its domain is one of the customer's.
    pub is_forwarded: bool,
    /// It is a further address of another customer's user: nobody else's mail leaves with it.
    pub of_another: bool,
}

pub(in crate::policy) fn relation_of<'a>(
    sender: &Sender,
    customer: &'a Arc<Customer>,
    rules: &Rules,
) -> SenderRelation<'a> {
    let Some(address) = sender.address() else {
        return SenderRelation { user: None, own_domain: false, is_forwarded: false, of_another: false };
    };
    let forms = &rules.relay.sender_forms;
    let own_domain = match rules.directory.owner_of_domain(address.domain()).map(|claim| claim.owner) {
        Some(Owner::Customer(owner)) => Arc::ptr_eq(owner, customer),
        _ => false,
    };
    let mut user = find_user(customer, address, forms);
    // Whoever rewrites a sender (SRS) puts a domain of its own outside: only the customer's own forwarders are meant.
    let original = if user.is_none() && own_domain { forwarded_address(address, forms) } else { None };
    let is_forwarded = original.is_some();
    if let Some(original) = original {
        user = find_user(customer, &original, forms);
    }
    let of_another = user.is_none() && !own_domain && find_further(address, rules).is_some();
    SenderRelation { user, own_domain, is_forwarded, of_another }
}

/// The registered user for whom the mail counts. The empty sender, and mail that is forwarded, counts for the user who logged in, if
/// there is a login.
pub(in crate::policy) fn counted_user<'a>(
    sender: &Sender,
    relation: &SenderRelation<'a>,
    login: Option<&Login<'a>>,
) -> Option<&'a User> {
    match login {
        Some(login) if *sender == Sender::Empty || relation.is_forwarded => login.user,
        _ => relation.user,
    }
}

/// Whose further address it is: as it is, or without what the configured forms allow to be added.
pub(in crate::policy) fn find_further<'a>(address: &Address, rules: &Rules<'a>) -> Option<Further<'a>> {
    let directory = rules.directory;
    directory
        .further_sender(address.as_str())
        .or_else(|| directory.further_sender(&bare_spelling(address, &rules.relay.sender_forms)?))
}

/// Whether the sender is the user that logged in, by address or alias. Without a login there is nothing to match.
pub(in crate::policy) fn matches_login(sender: &Sender, relation: &SenderRelation, login: Option<&Login>) -> bool {
    let Some(login) = login.filter(|_| *sender != Sender::Empty) else { return true };
    match (login.user, relation.user.filter(|_| !relation.is_forwarded)) {
        (Some(login_user), Some(user)) => std::ptr::eq(login_user, user),
        _ => false,
    }
}

/// The user an address belongs to: as it is, or without what the configured forms allow to be added.
fn find_user<'a>(customer: &'a Customer, address: &Address, forms: &[SenderForm]) -> Option<&'a User> {
    customer.users.find(address.as_str()).or_else(|| customer.users.find(&bare_spelling(address, forms)?))
}
