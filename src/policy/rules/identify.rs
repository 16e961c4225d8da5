//! Whose mail is it? (relay service, section 2)

use crate::directory::{Customer, Owner, User};
use crate::envelope::{canonical_login, identifying_helo};
use crate::policy::facts::{Facts, Rules};
use crate::policy::reply::{LookedUp, NameSource, RangeGap, Refusal};
use crate::policy::trace::Trace;
use std::sync::Arc;

/// What identified the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentifiedBy {
    Login,
    Sender,
    Helo,
    /// `identify_by_address`
    Address,
}

impl IdentifiedBy {
    /// As in logs and JSON.
    pub const fn key(self) -> &'static str {
        match self {
            IdentifiedBy::Login => "login",
            IdentifiedBy::Sender => "sender",
            IdentifiedBy::Helo => "helo",
            IdentifiedBy::Address => "address",
        }
    }
}

/// The customer that decides, and how it was found.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Identified<'a> {
    pub customer: &'a Arc<Customer>,
    pub by: IdentifiedBy,
    /// The registered domain that matched; where a bare login or the address matched, the customer's own choice.
    pub domain: &'a str,
    /// Who logged in; a login identifies alone, so it is there whenever there is one.
    pub login: Option<Login<'a>>,
}

/// The login that identified the customer.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Login<'a> {
    /// In canonical form.
    pub name: String,
    /// The customer's user that it belongs to: by a `logins` entry, else by address or alias.
    pub user: Option<&'a User>,
}

/// Nobody decides for this mail.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Unidentified {
    pub refusal: Refusal,
    /// The customer that is registered for it all the same, but not from this address.
    pub customer: Option<Arc<str>>,
}

impl From<Refusal> for Unidentified {
    fn from(refusal: Refusal) -> Unidentified {
        Unidentified { refusal, customer: None }
    }
}

const STEP: &str = "identify";

pub(in crate::policy) fn identify<'a>(
    facts: &Facts<'a>,
    rules: &Rules<'a>,
    trace: &mut Trace,
) -> Result<Identified<'a>, Unidentified> {
    if facts.has_login() { by_login(facts, rules, trace) } else { by_candidates(facts, rules, trace) }
}

/// With a login, the login decides alone: an exact `logins` entry first, else its domain.
fn by_login<'a>(facts: &Facts<'a>, rules: &Rules<'a>, trace: &mut Trace) -> Result<Identified<'a>, Unidentified> {
    let login = canonical_login(facts.login);
    if let Some((customer, user)) = rules.directory.owner_of_login(&login) {
        let user = customer.users.get(user);
        let address = user.map_or("", |user| &user.address);
        trace.note(STEP, "login", || format!("the login {login} belongs to {address} of customer {}", customer.name));
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        let domain =
            rules.directory.owner_of_domain(domain).map_or_else(|| first_domain(customer), |claim| claim.domain);
        let login = Some(Login { name: login, user });
        return Ok(Identified { customer, by: IdentifiedBy::Login, domain, login });
    }
    if rules.directory.is_unusable_login(&login) {
        trace.note(STEP, "refuse", || format!("the file of the customer that has the login {login} has errors"));
        return Err(Refusal::CustomerUnusable { whose: login.into() }.into());
    }
    let domain = login.rsplit_once('@').map_or("", |(_, domain)| domain);
    let name = if domain.is_empty() { login.as_str() } else { domain };
    let looked_up = LookedUp { source: NameSource::Login, name: name.into() };
    let claim = if domain.is_empty() { None } else { rules.directory.owner_of_domain(domain) };
    match claim.map(|claim| (claim.owner, claim.domain)) {
        Some((Owner::Customer(customer), domain)) => {
            trace.note(STEP, "login", || format!("the login {login} belongs to customer {} ({domain})", customer.name));
            let user = customer.users.find(&login);
            Ok(Identified { customer, by: IdentifiedBy::Login, domain, login: Some(Login { name: login, user }) })
        }
        Some((Owner::Unusable, domain)) => Err(unusable(domain, trace).into()),
        None => Err(nobody(facts, rules, vec![looked_up], trace).into()),
    }
}

