//! Who may relay through Sendmail before relaykeeper is asked, and whose mail is delivered here.

use super::{Sendmail, say};
use crate::doctor::{Finding, Severity};
use crate::envelope::canonical_domain;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// m4 files that let strangers relay, in part.
const LOOSE: [(&str, &str); 5] = [
    ("relay_mail_from", "whoever forges a sender may relay"),
    ("relay_local_from", "whoever forges a sender of an own domain may relay"),
    ("relay_entire_domain", "every host of the own domain may relay, whatever customers' ranges say"),
    ("relay_based_on_MX", "whoever points an MX record here may relay through this host"),
    ("loose_relay_check", "recipients like user%other@here are relayed"),
];

/// Lines that are named of a map that differs.
const MAX_NAMED: usize = 5;

pub(super) fn check(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    open_relay(sendmail, findings);
    access(sendmail, findings);
    mechanisms(sendmail, findings);
    own_domains(sendmail, findings);
}

fn open_relay(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    let cf = &sendmail.cf;
    let promiscuous = cf.feature("promiscuous_relay");
    if promiscuous.is_some() || (cf.has_rules && !cf.asks_relay_ok) {
        let (line, found) = match promiscuous {
            Some(line) => (line, "FEATURE(`promiscuous_relay')"),
            None => (0, "the rules of check_rcpt do not ask Relay_ok"),
        };
        say(
            findings,
            "sm-promiscuous",
            Severity::Error,
            sendmail.at(line, ""),
            found.to_owned(),
            "only the milter stands between strangers and the world: without it this is an open relay",
            Some("sendmail.mc without FEATURE(`promiscuous_relay')".to_owned()),
        );
    }
    for (feature, why) in LOOSE {
        if let Some(line) = cf.feature(feature) {
            let found = format!("FEATURE(`{feature}')");
            let write = Some("FEATURE(`access_db') and relaykeeper export sendmail-access in its place".to_owned());
            say(findings, "sm-relay-loose", Severity::Warning, sendmail.at(line, ""), found, why, write);
        }
    }
    let networks: Vec<_> = sendmail.class_r().into_iter().filter(|word| network(word).is_some()).collect();
    if !networks.is_empty() {
        let line = cf.class("R").map_or(0, |class| class.line);
        let found = format!("class R holds {}", some_of(&networks));
        let why = "these networks may relay whatever customers' ranges say, and only the milter refuses";
        let write = Some("relaykeeper export sendmail-access in the access map, and class R without them".to_owned());
        say(findings, "sm-relay-loose", Severity::Warning, sendmail.at(line, ""), found, why, write);
    }
}

