//! The enabled ranges of all customers, for the question whose an address is.

use super::customer::Customer;
use crate::envelope::canonical_ip;
use hashbrown::HashMap;
use ipnet::IpNet;
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;

/// Ranges contain each other or have nothing in common: sorted, with a link from each to the nearest around it, the
/// ranges that hold an address are one of them and those that its links lead to, 128 at most.
#[derive(Debug, Default)]
pub(super) struct RangeIndex {
    ranges: Vec<Indexed>,
}

#[derive(Debug)]
struct Indexed {
    net: IpNet,
    /// The place of the next larger range that contains this one.
    around: Option<u32>,
    customers: SmallVec<[u32; 2]>,
}

impl RangeIndex {
    pub fn new(customers: &[Arc<Customer>]) -> RangeIndex {
        let mut by_net: HashMap<IpNet, SmallVec<[u32; 2]>> = HashMap::new();
        for (id, customer) in customers.iter().enumerate() {
            for net in customer.settings.iter().filter(|setting| setting.enabled).flat_map(|s| s.enabled_ranges.iter())
            {
                let holders = by_net.entry(net).or_default();
                if holders.last() != Some(&(id as u32)) {
                    holders.push(id as u32);
                }
            }
        }
        let mut ranges: Vec<Indexed> =
            by_net.into_iter().map(|(net, customers)| Indexed { net, around: None, customers }).collect();
        ranges.sort_unstable_by_key(|range| range.net);
        let mut open: Vec<u32> = Vec::new();
        for n in 0..ranges.len() {
            let net = ranges[n].net;
            while open.pop_if(|outer| !ranges[*outer as usize].net.contains(&net)).is_some() {}
            ranges[n].around = open.last().copied();
            open.push(n as u32);
        }
        RangeIndex { ranges }
    }

    /// The customers in whose ranges the address lies, at most `most`, those of the narrowest range first.
    pub fn holders(&self, address: IpAddr, most: usize) -> SmallVec<[u32; 2]> {
        let address = canonical_ip(address);
        let mut holders = SmallVec::new();
        let after = self.ranges.partition_point(|range| range.net.network() <= address);
        let mut next = after.checked_sub(1);
        while let Some(range) = next.and_then(|n| self.ranges.get(n)) {
            if range.net.contains(&address) {
                for &customer in &range.customers {
                    if holders.len() >= most {
                        return holders;
                    }
                    if !holders.contains(&customer) {
                        holders.push(customer);
                    }
                }
            }
            next = range.around.map(|n| n as usize);
        }
        holders
    }
}
