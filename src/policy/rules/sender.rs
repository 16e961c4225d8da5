//! Is the envelope sender one of the customer's? (relay service, sections 1 to 3)

use super::identify::Login;
use super::sender_form::bare_spelling;
use crate::config::SenderForm;
use crate::directory::{Customer, Further, Owner, User};
use crate::envelope::{Address, Sender};
use crate::policy::facts::Rules;
use std::sync::Arc;

/// What the envelope sender is to the identified customer.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct SenderRelation<'a> {
    /// The registered user whose address, alias or further address it is.
    pub user: Option<&'a User>,
    /// Its domain is one of the customer's, or below one.
    pub own_domain: bool,
    /// It is a further address of another customer's user: nobody else's mail leaves with it.
    pub of_another: bool,
}

pub(in crate::policy) fn relation_of<'a>(
    sender: &Sender,
    customer: &'a Arc<Customer>,
    rules: &Rules,
) -> SenderRelation<'a> {
    let Some(address) = sender.address() else {
        return SenderRelation { user: None, own_domain: false, of_another: false };
    };
    let user = find_user(customer, address, &rules.relay.sender_forms);
    let own_domain = match rules.directory.owner_of_domain(address.domain()).map(|claim| claim.owner) {
        Some(Owner::Customer(owner)) => Arc::ptr_eq(owner, customer),
        _ => false,
    };
    let of_another = user.is_none() && !own_domain && find_further(address, rules).is_some();
    SenderRelation { user, own_domain, of_another }
}

/// Whose further address it is: as it is, or without what the configured forms allow to be added.
pub(in crate::policy) fn find_further<'a>(address: &Address, rules: &Rules<'a>) -> Option<Further<'a>> {
    let directory = rules.directory;
    directory
        .further_sender(address.as_str())
        .or_else(|| directory.further_sender(&bare_spelling(address, &rules.relay.sender_forms)?))
}

/// Whether the sender is the user that logged in, by address or alias. Without a login there is nothing to match.
pub(in crate::policy) fn matches_login(sender: &Sender, user: Option<&User>, login: Option<&Login>) -> bool {
    let Some(login) = login.filter(|_| *sender != Sender::Empty) else { return true };
    match (login.user, user) {
        (Some(login_user), Some(user)) => std::ptr::eq(login_user, user),
        _ => false,
    }
}

/// The user an address belongs to: as it is, or without what the configured forms allow to be added.
fn find_user<'a>(customer: &'a Customer, address: &Address, forms: &[SenderForm]) -> Option<&'a User> {
    customer.users.find(address.as_str()).or_else(|| customer.users.find(&bare_spelling(address, forms)?))
}