/// Without a login, a candidate wins when one of its settings has an enabled range that holds the client's address.
fn by_candidates<'a>(facts: &Facts<'a>, rules: &Rules<'a>, trace: &mut Trace) -> Result<Identified<'a>, Unidentified> {
    let sender_domain = facts.sender.domain();
    let helo = identifying_helo(facts.helo, &rules.relay.hostname);
    let candidates = [
        (NameSource::Sender, IdentifiedBy::Sender, (!sender_domain.is_empty()).then_some(sender_domain)),
        (NameSource::Helo, IdentifiedBy::Helo, helo.as_deref()),
    ];
    let mut looked_up = Vec::new();
    let mut first_registered: Option<(&Arc<Customer>, &str)> = None;
    for (source, by, name) in candidates {
        let Some(name) = name else {
            trace.note(STEP, "skip", || nothing_from(source, facts));
            continue;
        };
        looked_up.push(LookedUp { source, name: name.into() });
        let Some(claim) = rules.directory.owner_of_domain(name) else {
            trace.note(STEP, "no", || format!("{name} ({source}) is not registered"));
            continue;
        };
        let domain = claim.domain;
        let Owner::Customer(customer) = claim.owner else { return Err(unusable(domain, trace).into()) };
        if facts.client.is_some_and(|client| customer.holds_client(client)) {
            trace.note(STEP, by.key(), || {
                format!(
                    "{name} ({source}) belongs to customer {} ({domain}), and {} is in one of its ranges",
                    customer.name,
                    client(facts)
                )
            });
            return Ok(Identified { customer, by, domain, login: None });
        }
        trace.note(STEP, "no", || {
            format!(
                "{name} ({source}) belongs to customer {} ({domain}), but {} is in none of its enabled ranges",
                customer.name,
                client(facts)
            )
        });
        first_registered.get_or_insert((customer, domain));
    }
    if let Some(identified) = by_address(facts, rules, trace) {
        return Ok(identified);
    }
    let Some((customer, domain)) = first_registered else {
        return Err(nobody(facts, rules, looked_up, trace).into());
    };
    let refusal = if could_log_in(customer) {
        trace.note(STEP, "refuse", || format!("customer {} admits any IP address with a login", customer.name));
        Refusal::AuthRequired
    } else {
        trace.note(STEP, "refuse", || format!("customer {} admits its own IP addresses only", customer.name));
        Refusal::NotInRanges { client: facts.client, domain: domain.into(), gap: RangeGap::of(customer, facts.client) }
    };
    Err(Unidentified { refusal, customer: Some(customer.name.clone()) })
}

fn by_address<'a>(facts: &Facts<'a>, rules: &Rules<'a>, trace: &mut Trace) -> Option<Identified<'a>> {
    if !rules.relay.identify_by_address {
        return None;
    }
    let customer = match rules.directory.holders_of_client(facts.client?, 2)[..] {
        [only] => only,
        [] => return None,
        _ => {
            trace.note(STEP, "no", || format!("{} is in the ranges of several customers", client(facts)));
            return None;
        }
    };
    trace.note(STEP, "address", || format!("{} is in the ranges of customer {} alone", client(facts), customer.name));
    Some(Identified { customer, by: IdentifiedBy::Address, domain: first_domain(customer), login: None })
}

/// Whether a client outside all ranges would get in with a login.
fn could_log_in(customer: &Customer) -> bool {
    customer.settings.iter().any(|setting| setting.enabled && setting.require_auth && setting.ranges.is_empty())
}

fn first_domain(customer: &Customer) -> &str {
    customer.domains.first().map_or("", |domain| domain.as_str())
}

fn unusable(domain: &str, trace: &mut Trace) -> Refusal {
    trace.note(STEP, "refuse", || {
        format!("the file of the customer that owns {domain} has errors, and there is no good copy")
    });
    Refusal::CustomerUnusable { whose: domain.into() }
}

fn nobody(facts: &Facts, rules: &Rules, looked_up: Vec<LookedUp>, trace: &mut Trace) -> Refusal {
    if rules.directory.is_incomplete() {
        trace.note(STEP, "refuse", || "no such customer, but the file of one cannot be read".to_owned());
        return Refusal::DirectoryIncomplete;
    }
    trace.note(STEP, "refuse", || "no customer was found by AUTH, MAIL FROM or HELO".to_owned());
    Refusal::UnknownCustomer { client: facts.client, looked_up, helo: facts.helo.into() }
}

fn nothing_from(source: NameSource, facts: &Facts) -> String {
    match source {
        NameSource::Helo if facts.helo.is_empty() => "no HELO name was given".to_owned(),
        NameSource::Helo => {
            format!("the HELO name {} is generic and identifies nobody", crate::policy::reply::words::shown(facts.helo))
        }
        _ => "the sender has no domain".to_owned(),
    }
}

fn client(facts: &Facts) -> String {
    crate::policy::reply::words::client(facts.client)
}
