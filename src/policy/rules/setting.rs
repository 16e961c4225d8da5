//! Does a setting of the customer admit the transaction? (relay service, section 1)

use super::encryption::{encryption, way_out};
use super::identify::Identified;
use super::sender::{SenderRelation, matches_login};
use crate::directory::{AllowedSenders, Setting};
use crate::envelope::Sender;
use crate::policy::facts::{Facts, Rules};
use crate::policy::reply::{RangeGap, Refusal};
use crate::policy::trace::Trace;

const STEP: &str = "setting";

/// Demands in the order in which they are checked: a setting that fails a later one was nearer to admitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    Address,
    Auth,
    Tls,
    Sender,
    /// `sender_must_match_login`
    Login,
}

/// The setting that lets the transaction in.
#[derive(Debug)]
pub(in crate::policy) struct Entrance<'a> {
    pub setting: &'a Setting,
    /// What it would have said if it were not in shadow.
    pub shadow: Option<Refusal>,
}

/// The first setting that admits; else the reason of the one that failed latest (ties: file order).
pub(in crate::policy) fn find_entrance<'a>(
    facts: &Facts,
    identified: &Identified<'a>,
    sender: &SenderRelation,
    rules: &Rules,
    trace: &mut Trace,
) -> Result<Entrance<'a>, Refusal> {
    let Identified { customer, domain, .. } = *identified;
    if let Some(why) = encryption(facts, rules.relay).assumption(facts) {
        trace.note("tls", "assumed", || why);
    }
    let mut nearest: Option<(Demand, &Setting)> = None;
    let mut nearest_shadow: Option<(Demand, &Setting)> = None;
    for setting in &customer.settings {
        if !setting.enabled {
            trace.note(STEP, "off", || format!("\"{}\" is switched off", setting.name));
            continue;
        }
        let Err(demand) = check(setting, facts, identified, sender, rules) else {
            trace.note(STEP, "admit", || format!("\"{}\" admits it", setting.name));
            return Ok(Entrance { setting, shadow: None });
        };
        trace.note(STEP, "no", || format!("\"{}\": {}", setting.name, why_not(demand, setting, facts)));
        if nearest.is_none_or(|(latest, _)| demand > latest) {
            nearest = Some((demand, setting));
        }
        // A shadow setting never opens the relay to addresses that are not the customer's: neither to a client's, nor to a
        // sender's that is another customer's user's, and would go out through that user's gateway.
        let may_shadow = setting.shadow && demand > Demand::Address && !sender.of_another;
        if may_shadow && nearest_shadow.is_none_or(|(latest, _)| demand > latest) {
            nearest_shadow = Some((demand, setting));
        }
    }
    if let Some((demand, setting)) = nearest_shadow {
        trace.note(STEP, "shadow", || format!("\"{}\" is in shadow: its refusal is not enforced", setting.name));
        return Ok(Entrance { setting, shadow: Some(refusal(demand, setting, facts, identified)) });
    }
    Err(match nearest {
        Some((demand, setting)) => refusal(demand, setting, facts, identified),
        None => Refusal::NoSetting { client: facts.client, domain: domain.into() },
    })
}

fn check(
    setting: &Setting,
    facts: &Facts,
    identified: &Identified,
    sender: &SenderRelation,
    rules: &Rules,
) -> Result<(), Demand> {
    let from_own_address = facts.client.is_some_and(|client| setting.enabled_ranges.contains(client));
    if setting.demands_address() && !from_own_address {
        return Err(Demand::Address);
    }
    if setting.require_auth && !facts.has_login() {
        return Err(Demand::Auth);
    }
    // A login counts only if nobody on the way could read it.
    if (setting.require_tls || setting.require_auth) && !encryption(facts, rules.relay).is_encrypted() {
        return Err(Demand::Tls);
    }
    let allowed = match setting.allowed_senders {
        _ if *facts.sender == Sender::Empty => true,
        AllowedSenders::Any => true,
        AllowedSenders::OwnDomains => sender.own_domain || sender.user.is_some(),
        AllowedSenders::RegisteredUsers => sender.user.is_some() || sender.is_forwarded,
    };
    if !allowed {
        return Err(Demand::Sender);
    }
    let login = identified.login.as_ref().filter(|_| rules.relay.sender_must_match_login);
    let matches = matches_login(facts.sender, sender, login);
    if matches { Ok(()) } else { Err(Demand::Login) }
}

fn refusal(demand: Demand, setting: &Setting, facts: &Facts, identified: &Identified) -> Refusal {
    match demand {
        Demand::Address => Refusal::NotInRanges {
            client: facts.client,
            domain: identified.domain.into(),
            gap: RangeGap::of(identified.customer, facts.client),
        },
        Demand::Auth => Refusal::AuthRequired,
        Demand::Tls => Refusal::TlsRequired { login: facts.login.into() },
        Demand::Sender => Refusal::SenderNotAllowed {
            sender: facts.sender.clone(),
            setting: setting.name.clone(),
            allowed: setting.allowed_senders,
            login: facts.login.into(),
        },
        Demand::Login => Refusal::SenderNotOfLogin { sender: facts.sender.clone(), login: facts.login.into() },
    }
}

fn why_not(demand: Demand, setting: &Setting, facts: &Facts) -> String {
    match demand {
        Demand::Address => {
            format!("{} is in none of its enabled ranges", crate::policy::reply::words::client(facts.client))
        }
        Demand::Auth => "it requires AUTH, and the client did not log in".to_owned(),
        Demand::Tls => {
            let why = if setting.require_auth { "AUTH counts over TLS only" } else { "it requires TLS" };
            let way_out = way_out(facts.client, facts.proxied_login).map_or(String::new(), |hint| format!("; {hint}"));
            format!("{why}, and the mail came without{way_out}")
        }
        Demand::Sender => format!("it does not allow the sender {} ({})", facts.sender, setting.allowed_senders.key()),
        Demand::Login => format!("the sender {} is not the user that logged in ({})", facts.sender, facts.login),
    }
}
