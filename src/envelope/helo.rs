//! The name a client gives at HELO or EHLO.

use super::domain::canonical_domain;
use std::borrow::Cow;
use std::net::IpAddr;

/// The name in canonical form, if it can identify a customer. A generic name identifies nobody: `localhost`,
/// `localhost.localdomain`, an address literal, a single label, the relay's own name.
pub fn identifying_helo<'a>(name: &'a str, relay_hostname: &str) -> Option<Cow<'a, str>> {
    if name.len() > 255 || name.starts_with('[') {
        return None;
    }
    let name = canonical_domain(name);
    let generic = name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || name == "localhost.localdomain"
        || name.eq_ignore_ascii_case(relay_hostname);
    (!generic).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_names_identify_nobody() {
        for name in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "localhost.localdomain",
            "[127.0.0.1]",
            "[IPv6:::1]",
            "192.0.2.1",
            "192.0.2.1.",
            "::1",
            "printer",
            "relay.example.net",
            "RELAY.example.net.",
            "",
        ] {
            assert_eq!(identifying_helo(name, "relay.example.net"), None, "{name}");
        }
        assert_eq!(identifying_helo("MX.acme.example.", "relay.example.net").as_deref(), Some("mx.acme.example"));
    }
}
