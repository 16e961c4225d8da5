//! The limits on connections (relay service, section 6).

use crate::config::ConnectionLimits;
use crate::directory::Limit;
use crate::envelope::identifying_helo;
use crate::policy::facts::Rules;
use crate::policy::reply::Refusal;
use crate::policy::verdict::{Outcome, Verdict};
use ipnet::IpNet;
use std::net::IpAddr;

/// What is known of an SMTP session when it begins. The counts include this one.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    pub client: IpAddr,
    /// What counts as one client.
    pub net: IpNet,
    /// The name given at HELO or EHLO; `None` as long as none was.
    pub helo: Option<&'a str>,
    /// New connections in the last minute.
    pub last_minute: u64,
    /// Connections that are open; `None` where only their beginning is seen.
    pub open: Option<u64>,
}

/// A limit on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLimit {
    PerMinute,
    Simultaneous,
    GenericHeloPerMinute,
}

/// A limit on connections is reached. Always of class 4: a connection is no mail, and what comes later is welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRefusal {
    pub limit: ConnectionLimit,
    pub max: u64,
    pub net: IpNet,
    /// As the client gave it; empty if it gave none.
    pub helo: Box<str>,
}

impl ConnectionLimit {
    /// As `reason=` in logs.
    pub fn key(self) -> &'static str {
        match self {
            ConnectionLimit::PerMinute => "connections-per-minute",
            ConnectionLimit::Simultaneous => "simultaneous-connections",
            ConnectionLimit::GenericHeloPerMinute => "generic-helo",
        }
    }
}

/// Whether connections from the address are not limited. Clients in `exempt_clients` are not even where they log in
/// later on (webmail, for one): who will is not known yet.
pub fn is_exempt_connection(client: IpAddr, limits: &ConnectionLimits, rules: &Rules) -> bool {
    rules.relay.exempt_clients.iter().chain(&limits.exempt).any(|net| net.contains(&client))
}

/// Whether the name is one that many give, so that the tighter limit holds.
pub fn is_generic_helo(helo: &str, rules: &Rules) -> bool {
    identifying_helo(helo, &rules.relay.hostname).is_none()
}

/// Decides on a new connection by how many there are.
pub fn judge_connection(facts: &ConnectionFacts, limits: &ConnectionLimits) -> Verdict {
    let open = facts.open.unwrap_or(0);
    let simultaneous = over(ConnectionLimit::Simultaneous, limits.simultaneous.in_force(1), open, facts);
    let per_minute = over(ConnectionLimit::PerMinute, limits.per_minute.in_force(1), facts.last_minute, facts);
    verdict([simultaneous, per_minute])
}

/// Decides on a connection with a [generic name](is_generic_helo), `last_minute` being those in the last minute, this one
/// included. Addresses in a customer's enabled ranges are exempt: printers and scanners know no better.
pub fn judge_generic_helo(
    facts: &ConnectionFacts,
    last_minute: u64,
    limits: &ConnectionLimits,
    rules: &Rules,
) -> Verdict {
    let limit = limits.generic_helo_per_minute.in_force(1);
    let refusal = over(ConnectionLimit::GenericHeloPerMinute, limit, last_minute, facts)
        .filter(|_| rules.directory.holders_of_client(facts.client, 1).is_empty());
    verdict([refusal, None])
}

/// The refusal, and whether it is in shadow.
fn over(name: ConnectionLimit, limit: Limit, count: u64, facts: &ConnectionFacts) -> Option<(Refusal, bool)> {
    let max = limit.max.filter(|&max| count > max)?;
    let helo = facts.helo.unwrap_or_default().into();
    Some((Refusal::Connection(ConnectionRefusal { limit: name, max, net: facts.net, helo }), limit.shadow))
}

fn verdict(refusals: [Option<(Refusal, bool)>; 2]) -> Verdict {
    let (shadow, enforced): (Vec<_>, Vec<_>) = refusals.into_iter().flatten().partition(|(_, is_shadow)| *is_shadow);
    let outcome = match enforced.into_iter().next() {
        Some((refusal, _)) => Outcome::Refuse(Box::new(refusal)),
        None => Outcome::Accept,
    };
    Verdict { shadow: shadow.into_iter().map(|(refusal, _)| refusal).collect(), ..Verdict::of(outcome) }
}
