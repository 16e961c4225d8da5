//! Address ranges: which client addresses count as a customer's.

use crate::envelope::canonical_ip;
use ipnet::IpNet;
use std::net::IpAddr;

/// One range as the administrator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub description: String,
    /// In canonical form: IPv4-mapped IPv6 ranges are IPv4.
    pub net: IpNet,
    pub enabled: bool,
}

/// The enabled ranges of a setting, prepared for look-ups in logarithmic time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRanges {
    /// Sorted and disjoint: a range that lies within another is left out.
    nets: Vec<IpNet>,
}

impl AddressRanges {
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> AddressRanges {
        let mut nets = IpNet::aggregate(&nets.into_iter().map(canonical_net).collect());
        nets.sort();
        AddressRanges { nets }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical_ip(address);
        let after = self.nets.partition_point(|net| net.network() <= address);
        after > 0 && self.nets[after - 1].contains(&address)
    }

    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.nets.iter().copied()
    }
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
pub(crate) fn canonical_net(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net.trunc() else { return net.trunc() };
    match (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(length)) => IpNet::new(v4.into(), length).unwrap_or(net),
        _ => net.trunc(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(nets: &[&str]) -> AddressRanges {
        AddressRanges::new(nets.iter().map(|net| net.parse().unwrap()))
    }

    #[test]
    fn an_address_is_found_in_any_of_many_ranges() {
        let ranges = ranges(&["192.0.2.0/24", "192.0.2.8/32", "2001:db8::/48", "198.51.100.7/32", "203.0.113.128/25"]);
        for inside in
            ["192.0.2.0", "192.0.2.255", "198.51.100.7", "203.0.113.200", "2001:db8:0:ffff::1", "::ffff:192.0.2.9"]
        {
            assert!(ranges.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "198.51.100.8", "203.0.113.127", "2001:db8:1::1", "::1"] {
            assert!(!ranges.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn mapped_ranges_are_ipv4() {
        assert!(ranges(&["::ffff:192.0.2.0/120"]).contains("192.0.2.77".parse().unwrap()));
        assert!(AddressRanges::default().is_empty());
    }
}
