//! Does the mail count as encrypted? Where TLS ends before the MTA, or nobody can listen in between, the operator says so.

use crate::config::Relay;
use crate::envelope::canonical_ip;
use crate::policy::facts::Facts;
use std::net::IpAddr;

/// Why mail counts as encrypted, or that it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Tls,
    /// `relay.tls_assumed_from`
    AssumedFrom,
    /// `relay.trust_proxied_tls`
    Proxied,
    None,
}

pub(super) fn encryption(facts: &Facts, relay: &Relay) -> Encryption {
    let is_listed = |client: IpAddr| relay.tls_assumed_from.iter().any(|net| net.contains(&canonical_ip(client)));
    match facts {
        _ if facts.has_tls() => Encryption::Tls,
        _ if relay.trust_proxied_tls && facts.proxied_login => Encryption::Proxied,
        // After XCLIENT the address is the user's, and the connection is not.
        _ if !facts.proxied_login && facts.client.is_some_and(is_listed) => Encryption::AssumedFrom,
        _ => Encryption::None,
    }
}

impl Encryption {
    pub fn is_encrypted(self) -> bool {
        self != Encryption::None
    }

    /// For the trace: why it counts as encrypted without TLS.
    pub fn assumption(self, facts: &Facts) -> Option<String> {
        match self {
            Encryption::AssumedFrom => {
                let client = crate::policy::reply::words::client(facts.client);
                Some(format!("connections from {client} count as encrypted (relay.tls_assumed_from)"))
            }
            Encryption::Proxied => {
                Some("a login that came by XCLIENT counts as encrypted (relay.trust_proxied_tls)".to_owned())
            }
            Encryption::Tls | Encryption::None => None,
        }
    }
}

/// For the operator, of mail that was refused because it came without TLS: the key that changes it, where one fits.
pub fn way_out(client: Option<IpAddr>, proxied_login: bool) -> Option<&'static str> {
    if proxied_login {
        return Some("relay.trust_proxied_tls = true trusts the proxy that handed the login over by XCLIENT");
    }
    let is_near = client.is_some_and(|client| match client {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    });
    is_near.then_some("relay.tls_assumed_from lists addresses whose connections count as encrypted")
}
