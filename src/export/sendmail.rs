//! Sendmail's access map (cf/README, "Access Database").

use super::ranges::ExportedRanges;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::HashSet;
use std::fmt::Write;

/// The most lines of a map.
const MAX_LINES: usize = 1_000_000;

/// For `FEATURE(`access_db')`. Sendmail looks an address up whole and then with its last part taken away again and
/// again (the ruleset LookUpAddress), so only networks that end between two parts can be named: IPv4 at 8, 16, 24 and
/// 32 bits, IPv6 at multiples of 16. Others are written as all the next smaller ones: at most 128 lines for an IPv4
/// range, 32,768 for an IPv6 one.
pub(super) fn access_map(ranges: &ExportedRanges) -> Result<String, String> {
    let mut map = ranges.heading("Sendmail's access map");
    // makemap refuses a key that stands there twice.
    let mut known: HashSet<String> = HashSet::new();
    for (net, names) in &ranges.nets {
        for name in names {
            let _ = writeln!(map, "# {name}: {net}");
        }
        for key in keys(*net) {
            if known.contains(&key) {
                continue;
            }
            if known.len() == MAX_LINES {
                return Err(format!(
                    "the access map would be longer than {MAX_LINES} lines: write IPv6 ranges of lengths that are \
                     multiples of 16, such as /48 and /64"
                ));
            }
            let _ = writeln!(map, "{key} RELAY");
            known.insert(key);
        }
    }
    Ok(map)
}

fn keys(net: IpNet) -> Box<dyn Iterator<Item = String>> {
    match net {
        IpNet::V4(net) => {
            let length = net.prefix_len().next_multiple_of(8).max(8);
            Box::new(net.subnets(length).into_iter().flatten().map(ipv4_key))
        }
        IpNet::V6(net) => {
            let length = net.prefix_len().next_multiple_of(16).max(16);
            Box::new(net.subnets(length).into_iter().flatten().map(ipv6_key))
        }
    }
}

fn ipv4_key(net: Ipv4Net) -> String {
    let parts = net.network().octets().map(|octet| octet.to_string());
    format!("Connect:{}", parts[..usize::from(net.prefix_len() / 8)].join("."))
}

/// Sendmail writes IPv6 addresses in full, without `::`, unless it was built otherwise.
fn ipv6_key(net: Ipv6Net) -> String {
    let parts = net.network().segments().map(|segment| format!("{segment:x}"));
    format!("Connect:IPv6:{}", parts[..usize::from(net.prefix_len() / 16)].join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_of(net: &str) -> Vec<String> {
        keys(net.parse().unwrap()).collect()
    }

    #[test]
    fn networks_between_two_parts_are_one_line() {
        assert_eq!(keys_of("192.0.2.0/24"), ["Connect:192.0.2"]);
        assert_eq!(keys_of("192.0.2.7/32"), ["Connect:192.0.2.7"]);
        assert_eq!(keys_of("10.0.0.0/8"), ["Connect:10"]);
        assert_eq!(keys_of("2001:db8::/32"), ["Connect:IPv6:2001:db8"]);
        assert_eq!(keys_of("2001:db8::/48"), ["Connect:IPv6:2001:db8:0"]);
        assert_eq!(keys_of("2001:db8::7/128"), ["Connect:IPv6:2001:db8:0:0:0:0:0:7"]);
    }

    #[test]
    fn others_are_all_the_next_smaller_ones() {
        assert_eq!(keys_of("192.0.2.0/23"), ["Connect:192.0.2", "Connect:192.0.3"]);
        let quarter = keys_of("192.0.2.64/26");
        assert_eq!((quarter.len(), &*quarter[0], &*quarter[63]), (64, "Connect:192.0.2.64", "Connect:192.0.2.127"));
        let many = keys_of("2001:db8::/49");
        assert_eq!((many.len(), &*many[32_767]), (32_768, "Connect:IPv6:2001:db8:0:7fff"));
    }

    #[test]
    fn no_key_stands_there_twice_and_the_map_is_bounded() {
        let mut ranges = ExportedRanges::default();
        for net in ["192.0.2.0/23", "192.0.3.0/24"] {
            ranges.nets.insert(net.parse().unwrap(), vec!["a, b".into()]);
        }
        let map = access_map(&ranges).unwrap();
        assert_eq!(map.matches("Connect:192.0.3 RELAY").count(), 1, "{map}");
        for n in 0..40 {
            ranges.nets.insert(format!("2001:db8:{n:x}::/49").parse().unwrap(), vec![]);
        }
        assert!(access_map(&ranges).is_err());
    }
}
