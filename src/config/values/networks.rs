//! Address ranges as administrators write them.

use crate::config::reading::{Complaint, quoted};
use crate::directory::canonical_net;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

/// An address or CIDR range, IPv4 or IPv6 in any of its textual forms (RFC 4291, 2.2; also `[…]` and Sendmail's
/// `IPv6:`), in canonical form.
pub(in crate::config) fn net(text: &str) -> Result<IpNet, Complaint> {
    let trimmed = text.trim();
    let (address_text, length_text) = match trimmed.split_once('/') {
        Some((address, length)) => (address.trim_end(), Some(length.trim_start())),
        None => (trimmed, None),
    };
    // `[2001:db8::]/32` and `[2001:db8::/32]`
    let (address_text, length_text) = match address_text.strip_prefix('[') {
        Some(inner) => {
            (inner.strip_suffix(']').unwrap_or(inner), length_text.map(|l| l.strip_suffix(']').unwrap_or(l)))
        }
        None => (address_text, length_text),
    };
    let address_text = match address_text.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("ipv6:") => &address_text[5..],
        _ => address_text,
    };
    let Ok(address) = address_text.parse::<IpAddr>() else { return Err(no_address(text, address_text)) };
    let widest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length_text {
        None => widest,
        Some(length_text) => match length_text.parse::<u8>() {
            Ok(length) if length <= widest && length_text.len() <= 3 => length,
            _ => return Err(no_length(text, address, length_text, widest)),
        },
    };
    let net = IpNet::new_assert(address, length);
    if net.network() != address {
        let (whole, one) = (canonical_net(net.trunc()), canonical_net(IpNet::from(address)));
        return Err(Complaint::new(format!("{} has host bits set", quoted(text)), format!("the network is {whole}"))
            .help(format!("write \"{whole}\" for the whole network, or \"{}\" for the one address", one.addr())));
    }
    Ok(canonical_net(net))
}

fn no_address(text: &str, address: &str) -> Complaint {
    let complaint = Complaint::new(
        format!("{} is not an IP address or range", quoted(text)),
        "expected an IP address, or a range such as 192.0.2.0/24",
    );
    let ends = text.split_once('-').map(|(a, b)| (a.trim().parse::<IpAddr>(), b.trim().parse::<IpAddr>()));
    if let Some((Ok(_), Ok(_))) = ends {
        return complaint
            .help("write a CIDR range, such as \"192.0.2.0/24\"; several ranges get a [[setting.ip]] each");
    }
    if address.contains('%') {
        return complaint.help("remove the zone (from the % on)");
    }
    if address.split('.').count() == 4 && address.split('.').any(|part| part.len() > 1 && part.starts_with('0')) {
        return complaint.help("remove leading zeros: some programs read them as octal");
    }
    if address.bytes().all(|b| b.is_ascii_digit() || b == b'.') && address.contains('.') {
        return complaint.help("an IPv4 address has four numbers up to 255, such as \"192.0.2.7\" or \"192.0.2.0/24\"");
    }
    if address.contains(|c: char| c.is_ascii_alphabetic()) && !address.contains(':') {
        return complaint.help("write the address itself, such as \"192.0.2.7\": names are not looked up");
    }
    complaint.help("write an address or a CIDR range, such as \"192.0.2.0/24\" or \"2001:db8:1::/48\"")
}

fn no_length(text: &str, address: IpAddr, length: &str, widest: u8) -> Complaint {
    let complaint =
        Complaint::new(format!("{} is not an IP address or range", quoted(text)), "the prefix length is invalid");
    if let (IpAddr::V4(address), Ok(mask)) = (address, length.parse::<Ipv4Addr>())
        && let Ok(net) = Ipv4Net::with_netmask(address, mask)
    {
        return complaint.help(format!("write the netmask as a prefix length: \"{}\"", net.trunc()));
    }
    complaint.help(format!("after the / write a number from 0 to {widest}"))
}

/// How many addresses a range counts: in IPv6 each /64 is one.
pub(in crate::config) fn range_size(net: IpNet) -> u64 {
    let host_bits = match net {
        IpNet::V4(net) => 32 - net.prefix_len(),
        IpNet::V6(net) => 64u8.saturating_sub(net.prefix_len()),
    };
    1u64.checked_shl(host_bits.into()).unwrap_or(u64::MAX)
}

/// A customer's range of at most `max` addresses.
pub(in crate::config) fn range(text: &str, max: u64) -> Result<IpNet, Complaint> {
    let net = net(text)?;
    let size = range_size(net);
    if size > max {
        let (unit, full) = match net {
            IpNet::V4(_) => ("addresses", 32),
            IpNet::V6(_) => ("/64 networks", 64),
        };
        let shortest = full - max.ilog2();
        return Err(Complaint::new(format!("{net} is too large"), format!("{size} {unit}, at most {max} are allowed"))
            .help(format!("use a prefix of /{shortest} or longer, or raise relay.max_range_addresses")));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_textual_form_of_a_range() {
        for (text, net_text) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:DB8:0:0:0:0:0:0/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("[2001:db8::]/32", "2001:db8::/32"),
            ("[2001:db8::/32]", "2001:db8::/32"),
            ("IPv6:2001:db8::7", "2001:db8::7/128"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::FFFF:c000:207", "192.0.2.7/32"),
            ("2001:db8::192.0.2.7", "2001:db8::c000:207/128"),
        ] {
            assert_eq!(net(text).unwrap().to_string(), net_text, "{text}");
        }
        for text in [
            "",
            "/",
            "192.0.2",
            "192.0.2.1/33",
            "::/129",
            "192.0.2.1/+8",
            "192.0.2.07",
            "fe80::1%eth0",
            "host",
            "1::2::3",
        ] {
            assert!(net(text).is_err(), "{text}");
        }
    }

    #[test]
    fn host_bits_and_masks_are_explained() {
        let help = |text| net(text).unwrap_err().help.unwrap();
        assert_eq!(
            help("192.0.2.7/24"),
            "write \"192.0.2.0/24\" for the whole network, or \"192.0.2.7\" for the one address"
        );
        assert_eq!(help("192.0.2.0/255.255.255.0"), "write the netmask as a prefix length: \"192.0.2.0/24\"");
        assert!(help("192.0.2.1-192.0.2.9").contains("CIDR"));
    }

    #[test]
    fn ranges_are_bounded_and_a_64_counts_as_one() {
        assert!(range("10.0.0.0/16", 65_536).is_ok());
        assert!(range("2001:db8::/48", 65_536).is_ok());
        assert!(range("2001:db8::/64", 1).is_ok());
        assert!(range("2001:db8::1", 1).is_ok());
        assert!(range("10.0.0.0/15", 65_536).unwrap_err().help.unwrap().contains("/16"));
        assert!(range("2001:db8::/47", 65_536).unwrap_err().help.unwrap().contains("/48"));
        assert!(range("::/0", u64::MAX - 1).is_err());
        assert!(range("::ffff:0.0.0.0/96", 65_536).is_err());
    }
}
