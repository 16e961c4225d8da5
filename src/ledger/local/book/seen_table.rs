//! When each of many recipients was last seen: a hash table in parts, so that growing never moves all of it.
//!
//! This is extendible hashing: a full part is split in two, and a small directory, by some bits of the key, says which part a
//! key is in. However large the table is, growing moves one part.

use crate::ledger::RecipientKey;
use hashbrown::HashTable;

/// Places in the largest part, which are moved at once while others wait. Seven eighths can be used.
const PART: usize = 1024;

/// Bits of the key that can tell parts apart.
const MOST_BITS: u32 = 16;

/// A recipient and the second, rounded up, when it was last seen. 12 bytes: there are millions of them.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(super) struct Seen {
    key: u64,
    pub at: u32,
}

impl Seen {
    pub fn new(key: RecipientKey, at: u32) -> Seen {
        Seen { key: key.0, at }
    }

    pub fn key(&self) -> RecipientKey {
        RecipientKey(self.key)
    }
}

#[derive(Clone, Debug)]
pub(super) struct SeenTable {
    parts: Vec<Part>,
    /// The part of each value of the key's bits.
    directory: Vec<u32>,
    len: usize,
    /// The part that is tidied next.
    tidied: usize,
}

#[derive(Clone, Debug, Default)]
struct Part {
    table: HashTable<Seen>,
    /// How many bits its keys have in common.
    bits: u32,
}

impl Part {
    fn rebuild(&mut self, capacity: usize) {
        let before = std::mem::replace(&mut self.table, HashTable::with_capacity(capacity));
        for seen in before {
            self.table.insert_unique(seen.key, seen, hash);
        }
    }
}

impl SeenTable {
    pub fn with_capacity(capacity: usize) -> SeenTable {
        let part = Part { table: HashTable::with_capacity(capacity.min(PART / 2)), bits: 0 };
        SeenTable { parts: vec![part], directory: vec![0], len: 0, tidied: 0 }
    }

    pub fn get(&self, key: RecipientKey) -> Option<u32> {
        self.parts[self.part_of(key)].table.find(key.0, |seen| seen.key == key.0).map(|seen| seen.at)
    }

    /// Sets when a recipient was last seen. May drop some for which `counts` is false.
    pub fn set(&mut self, key: RecipientKey, at: u32, counts: impl Fn(u32) -> bool) {
        loop {
            let number = self.part_of(key);
            let part = &mut self.parts[number];
            if let Some(seen) = part.table.find_mut(key.0, |seen| seen.key == key.0) {
                seen.at = at;
                return;
            }
            if part.table.len() < part.table.capacity() {
                part.table.insert_unique(key.0, Seen::new(key, at), hash);
                self.len += 1;
                return;
            }
            self.make_room(number, &counts);
        }
    }

    /// How many there are, whether they count or not.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn iter(&self) -> impl Iterator<Item = &Seen> {
        self.parts.iter().flat_map(|part| &part.table)
    }

    /// Drops those for which `counts` is false, in one part.
    pub fn tidy(&mut self, counts: impl Fn(u32) -> bool) {
        let number = self.tidied % self.parts.len();
        self.tidied = number + 1;
        self.purge(number, &counts);
        let table = &mut self.parts[number].table;
        if table.len() * 4 < table.capacity() {
            table.shrink_to(table.len(), hash);
        }
    }

    fn purge(&mut self, number: usize, counts: &impl Fn(u32) -> bool) {
        let table = &mut self.parts[number].table;
        let before = table.len();
        table.retain(|seen| counts(seen.at));
        self.len -= before - table.len();
    }

    fn make_room(&mut self, number: usize, counts: &impl Fn(u32) -> bool) {
        self.purge(number, counts);
        let part = &mut self.parts[number];
        let places = part.table.num_buckets();
        let usable = places - places / 8;
        if part.table.len() * 8 < usable * 7 {
            // Rebuilt, because dropped entries leave tombstones, which take up places, too.
            part.rebuild(usable);
        } else if places < PART || part.bits == MOST_BITS {
            part.rebuild(part.table.len() * 8 / 7 + 4);
        } else {
            self.split(number);
        }
    }

    fn split(&mut self, number: usize) {
        let bits = self.parts[number].bits;
        if 1 << bits == self.directory.len() {
            self.directory.extend_from_within(..);
        }
        let moves = |key: u64| choice(key) >> bits & 1 == 1;
        let mut other = HashTable::with_capacity(PART / 2);
        let part = &mut self.parts[number];
        for seen in part.table.extract_if(|seen| moves(seen.key)) {
            other.insert_unique(seen.key, seen, hash);
        }
        part.bits += 1;
        part.rebuild(part.table.len() + 1);
        self.parts.push(Part { table: other, bits: bits + 1 });
        let other = self.parts.len() as u32 - 1;
        for (value, entry) in self.directory.iter_mut().enumerate() {
            if *entry == number as u32 && value >> bits & 1 == 1 {
                *entry = other;
            }
        }
    }

    fn part_of(&self, key: RecipientKey) -> usize {
        self.directory[choice(key.0) & (self.directory.len() - 1)] as usize
    }
}

/// Bits that the tables themselves do not use.
fn choice(key: u64) -> usize {
    (key >> 32) as u16 as usize
}

/// The key is a keyed hash already.
fn hash(seen: &Seen) -> u64 {
    seen.key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> RecipientKey {
        let mixed = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        RecipientKey((mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb))
    }

    #[test]
    fn an_entry_takes_twelve_bytes() {
        assert_eq!(size_of::<Seen>(), 12);
    }

    #[test]
    fn parts_are_split_and_nothing_is_lost() {
        let mut table = SeenTable::with_capacity(0);
        for n in 0..200_000u64 {
            table.set(key(n), n as u32, |_| true);
            table.set(key(n / 2), n as u32, |_| true);
        }
        assert_eq!(table.len(), 200_000);
        assert_eq!(table.iter().count(), 200_000);
        assert!(table.parts.len() >= 224 && table.parts.iter().all(|part| part.table.num_buckets() <= PART));
        for n in 0..200_000u64 {
            let last = if n < 100_000 { 2 * n + 1 } else { n };
            assert_eq!(table.get(key(n)), Some(last.max(n) as u32), "{n}");
        }
        assert_eq!(table.get(key(200_000)), None);
    }

    #[test]
    fn what_counts_no_longer_makes_room() {
        let mut table = SeenTable::with_capacity(0);
        for n in 0..1_000_000u64 {
            table.set(key(n), n as u32, |at| at + 10_000 > n as u32);
        }
        assert!(table.parts.len() <= 32 && table.len() >= 10_000, "{} {}", table.parts.len(), table.len());
        for _ in 0..2 * table.parts.len() {
            table.tidy(|_| false);
        }
        assert_eq!(table.len(), 0);
        assert!(table.parts.iter().all(|part| part.table.capacity() == 0));
    }

    #[test]
    fn keys_that_are_alike_in_every_choice_are_kept_too() {
        let mut table = SeenTable::with_capacity(0);
        for n in 0..40_000u64 {
            table.set(RecipientKey(n), 1, |_| true);
        }
        assert_eq!(table.iter().count(), 40_000);
    }
}