/// The access map lets customers' ranges relay, and nobody else.
fn access(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    const COMMANDS: &str = "relaykeeper export sendmail-access > /etc/mail/access.relaykeeper && cat /etc/mail/access.local \
                            /etc/mail/access.relaykeeper > /etc/mail/access && makemap hash /etc/mail/access < /etc/mail/access";
    let networks: Vec<IpNet> = sendmail.class_r().iter().filter_map(|word| network(word)).collect();
    let is_in_r = |key: &String| key_network(key).is_some_and(|net| networks.iter().any(|wide| wide.contains(&net)));
    let uncovered: Vec<&String> = sendmail.exported.iter().filter(|key| !is_in_r(key)).collect();
    let access = &sendmail.access;
    if access.is_missing {
        if uncovered.is_empty() {
            return;
        }
        let found = match &access.path {
            Some(path) => format!("there is no {}", path.display()),
            None => "no access map (Kaccess), and class R does not hold customers' ranges".to_owned(),
        };
        let why = "customers' clients get 550 Relaying denied before relaykeeper is asked";
        let write = Some(format!("FEATURE(`access_db', `hash -T<TMPF> /etc/mail/access')dnl, and {COMMANDS}"));
        let place = sendmail.at(access.line, "");
        return say(findings, "sm-access-missing", Severity::Error, place, found, why, write);
    }
    let place = access.path.as_ref().map_or_else(|| sendmail.at(access.line, ""), |path| path.display().to_string());
    let Some(entries) = &access.entries else {
        if access.is_old {
            let why =
                "ranges that were added since are refused by Sendmail, and those that were removed only by the milter";
            let found = "the map is older than the customers' files".to_owned();
            say(findings, "sm-access-stale", Severity::Warning, place, found, why, Some(COMMANDS.to_owned()));
        }
        return;
    };
    let relayed: BTreeSet<String> = entries
        .iter()
        .filter(|(_, value)| value.eq_ignore_ascii_case("RELAY"))
        .map(|(key, _)| key.to_lowercase())
        .collect();
    let absent: Vec<_> =
        uncovered.iter().filter(|key| !relayed.contains(&key.to_lowercase())).map(|key| (*key).clone()).collect();
    if !absent.is_empty() {
        let found = format!("without {}", some_of(&absent));
        let why = "these customers' clients get 550 Relaying denied before relaykeeper is asked";
        say(findings, "sm-access-stale", Severity::Warning, place.clone(), found, why, Some(COMMANDS.to_owned()));
    }
    let wanted: BTreeSet<String> = sendmail.exported.iter().map(|key| key.to_lowercase()).collect();
    let is_exempt = |key: &String| key_network(key).is_some_and(|net| sendmail.relaykeeper.is_exempt(&net));
    let surplus: Vec<_> = relayed
        .iter()
        .filter(|key| {
            key.starts_with("connect:") && !wanted.contains(*key) && key_network(key).is_some() && !is_exempt(key)
        })
        .cloned()
        .collect();
    if !surplus.is_empty() {
        let found = format!("{}: of no customer's range", some_of(&surplus));
        let why = "Sendmail lets these relay, and only the milter refuses";
        say(findings, "sm-access-stale", Severity::Warning, place.clone(), found, why, Some(COMMANDS.to_owned()));
    }
    if access.is_older_than_text {
        let found = "the map is older than its text".to_owned();
        let why = "what was written there since is not in force";
        let write = Some("makemap hash /etc/mail/access < /etc/mail/access".to_owned());
        say(findings, "sm-access-stale", Severity::Warning, place, found, why, write);
    }
}

/// Who logs in may relay.
fn mechanisms(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    if !sendmail.relaykeeper.needs_auth {
        return;
    }
    let Some(option) = sendmail.cf.option("AuthMechanisms") else { return };
    let trusted = sendmail.cf.class("TrustAuthMech").map(|class| class.words.clone()).unwrap_or_default();
    let is_trusted = |name: &&str| trusted.iter().any(|word| word.eq_ignore_ascii_case(name));
    let untrusted: Vec<&str> = option.value.split_whitespace().filter(|name| !is_trusted(name)).collect();
    if !untrusted.is_empty() {
        let names = untrusted.join(" ");
        let found = format!("AuthMechanisms has {names}, class TrustAuthMech has not");
        let why = "who logs in by these may not relay all the same: 550 Relaying denied";
        let write = Some(format!("TRUST_AUTH_MECH(`{names}')dnl"));
        say(findings, "sm-trust-auth-mech", Severity::Warning, sendmail.at(option.line, ""), found, why, write);
    }
}

/// Mail to own domains must not be judged.
fn own_domains(sendmail: &Sendmail<'_>, findings: &mut Vec<Finding>) {
    let cf = &sendmail.cf;
    let host = sendmail.host_name.as_deref().unwrap_or_default();
    let mut own: BTreeSet<String> = BTreeSet::new();
    let mut inbound: Vec<(String, String, usize)> = Vec::new();
    let line_of = |class: &str| cf.class(class).map_or(0, |class| class.line);
    let written: BTreeSet<String> = sendmail.class_words("w").into_iter().map(|word| word.to_lowercase()).collect();
    let seen = sendmail.class_w.iter().flatten().map(|word| word.to_lowercase());
    for word in written.iter().cloned().chain(seen) {
        let Some(domain) = mail_domain(&word) else { continue };
        let is_host = domain == host || domain.starts_with("localhost");
        match is_host || !written.contains(&word) {
            true => _ = own.insert(domain),
            false => inbound.push((domain, "class w".to_owned(), line_of("w"))),
        }
    }
    for word in sendmail.class_r() {
        if let Some(domain) = mail_domain(&word.to_lowercase()).filter(|_| network(&word).is_none()) {
            inbound.push((domain, "class R".to_owned(), line_of("R")));
        }
    }
    for (key, _) in sendmail.access.entries.iter().flatten().filter(|(_, value)| value.eq_ignore_ascii_case("RELAY")) {
        if let Some(domain) = key.to_lowercase().strip_prefix("to:").and_then(mail_domain) {
            inbound.push((domain, format!("{key} RELAY in the access map"), sendmail.access.line));
        }
    }
    inbound.sort();
    inbound.dedup_by(|one, other| one.0 == other.0);
    for (domain, source, line) in
        inbound.into_iter().filter(|(domain, ..)| !sendmail.relaykeeper.exempts_domain(domain))
    {
        let found = format!("{domain} ({source}) is not in exempt_recipient_domains");
        let why = "mail from outside to this domain is refused: 550 Mail relay denied";
        let write = Some(format!("relaykeeper.toml, [relay]: exempt_recipient_domains = [… , \"{domain}\"]"));
        say(findings, "inbound-not-exempt", Severity::Error, sendmail.at(line, ""), found, why, write);
    }
    let own: Vec<_> =
        own.into_iter().filter(|domain| domain.contains('.') && !sendmail.relaykeeper.exempts_domain(domain)).collect();
    if !own.is_empty() {
        let found = format!("{} not in exempt_recipient_domains", some_of(&own));
        let why = "mail from outside to this host's own addresses, such as postmaster, is refused";
        let write =
            Some(format!("relaykeeper.toml, [relay]: exempt_recipient_domains = [… , \"{}\"]", own.join("\", \"")));
        say(findings, "own-host-not-exempt", Severity::Note, sendmail.at(line_of("w"), ""), found, why, write);
    }
}

