//! Where does a sender's mail go out? (relay service, section 10)

use super::sender::find_further;
use crate::directory::{Further, FurtherSender, Owner};
use crate::envelope::{Address, Sender};
use crate::policy::facts::Rules;
use crate::policy::trace::Trace;

/// The way out for the mail of a sender.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// Straight to the recipients.
    Direct,
    /// Through the gateway of a user's further address, which has a `gateway`.
    UserGateway(&'a FurtherSender),
    /// Through the customer's `outbound_gateway`.
    CustomerGateway(&'a str),
    /// The file of the customer whose mail this is, or may be, cannot be used now.
    Unknown,
}

/// The route of a sender whose mail was admitted: its envelope is all that an MTA tells when it asks.
pub fn route<'a>(sender: &Sender, rules: &Rules<'a>) -> Route<'a> {
    let Some(address) = sender.address() else { return Route::Direct };
    match find_further(address, rules) {
        Some(Further::Unusable) => return Route::Unknown,
        Some(Further::Sender { customer, sender, .. }) if sender.gateway.is_some() && customer.user_gateways => {
            return Route::UserGateway(sender);
        }
        Some(Further::Sender { customer, .. }) => return customer_gateway(customer.outbound_gateway.as_deref()),
        None => {}
    }
    by_domain(address, rules)
}

fn by_domain<'a>(address: &Address, rules: &Rules<'a>) -> Route<'a> {
    match rules.directory.owner_of_domain(address.domain()).map(|claim| claim.owner) {
        Some(Owner::Customer(customer)) => customer_gateway(customer.outbound_gateway.as_deref()),
        Some(Owner::Unusable) => Route::Unknown,
        None if rules.directory.is_incomplete() => Route::Unknown,
        None => Route::Direct,
    }
}

fn customer_gateway(gateway: Option<&str>) -> Route<'_> {
    gateway.map_or(Route::Direct, Route::CustomerGateway)
}

/// Which gateway admitted mail goes out through, for `explain`. Nothing in the decision depends on it: Postfix asks for it later.
pub(in crate::policy) fn note_route(rewritten: Option<&Address>, sender: &Sender, rules: &Rules, trace: &mut Trace) {
    if !trace.is_on() {
        return;
    }
    let rewritten = rewritten.map(|address| Sender::Address(address.clone()));
    match route(rewritten.as_ref().unwrap_or(sender), rules) {
        Route::UserGateway(further) => {
            let gateway = further.gateway.as_deref().unwrap_or_default();
            let login = if further.password_file.is_some() { ", with a login" } else { "" };
            trace.note("route", "gateway", || {
                format!("mail from {} goes out through the user's gateway {gateway}{login}", further.address)
            });
        }
        Route::CustomerGateway(gateway) => {
            trace.note("route", "gateway", || format!("it goes out through the customer's outbound_gateway {gateway}"));
        }
        Route::Direct | Route::Unknown => {}
    }
}
