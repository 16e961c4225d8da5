//! The rules of a transaction that do not depend on its recipients: exemption, identification, setting, rewriting.

use crate::directory::{AllowedSenders, Customer, LimitName, Parties, User};
use crate::envelope::{Address, Sender};
use crate::policy::facts::{Facts, Rules};
use crate::policy::reply::Refusal;
use crate::policy::reply::words;
use crate::policy::rules::identify::{IdentifiedBy, Login, Unidentified, identify};
use crate::policy::rules::sender;
use crate::policy::rules::setting::find_entrance;
use crate::policy::rules::{Route, route};
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome, Verdict};
use std::net::IpAddr;
use std::sync::Arc;

/// What the rules say of a transaction, before its recipients are known.
#[derive(Clone, Debug)]
pub enum Admission {
    Exempt(Exemption),
    Admitted(Admitted),
    Refused {
        refusal: Refusal,
        customer: Option<Arc<str>>,
        identified_by: Option<IdentifiedBy>,
        user: Option<Arc<str>>,
    },
}

#[derive(Clone, Debug)]
pub struct Admitted {
    pub customer: Arc<Customer>,
    pub identified_by: IdentifiedBy,
    pub setting: Arc<str>,
    pub parties: Parties,
    /// The registered user that logged in.
    pub login_user: Option<Arc<str>>,
    pub rewrite_sender_to: Option<Address>,
    /// Without being rewritten it must not leave: the sender is a further address of another customer's user.
    pub must_be_rewritten: bool,
    /// A copy of the message goes there.
    pub archive_to: Option<Address>,
    pub shadow: Option<Refusal>,
}

/// Decides by the rules of the relay service, sections 1 to 3.
pub fn admit(facts: &Facts, rules: &Rules, trace: &mut Trace) -> Admission {
    if is_exempt_client(facts.client, facts.login, rules) {
        trace.note("exempt", "pass", || {
            format!("{} is in exempt_clients and did not log in", words::client(facts.client))
        });
        return Admission::Exempt(Exemption::Client);
    }
    let identified = match identify(facts, rules, trace) {
        Ok(identified) => identified,
        Err(Unidentified { refusal, customer }) => {
            return Admission::Refused { refusal, customer, identified_by: None, user: None };
        }
    };
    let customer = identified.customer;
    let sender = sender::relation_of(facts.sender, customer, rules);
    let user = sender.user.map(|user| user.address.clone());
    let entrance = match find_entrance(facts, &identified, &sender, rules, trace) {
        Ok(entrance) => entrance,
        Err(refusal) => {
            let (customer, by) = (customer.name.clone(), identified.by);
            return Admission::Refused { refusal, customer: Some(customer), identified_by: Some(by), user };
        }
    };
    let is_foreign = facts.sender.address().is_some() && !sender.own_domain && sender.user.is_none();
    // Any other setting lets a foreign one in only because it is in shadow, and shadow changes nothing.
    let rewrites = is_foreign && entrance.setting.allowed_senders == AllowedSenders::Any;
    let rewrite_sender_to =
        if rewrites { Address::parse(&format!("postmaster@{}", identified.domain)).ok() } else { None };
    match &rewrite_sender_to {
        Some(new) => trace.note("rewrite", "change", || {
            format!("{} is outside the customer's domains: it becomes {new}", facts.sender)
        }),
        None => trace.note("rewrite", "keep", || format!("the sender {} stays as it is", facts.sender)),
    }
    match &user {
        Some(user) => trace.note("user", "found", || format!("the sender is the registered user {user}")),
        None => {
            trace.note("user", "none", || "the sender is no registered user: limits per user do not apply".to_owned())
        }
    }
    let archive_to = archive_address(facts.sender, sender.user, customer);
    if let Some(address) = &archive_to {
        trace.note("archive", "copy", || format!("a copy of the message goes to {address}, and counts for nobody"));
    }
    note_route(rewrite_sender_to.as_ref(), facts.sender, rules, trace);
    Admission::Admitted(Admitted {
        customer: customer.clone(),
        identified_by: identified.by,
        setting: entrance.setting.name.clone(),
        login_user: identified.login.as_ref().and_then(|login| login.user).map(|user| user.address.clone()),
        parties: Parties { customer: customer.name.clone(), user, login: counted_login(identified.login, customer) },
        must_be_rewritten: rewrite_sender_to.is_some() && sender.of_another,
        rewrite_sender_to,
        archive_to,
        shadow: entrance.shadow,
    })
}

/// Which gateway the mail goes out through. Nothing here depends on it: Postfix asks for it later.
fn note_route(rewritten: Option<&Address>, sender: &Sender, rules: &Rules, trace: &mut Trace) {
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
            trace.note("route", "gateway", || format!("it goes out through the customer's outbound_gateway {gateway}"))
        }
        Route::Direct | Route::Unknown => {}
    }
}

/// Where a copy goes (relay service, section 9). It is filed under the user's own address, whichever of them was used; under the
/// sender, if that is no user; and mail without a sender, or from one without a domain, under the customer's postmaster.
fn archive_address(sender: &Sender, user: Option<&User>, customer: &Customer) -> Option<Address> {
    let template = customer.archive_to.as_ref()?;
    let owner = match (user, sender.address()) {
        (Some(user), _) => Address::parse(&user.address).ok()?,
        (None, Some(address)) if !address.domain().is_empty() => address.clone(),
        _ => Address::parse(&format!("postmaster@{}", customer.domains.first()?)).ok()?,
    };
    template.expand(&owner)
}

/// Whether the client's mail is not ours to judge, whatever it says (`exempt_clients`).
pub fn is_exempt_client(client: Option<IpAddr>, login: &str, rules: &Rules) -> bool {
    let Some(client) = client else { return false };
    login.is_empty() && rules.relay.exempt_clients.iter().any(|net| net.contains(&client))
}

/// Logins are counted only where a limit asks for it: most are the same as their user.
fn counted_login(login: Option<Login>, customer: &Customer) -> Option<Arc<str>> {
    let limited = [LimitName::LoginMessages, LimitName::LoginUniques]
        .iter()
        .any(|&name| customer.limits.counted(name).max.is_some());
    login.filter(|_| limited).map(|login| login.name.into())
}

impl Admission {
    /// The verdict with `outcome`, saying whose mail it is as far as that is known.
    pub fn verdict(&self, outcome: Outcome) -> Verdict {
        match self {
            Admission::Exempt(_) => Verdict::of(outcome),
            Admission::Refused { customer, identified_by, user, .. } => Verdict {
                customer: customer.clone(),
                identified_by: *identified_by,
                user: user.clone(),
                ..Verdict::of(outcome)
            },
            Admission::Admitted(admitted) => Verdict {
                customer: Some(admitted.parties.customer.clone()),
                identified_by: Some(admitted.identified_by),
                setting: Some(admitted.setting.clone()),
                user: admitted.parties.user.clone(),
                rewrite_sender_to: admitted.rewrite_sender_to.clone(),
                archive_to: admitted.archive_to.clone(),
                shadow: admitted.shadow.iter().cloned().collect(),
                outcome,
            },
        }
    }
}
