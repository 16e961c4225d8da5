//! Slots, and which master of a Cluster owns which (Redis Cluster specification).

use super::connection::text;
use redis::Value;
use std::collections::HashMap;

pub(in crate::ledger::shared) const SLOTS: u16 = 16384;

/// Host and port of a node.
pub(in crate::ledger::shared) type Address = (String, u16);

/// Ranges of slots (first, last), and the master of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::ledger::shared) struct SlotMap(pub Vec<(u16, u16, Address)>);

/// The slot of a key: only the hash tag counts, if there is one.
pub(in crate::ledger::shared) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    hashed.bytes().fold(0, crc16) % SLOTS
}

/// CRC16 with the XMODEM polynomial.
fn crc16(crc: u16, byte: u8) -> u16 {
    let shift = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    (0..8).fold(crc ^ (u16::from(byte) << 8), shift)
}

impl SlotMap {
    /// From a response to CLUSTER SLOTS of a node that was reached at `host`.
    pub fn parse(response: &Value, host: &str) -> Option<SlotMap> {
        let Value::Array(ranges) = response else { return None };
        let mut slots: Vec<_> = ranges.iter().map(|range| parse_range(range, host)).collect::<Option<_>>()?;
        slots.sort_unstable();
        Some(SlotMap(slots))
    }

    /// What most nodes report; the first of those that are reported equally often.
    pub fn of_majority(reported: Vec<SlotMap>) -> Option<SlotMap> {
        let mut times: HashMap<&SlotMap, usize> = HashMap::new();
        for slots in &reported {
            *times.entry(slots).or_default() += 1;
        }
        let most = times.values().copied().max()?;
        reported.iter().find(|slots| times[slots] == most).cloned()
    }
}

/// First slot, last slot, then nodes (address, port, name, …), the master first.
fn parse_range(range: &Value, host: &str) -> Option<(u16, u16, Address)> {
    let Value::Array(fields) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &fields[..] else { return None };
    let [named, Value::Int(port), ..] = &master[..] else { return None };
    // A node that does not know its own address is where it was reached.
    let named = text(named).filter(|named| !named.is_empty() && named != "?");
    let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
    let port = u16::try_from(*port).ok()?;
    Some((slot(*first)?, slot(*last)?, (named.unwrap_or_else(|| host.to_owned()), port)))
}

/// From a MOVED or ASK error of a node that was reached at `host`: `HOST:PORT`.
pub(in crate::ledger::shared) fn parse_address(address: &str, host: &str) -> Option<Address> {
    let (named, port) = address.rsplit_once(':')?;
    let named = if named.is_empty() || named == "?" { host } else { named };
    Some((named.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // "123456789" is the example of its appendix; the others are what CLUSTER KEYSLOT returns.
        assert_eq!("123456789".bytes().fold(0, crc16), 0x31c3);
        for (key, slot) in [("foo", 12182), ("rk:{foo}:c", 12182), ("foo{}{bar}", 8363), ("rk:{foo}{bar}", 12182)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let node = Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn the_majority_of_nodes_is_believed() {
        let parse = |ranges: Vec<Value>| SlotMap::parse(&Value::Array(ranges), "seed");
        let new = parse(vec![range(9, 16383, "b", 2), range(0, 8, "", 1)]).unwrap();
        assert_eq!(new.0, [(0, 8, ("seed".to_owned(), 1)), (9, 16383, ("b".to_owned(), 2))]);
        let old = parse(vec![range(0, 16383, "a", 1)]).unwrap();
        assert_eq!(SlotMap::of_majority(vec![old.clone(), new.clone(), new.clone()]), Some(new));
        assert_eq!(SlotMap::of_majority(Vec::new()), None);
        assert_eq!(parse(vec![range(0, 16384, "a", 1)]), None);
        assert_eq!(parse(vec![range(0, 1, "a", 1 << 16)]), None);
    }

    #[test]
    fn a_redirection_may_name_no_host() {
        assert_eq!(parse_address("10.0.0.1:6379", "seed"), Some(("10.0.0.1".to_owned(), 6379)));
        assert_eq!(parse_address(":6379", "seed"), Some(("seed".to_owned(), 6379)));
        assert_eq!(parse_address("::1:6379", "seed"), Some(("::1".to_owned(), 6379)));
        assert_eq!(parse_address("nonsense", "seed"), None);
    }
}