/// A domain that mail can have; not `[192.0.2.1]`.
fn mail_domain(word: &str) -> Option<String> {
    let is_name =
        !word.starts_with('[') && !word.contains(['@', ':', '/', '$']) && word.parse::<std::net::IpAddr>().is_err();
    let domain = canonical_domain(word).into_owned();
    (is_name && !domain.is_empty()).then_some(domain)
}

/// `192.0.2`, `192.0.2.7`, `IPv6:2001:db8`, `10.0.0.0/8`: what Sendmail takes for a network.
fn network(word: &str) -> Option<IpNet> {
    let word = word.trim();
    if let Ok(net) = word.parse::<IpNet>() {
        return Some(net);
    }
    if word.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("IPv6:")) {
        let parts: Vec<&str> = word[5..].split(':').filter(|part| !part.is_empty()).collect();
        if word[5..].contains("::") || parts.len() > 8 || parts.is_empty() {
            return word[5..]
                .parse::<std::net::Ipv6Addr>()
                .ok()
                .map(|address| IpNet::from(std::net::IpAddr::V6(address)));
        }
        let mut segments = [0_u16; 8];
        for (segment, part) in segments.iter_mut().zip(&parts) {
            *segment = u16::from_str_radix(part, 16).ok()?;
        }
        return IpNet::new(std::net::Ipv6Addr::from(segments).into(), parts.len() as u8 * 16).ok();
    }
    let parts: Vec<&str> = word.trim_end_matches('.').split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let mut octets = [0_u8; 4];
    for (octet, part) in octets.iter_mut().zip(&parts) {
        *octet = part.parse().ok()?;
    }
    IpNet::new(std::net::Ipv4Addr::from(octets).into(), parts.len() as u8 * 8).ok()
}

/// The network of a line of the access map: `Connect:192.0.2`.
fn key_network(key: &str) -> Option<IpNet> {
    let rest = key.get(..8).filter(|tag| tag.eq_ignore_ascii_case("connect:")).map(|_| &key[8..])?;
    network(rest)
}

fn some_of(items: &[String]) -> String {
    let mut text = items.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", items.len() - MAX_NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_as_sendmail_writes_them() {
        for (word, net) in [
            ("192.0.2", "192.0.2.0/24"),
            ("192.0.2.", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("10", "10.0.0.0/8"),
            ("IPv6:2001:db8", "2001:db8::/32"),
            ("ipv6:2001:db8:0:0:0:0:0:7", "2001:db8::7/128"),
            ("IPv6:2001:db8::7", "2001:db8::7/128"),
        ] {
            assert_eq!(network(word), net.parse().ok(), "{word}");
        }
        for name in ["acme.example", "IPv6:", "IPv6:x", "1.2.3.4.5", "", "300.1"] {
            assert_eq!(network(name), None, "{name}");
        }
        assert_eq!(key_network("Connect:192.0.2"), "192.0.2.0/24".parse().ok());
        assert_eq!((key_network("To:192.0.2"), key_network("c")), (None, None));
    }
}
