//! Accounts in place: found by name through an index, referred to by position.
//!
//! With a million accounts, each access to memory misses the caches. So the index takes one access (linear probing), the account
//! the second, and there is none in between.

use super::prefetch::prefetch;
use std::ops::{Index, IndexMut};

/// Growing by a chunk copies nothing, and wastes at most one chunk.
const CHUNK: usize = 512;

/// Where an account is in its [`Slab`]. Good until it is removed.
pub(super) type Position = u32;

/// Values that stay in place, with an index.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<Position>,
    /// Open addressing, linear probing; a power of two, at most three quarters in use.
    slots: Vec<Slot>,
    len: usize,
}

/// 8 bytes: eight to a cache line, and the index grows without looking at the values.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    position: Position,
}

const EMPTY: Slot = Slot { hash: 0, position: Position::MAX };

impl Slot {
    fn is_empty(self) -> bool {
        self.position == Position::MAX
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), slots: Vec::new(), len: 0 }
    }
}

impl<T> Slab<T> {
    /// Has the processor fetch the part of the index where this hash would be.
    pub fn fetch_index(&self, hash: u64) {
        let home = self.home(short(hash));
        for place in [home, home + 7] {
            self.slots.get(place).into_iter().for_each(prefetch);
        }
    }

    /// Has the processor fetch the value that most likely has this hash. Waits for the index.
    pub fn fetch_value(&self, hash: u64) {
        let hash = short(hash);
        let mut place = self.home(hash);
        while let Some(slot) = self.slots.get(place).copied().filter(|slot| !slot.is_empty()) {
            if slot.hash == hash {
                self.place(slot.position).into_iter().for_each(prefetch);
                break;
            }
            place = self.after(place);
        }
    }

    /// Finds the value with this hash that `is` it.
    pub fn find(&self, hash: u64, is: impl Fn(&T) -> bool) -> Option<Position> {
        let hash = short(hash);
        let mut place = self.home(hash);
        loop {
            let slot = *self.slots.get(place)?;
            if slot.is_empty() {
                return None;
            }
            if slot.hash == hash && self.get(slot.position).is_some_and(&is) {
                return Some(slot.position);
            }
            place = self.after(place);
        }
    }

    pub fn insert(&mut self, hash: u64, value: T) -> Position {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let position = self.free.pop().unwrap_or_else(|| self.add_place());
        self.chunks[position as usize / CHUNK][position as usize % CHUNK] = Some(value);
        self.put(Slot { hash: short(hash), position });
        self.len += 1;
        position
    }

    pub fn remove(&mut self, hash: u64, position: Position) -> Option<T> {
        let mut hole = self.home(short(hash));
        while self.slots.get(hole)?.position != position {
            if self.slots[hole].is_empty() {
                return None;
            }
            hole = self.after(hole);
        }
        // Closes the gap, so that everything behind it can still be reached from its home.
        let mut place = hole;
        loop {
            place = self.after(place);
            let slot = self.slots[place];
            if slot.is_empty() {
                break;
            }
            if self.distance(self.home(slot.hash), place) >= self.distance(hole, place) {
                self.slots[hole] = slot;
                hole = place;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        self.free.push(position);
        self.chunks[position as usize / CHUNK][position as usize % CHUNK].take()
    }

    pub fn get(&self, position: Position) -> Option<&T> {
        self.place(position)?.as_ref()
    }

    fn place(&self, position: Position) -> Option<&Option<T>> {
        self.chunks.get(position as usize / CHUNK)?.get(position as usize % CHUNK)
    }

    pub fn get_mut(&mut self, position: Position) -> Option<&mut T> {
        self.chunks.get_mut(position as usize / CHUNK)?.get_mut(position as usize % CHUNK)?.as_mut()
    }

    /// All positions, used or free, are below this.
    pub fn end(&self) -> Position {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len()) as Position
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    fn add_place(&mut self) -> Position {
        let position = self.end();
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(None),
            _ => {
                // The first chunk is small: many shards have only a few accounts.
                let mut chunk = Vec::new();
                if !self.chunks.is_empty() {
                    chunk.reserve_exact(CHUNK);
                }
                chunk.push(None);
                self.chunks.push(chunk);
            }
        }
        position
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(8);
        let before = std::mem::replace(&mut self.slots, vec![EMPTY; size]);
        before.into_iter().filter(|slot| !slot.is_empty()).for_each(|slot| self.put(slot));
    }

    fn put(&mut self, slot: Slot) {
        let mut place = self.home(slot.hash);
        while !self.slots[place].is_empty() {
            place = self.after(place);
        }
        self.slots[place] = slot;
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.slots.len() - 1)
    }

    /// How far it is from one place to another, onwards.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

/// The half of the hash that does not choose the shard.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Whoever keeps a position keeps the value from being removed.
impl<T> Index<Position> for Slab<T> {
    type Output = T;

    #[expect(clippy::expect_used, reason = "no input chooses a position")]
    fn index(&self, position: Position) -> &T {
        self.get(position).expect("an account that is referred to exists")
    }
}

impl<T> IndexMut<Position> for Slab<T> {
    #[expect(clippy::expect_used, reason = "no input chooses a position")]
    fn index_mut(&mut self, position: Position) -> &mut T {
        self.get_mut(position).expect("an account that is referred to exists")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Hashes that mostly collide, and steps that mostly hit what is there.
        #[test]
        fn it_agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0..60u64, 0..9u64), 1..400)) {
            let mut slab = Slab::default();
            let mut map: BTreeMap<u64, Position> = BTreeMap::new();
            let hash = |n: u64| (n / 9 * 7) << 32 | n;
            let all: Vec<u64> = (0..60).flat_map(|n| (0..9).map(move |spread| n + spread * 1000)).collect();
            for (step, (insert, n, spread)) in steps.into_iter().enumerate() {
                let n = n + spread * 1000;
                if insert && !map.contains_key(&n) {
                    map.insert(n, slab.insert(hash(n), n));
                } else if !insert && let Some(position) = map.remove(&n) {
                    prop_assert_eq!(slab.remove(hash(n), position), Some(n));
                }
                prop_assert_eq!(slab.len(), map.len());
                let looked_for = if step % 20 == 0 { all.clone() } else { vec![n] };
                for n in looked_for {
                    prop_assert_eq!(slab.find(hash(n), |&value| value == n), map.get(&n).copied());
                }
                prop_assert!(map.iter().all(|(n, &position)| slab[position] == *n && position < slab.end()));
            }
        }
    }

    #[test]
    fn a_free_place_is_used_again() {
        let mut slab = Slab::default();
        let positions: Vec<Position> = (0..1000u64).map(|n| slab.insert(n << 32, n)).collect();
        assert_eq!(slab.remove(500 << 32, positions[500]), Some(500));
        assert_eq!(slab.insert(5000 << 32, 5000), positions[500]);
        assert_eq!(slab.end(), 1000);
    }
}
