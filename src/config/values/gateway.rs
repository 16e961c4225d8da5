//! Gateways: the server that further mail of a customer, or of a user's further address, goes out through.

use super::is_host_name;
use crate::config::reading::{Complaint, quoted};
use crate::envelope::{canonical_domain, canonical_ip};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A next hop in Postfix's form (transport(5)): `[HOST]:PORT`, `HOST:PORT` (by MX), either without port. Loopback and
/// private addresses are refused unless they lie in `allowed` (`relay.private_gateways`): they would let a customer's
/// file reach into the operator's own network, or make the relay deliver to itself for ever.
pub(in crate::config) fn gateway(text: &str, allowed: &[IpNet]) -> Result<String, Complaint> {
    let wrong = |why: &str| {
        Complaint::new(format!("{} is not a valid gateway", quoted(text)), why)
            .help("write \"[HOST]:PORT\", such as \"[mx.acme.example]:25\"; without brackets, HOST's MX is used")
    };
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.len() > 300 {
        return Err(wrong("it is empty or too long"));
    }
    let (host, port) = match trimmed.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']').ok_or_else(|| wrong("the closing bracket is missing"))?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').ok_or_else(|| wrong("expected :PORT after ]"))?)),
            }
        }
        None => match trimmed.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (trimmed, None),
        },
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err(wrong("the port must be a number from 1 to 65535"));
    }
    let literal = host.strip_prefix("IPv6:").or(host.strip_prefix("ipv6:")).unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        if !trimmed.starts_with('[') {
            return Err(wrong("an IP address must be in brackets"));
        }
        let address = canonical_ip(address);
        if !is_public(address) && !allowed.iter().any(|net| net.contains(&address)) {
            return Err(Complaint::new(
                format!("{} is not a public address", quoted(host)),
                "loopback, private and link-local addresses cannot be gateways",
            )
            .help("name a server on the Internet, or list its network in relay.private_gateways of the main file"));
        }
        // Postfix takes an IPv6 address with this prefix only.
        let host = if address.is_ipv6() { format!("ipv6:{address}") } else { address.to_string() };
        return Ok(match port {
            Some(port) => format!("[{host}]:{port}"),
            None => format!("[{host}]"),
        });
    } else {
        let name = canonical_domain(host);
        if name.rsplit('.').next().is_some_and(is_number) {
            // inet_aton(3), and so Postfix, takes "127.1", "0x7f.1" and the like for addresses.
            return Err(wrong("neither a name nor an IP address; write all four numbers of an IPv4 address"));
        }
        if !is_host_name(&name) || !name.contains('.') || name.rsplit('.').next() == Some("localhost") {
            return Err(wrong("expected the host's fully qualified name"));
        }
        if name == "localhost.localdomain" {
            return Err(wrong("this is the relay itself"));
        }
    }
    Ok(trimmed.to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A last label that no name has: decimal, or hexadecimal after 0x.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").map(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hexadecimal.unwrap_or_else(|| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()))
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a >= 224;
            !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared || is_reserved)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let is_unique_local = first & 0xfe00 == 0xfc00;
            let is_local = first & 0xff80 == 0xfe80;
            let leads_inside = ipv4_within(v6).is_some_and(|v4| !is_public(IpAddr::V4(v4)));
            !(v6.is_multicast() || is_unique_local || is_local || leads_inside)
        }
    }
}

/// The IPv4 address that packets to this one end at: IPv4-compatible (with `::` and `::1`), NAT64 (RFC 6052), 6to4
/// (RFC 3056).
fn ipv4_within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) => Some(join(g, h)),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => Some(join(g, h)),
        (0x2002, _) => Some(join(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_gateways() {
        for text in
            ["[mx.acme.example]:25", "mx.acme.example", "acme.example:587", "[192.0.2.1]:25", "[IPv6:2001:db8::1]:25"]
        {
            assert!(gateway(text, &[]).is_ok(), "{text}");
        }
        for text in [
            "",
            "[mx.acme.example",
            "[mx.acme.example]25",
            "mx.acme.example:0",
            "mx:99999",
            "smtp:[mx.acme.example]",
            "192.0.2.1",
            "[127.1]:25",
            "[2130706433]:25",
            "[10.0x1]:25",
            "[0x7f.0x1]:25",
        ] {
            assert!(gateway(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn gateways_do_not_lead_inside() {
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "::",
            "ff02::1",
            "fec0::1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::1",
            "240.0.0.1",
            "localhost",
            "x.localhost",
            "localhost.localdomain",
        ] {
            assert!(gateway(&format!("[{host}]:25"), &[]).is_err(), "{host}");
        }
    }

    #[test]
    fn some_private_networks_may_be_allowed() {
        let allowed: [IpNet; 2] = ["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
        for good in ["[10.1.2.3]:25", "[::ffff:10.1.2.3]:25", "[fd00:1::25]"] {
            assert!(gateway(good, &allowed).is_ok(), "{good}");
        }
        for bad in ["[10.2.0.1]:25", "[127.0.0.1]:25", "[fd00:2::25]", "[localhost]"] {
            assert!(gateway(bad, &allowed).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_written_as_postfix_wants_them() {
        for text in ["[2001:DB8:0::1]:25", "[IPv6:2001:db8::1]:25"] {
            assert_eq!(gateway(text, &[]).as_deref(), Ok("[ipv6:2001:db8::1]:25"));
        }
        assert_eq!(gateway("[::ffff:192.0.2.1]:25", &[]).as_deref(), Ok("[192.0.2.1]:25"));
        assert_eq!(gateway("[MX.acme.example]", &[]).as_deref(), Ok("[mx.acme.example]"));
    }
}
