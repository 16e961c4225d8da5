//! Accounts in place: found by name through a small index, referred to by position.

use hashbrown::HashTable;
use std::ops::{Index, IndexMut};

/// Growing by a chunk copies nothing, and wastes at most one chunk.
const CHUNK: usize = 64;

/// Where an account is in its [`Slab`]. Good until it is removed.
pub(super) type Position = u32;

/// Values that stay where they are, with an index of theirs.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Position>,
    index: HashTable<Slot>,
}

/// 8 bytes, and no look at the value when the index grows.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    position: Position,
}

impl Slot {
    fn of(hash: u64, position: Position) -> Slot {
        Slot { hash: (hash >> 32) as u32, position }
    }

    /// Of 32 bits, both ends of what the table looks at.
    fn spread(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), index: HashTable::new() }
    }
}

impl<T> Slab<T> {
    /// Finds the value with this hash that `is` it.
    pub fn find(&self, hash: u64, is: impl Fn(&T) -> bool) -> Option<Position> {
        let sought = Slot::of(hash, 0);
        let found = self
            .index
            .find(sought.spread(), |slot| slot.hash == sought.hash && self.get(slot.position).is_some_and(&is))?;
        Some(found.position)
    }

    pub fn insert(&mut self, hash: u64, value: T) -> Position {
        let position = self.free.pop().unwrap_or_else(|| self.add_slot());
        self.chunks[position as usize / CHUNK][position as usize % CHUNK] = Some(value);
        let slot = Slot::of(hash, position);
        self.index.insert_unique(slot.spread(), slot, Slot::spread);
        position
    }

    pub fn remove(&mut self, hash: u64, position: Position) -> Option<T> {
        let sought = Slot::of(hash, position);
        let entry = self.index.find_entry(sought.spread(), |slot| slot.position == position).ok()?;
        entry.remove();
        self.free.push(position);
        self.chunks[position as usize / CHUNK][position as usize % CHUNK].take()
    }

    pub fn get(&self, position: Position) -> Option<&T> {
        self.chunks.get(position as usize / CHUNK)?.get(position as usize % CHUNK)?.as_ref()
    }

    pub fn get_mut(&mut self, position: Position) -> Option<&mut T> {
        self.chunks.get_mut(position as usize / CHUNK)?.get_mut(position as usize % CHUNK)?.as_mut()
    }

    /// Positions in use or free: all lie below.
    pub fn end(&self) -> Position {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len()) as Position
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().flatten()
    }

    fn add_slot(&mut self) -> Position {
        let position = self.end();
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(None);
        position
    }
}

/// Whoever keeps a position keeps the value from being removed.
impl<T> Index<Position> for Slab<T> {
    type Output = T;

    fn index(&self, position: Position) -> &T {
        self.get(position).expect("an account that is referred to exists")
    }
}

impl<T> IndexMut<Position> for Slab<T> {
    fn index_mut(&mut self, position: Position) -> &mut T {
        self.get_mut(position).expect("an account that is referred to exists")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_hash_and_kept_in_place() {
        let mut slab = Slab::default();
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let positions: Vec<Position> = (0..1000).map(|n| slab.insert(hash(n), n)).collect();
        for n in 0..1000 {
            assert_eq!(slab.find(hash(n), |&value| value == n), Some(positions[n as usize]));
        }
        for n in (0..1000).step_by(2) {
            assert_eq!(slab.remove(hash(n), positions[n as usize]), Some(n));
            assert_eq!(slab.find(hash(n), |&value| value == n), None);
        }
        assert_eq!(slab.len(), 500);
        assert_eq!(slab[positions[501]], 501);
        let again = slab.insert(hash(5000), 5000);
        assert!(again < slab.end() && slab.end() == 1000, "a free place is used again");
    }
}
