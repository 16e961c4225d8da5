//! Which master of a Cluster has which slot (Redis Cluster specification).

use super::connection::text;
use redis::Value;
use std::collections::HashMap;

pub(in crate::ledger::shared) const SLOTS: u16 = 16384;

/// A node, as a connection is opened to it.
pub(in crate::ledger::shared) type Address = (String, u16);

/// Ranges of slots, and the master of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::ledger::shared) struct Slots(pub Vec<(u16, u16, Address)>);

/// The slot of a key: of what stands in its first braces, if there is anything.
pub(in crate::ledger::shared) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    hashed.bytes().fold(0, crc16) % SLOTS
}

/// CRC16, of the polynomial that XMODEM has.
fn crc16(crc: u16, byte: u8) -> u16 {
    let shift = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    (0..8).fold(crc ^ (u16::from(byte) << 8), shift)
}

impl Slots {
    /// From the answer to CLUSTER SLOTS of a node that was reached at `host`.
    pub fn read(answer: &Value, host: &str) -> Option<Slots> {
        let Value::Array(ranges) = answer else { return None };
        let mut slots: Vec<_> = ranges.iter().map(|range| read_range(range, host)).collect::<Option<_>>()?;
        slots.sort_unstable();
        Some(Slots(slots))
    }

    /// What most connector say; the first of those that are said equally often.
    pub fn of_most(said: Vec<Slots>) -> Option<Slots> {
        let mut times: HashMap<&Slots, usize> = HashMap::new();
        for slots in &said {
            *times.entry(slots).or_default() += 1;
        }
        let most = times.values().copied().max()?;
        said.iter().find(|slots| times[slots] == most).cloned()
    }
}

/// First, last, then connector (address, port, name, …), the master first.
fn read_range(range: &Value, host: &str) -> Option<(u16, u16, Address)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else { return None };
    let [named, Value::Int(port), ..] = &master[..] else { return None };
    // A node that does not know its own name is where it was reached.
    let named = text(named).filter(|named| !named.is_empty() && named != "?");
    let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
    let port = u16::try_from(*port).ok()?;
    Some((slot(*first)?, slot(*last)?, (named.unwrap_or_else(|| host.to_owned()), port)))
}

/// As MOVED and ASK tell it: `HOST:PORT`, of a node that was reached at `host`.
pub(in crate::ledger::shared) fn read_address(address: &str, host: &str) -> Option<Address> {
    let (named, port) = address.rsplit_once(':')?;
    let named = if named.is_empty() || named == "?" { host } else { named };
    Some((named.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // "123456789" is the example of its appendix; the others are what CLUSTER KEYSLOT says.
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
    fn what_most_nodes_say_holds() {
        let read = |ranges: Vec<Value>| Slots::read(&Value::Array(ranges), "seed");
        let new = read(vec![range(9, 16383, "b", 2), range(0, 8, "", 1)]).unwrap();
        assert_eq!(new.0, [(0, 8, ("seed".to_owned(), 1)), (9, 16383, ("b".to_owned(), 2))]);
        let old = read(vec![range(0, 16383, "a", 1)]).unwrap();
        assert_eq!(Slots::of_most(vec![old.clone(), new.clone(), new.clone()]), Some(new));
        assert_eq!(Slots::of_most(Vec::new()), None);
        assert_eq!(read(vec![range(0, 16384, "a", 1)]), None);
        assert_eq!(read(vec![range(0, 1, "a", 1 << 16)]), None);
    }

    #[test]
    fn a_redirection_may_name_no_host() {
        assert_eq!(read_address("10.0.0.1:6379", "seed"), Some(("10.0.0.1".to_owned(), 6379)));
        assert_eq!(read_address(":6379", "seed"), Some(("seed".to_owned(), 6379)));
        assert_eq!(read_address("::1:6379", "seed"), Some(("::1".to_owned(), 6379)));
        assert_eq!(read_address("nonsense", "seed"), None);
    }
}
