//! What each MTA asks about, for `status`.

use crate::config::how_many;
use crate::directory::{Directory, Owner};
use crate::listen::Peer;
use crate::policy::{Rules, is_generic_helo};
use crate::session::{Engine, MAX_DISTINCT, MtaNumbers, Server};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Fewer sessions say nothing about where clients come from.
const FEW_SESSIONS: u64 = 20;

/// Fewer HELO names may well be those of one host.
const FEW_NAMES: usize = 5;

/// Since the start: what one service of an MTA was seen to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MtaStatus {
    /// Who connects to relaykeeper: `local` over a unix socket, else an IP address.
    pub peer: String,
    /// The address that the SMTP clients connect to; `null` where the MTA does not say it.
    pub server_address: Option<IpAddr>,
    pub server_port: Option<u16>,
    pub milter_sessions: u64,
    /// Recipients that were let through.
    pub milter_recipients: u64,
    /// Messages that the milter saw to their end.
    pub milter_ends: u64,
    /// Sessions that only the policy service was asked about.
    pub policy_sessions: u64,
    /// Recipients that were let through.
    pub policy_recipients: u64,
    /// END-OF-MESSAGE requests.
    pub policy_ends: u64,
    /// Transactions with reserved recipients whose end was not reported.
    pub given_up: u64,
    /// Requests of a process ID that has two SMTP sessions at once: two smtpd processes that cannot be told apart.
    pub shared_process_ids: u64,
    /// Different client addresses, 64 at most.
    pub client_addresses: usize,
    /// The only one, if there is one.
    pub only_client: Option<IpAddr>,
    /// Different HELO names, 64 at most.
    pub helo_names: usize,
    /// Those that are not generic: a host's own, as far as anybody can tell.
    pub own_helo_names: usize,
    /// The customers whose domains these names belong to.
    pub helo_customers: usize,
}

/// All MTAs that ask.
pub(super) fn mta_status(engine: &Engine) -> Vec<MtaStatus> {
    let snapshot = engine.snapshot();
    engine.traffic.numbers().into_iter().map(|mta| MtaStatus::of(mta, &snapshot.rules())).collect()
}

impl MtaStatus {
    fn of(mta: MtaNumbers, rules: &Rules<'_>) -> MtaStatus {
        let Server { address, port } = mta.name.server;
        let own: Vec<&str> =
            mta.helo_names.iter().map(|name| &**name).filter(|name| !is_generic_helo(name, rules)).collect();
        MtaStatus {
            peer: mta.name.peer.to_string(),
            server_address: address,
            server_port: port,
            milter_sessions: mta.milter_sessions,
            milter_recipients: mta.milter_recipients,
            milter_ends: mta.milter_ends,
            policy_sessions: mta.policy_sessions,
            policy_recipients: mta.policy_recipients,
            policy_ends: mta.policy_ends,
            given_up: mta.given_up,
            shared_process_ids: mta.interleaved,
            client_addresses: mta.clients.len(),
            only_client: <[IpAddr; 1]>::try_from(mta.clients).ok().map(|[client]| client),
            helo_names: mta.helo_names.len(),
            own_helo_names: own.len(),
            helo_customers: customers_of(&own, rules.directory),
        }
    }

    /// Whether it looks as if all clients came from one address that is none of theirs, as behind NAT or a proxy.
    pub fn has_one_address(&self) -> bool {
        self.only_client.is_some_and(is_of_a_gateway)
            && self.milter_sessions.max(self.policy_sessions) >= FEW_SESSIONS
            && self.own_helo_names >= FEW_NAMES
    }

    /// `192.0.2.25:25`, `[2001:db8::25]:25`, with `?` for what is unknown.
    pub fn server(&self) -> String {
        let address = match self.server_address {
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            None => "?".to_owned(),
        };
        self.server_port.map_or_else(|| format!("{address}:?"), |port| format!("{address}:{port}"))
    }

    /// What it asked, in words.
    pub fn numbers(&self) -> String {
        let mut parts = Vec::new();
        if self.milter_sessions > 0 {
            parts.push(format!(
                "milter {}, {}, {}",
                how_many(self.milter_sessions as usize, "session"),
                how_many(self.milter_recipients as usize, "recipient"),
                how_many(self.milter_ends as usize, "message"),
            ));
        }
        if self.policy_recipients + self.policy_ends + self.policy_sessions > 0 {
            parts.push(format!(
                "policy {}, {}",
                how_many(self.policy_recipients as usize, "recipient"),
                how_many(self.policy_ends as usize, "message"),
            ));
        }
        if self.given_up > 0 {
            parts.push(format!("{} given up", self.given_up));
        }
        let or_more = |number: usize| if number < MAX_DISTINCT { "" } else { " or more" };
        parts.push(format!(
            "{}{}, {}{}",
            how_many(self.client_addresses, "client"),
            or_more(self.client_addresses),
            how_many(self.helo_names, "HELO name"),
            or_more(self.helo_names),
        ));
        parts.join("; ")
    }

    /// `192.0.2.25:25 (over a unix socket)`
    pub fn name(&self) -> String {
        let mut name = self.server();
        let _ = match self.peer == Peer::Local.to_string() {
            true => write!(name, " (over a unix socket)"),
            false => write!(name, " (asked from {})", self.peer),
        };
        name
    }
}

fn customers_of(helo_names: &[&str], directory: &Directory) -> usize {
    let names: Vec<_> = helo_names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let owners = names.iter().filter_map(|name| match directory.owner_of_domain(name)?.owner {
        Owner::Customer(customer) => Some(&*customer.name),
        Owner::Unusable => None,
    });
    owners.collect::<BTreeSet<&str>>().len()
}

/// An address that clients on the Internet do not have.
fn is_of_a_gateway(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(client) => client.is_loopback() || client.is_private() || client.is_link_local(),
        IpAddr::V6(client) => client.is_loopback() || client.is_unique_local() || client.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(client: &str, sessions: u64, names: usize) -> MtaStatus {
        let only_client = client.parse().ok();
        MtaStatus { milter_sessions: sessions, only_client, own_helo_names: names, ..MtaStatus::default() }
    }

    #[test]
    fn one_private_address_with_many_names_is_a_gateway() {
        for gateway in ["172.17.0.1", "127.0.0.1", "10.0.2.2", "fd00::1", "::1"] {
            assert!(behind(gateway, 20, 5).has_one_address(), "{gateway}");
        }
        for one_host in [behind("172.17.0.1", 19, 5), behind("172.17.0.1", 1_000, 4), behind("192.0.2.7", 1_000, 50)] {
            assert!(!one_host.has_one_address(), "{one_host:?}");
        }
        assert!(!behind("several", 1_000, 50).has_one_address());
    }

    #[test]
    fn a_service_is_named_and_its_numbers_are_words() {
        let mta = MtaStatus {
            peer: "local".to_owned(),
            server_address: "2001:db8::25".parse().ok(),
            server_port: Some(587),
            milter_sessions: 1,
            milter_recipients: 3,
            milter_ends: 2,
            given_up: 1,
            client_addresses: 64,
            helo_names: 2,
            ..MtaStatus::default()
        };
        assert_eq!(mta.name(), "[2001:db8::25]:587 (over a unix socket)");
        let expected = "milter 1 session, 3 recipients, 2 messages; 1 given up; 64 clients or more, 2 HELO names";
        assert_eq!(mta.numbers(), expected);
    }
}
