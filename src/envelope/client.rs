//! The client's address, in the spellings of Postfix and Sendmail.

use std::net::{IpAddr, Ipv4Addr};

/// Reads an address as an MTA writes it: Sendmail's `IPv6:0:0:0:0:0:0:0:1`, brackets, a zone. `None` for `unknown` and
/// the like. IPv4-mapped IPv6 addresses become IPv4.
pub fn parse_client(text: &str) -> Option<IpAddr> {
    if let Ok(usual) = text.parse::<Ipv4Addr>() {
        return Some(IpAddr::V4(usual));
    }
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let text = match text.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("ipv6:") => &text[5..],
        _ => text,
    };
    let text = text.split_once('%').map_or(text, |(address, _zone)| address);
    text.parse().ok().map(canonical_ip)
}

/// IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2) are IPv4.
pub fn canonical_ip(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_mtas() {
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        for text in ["192.0.2.7", "[192.0.2.7]", "::ffff:192.0.2.7", "IPv6:::ffff:192.0.2.7"] {
            assert_eq!(parse_client(text), Some(v4), "{text}");
        }
        for text in
            ["2001:db8::7", "IPv6:2001:db8:0:0:0:0:0:7", "ipv6:2001:DB8::7", "[IPv6:2001:db8::7]", "2001:db8::7%eth0"]
        {
            assert_eq!(parse_client(text), Some(v6), "{text}");
        }
        assert_eq!(parse_client("unknown"), None);
        assert_eq!(parse_client(""), None);
        assert_eq!(parse_client("ipv6é"), None);
    }
}
