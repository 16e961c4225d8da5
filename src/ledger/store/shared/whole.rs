//! The parts of the store, and which of them has what.

use super::part::Part;
use super::slots::{Address, SLOTS, Slots, slot_of};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// All of the store.
pub(super) struct Whole {
    pub parts: Vec<Arc<Kept>>,
    /// The number of each slot's part; none where there is but one part, which has all.
    of_slot: Vec<u16>,
}

/// A part, and the task that keeps it connected.
pub(super) struct Kept {
    pub part: Arc<Part>,
    pub address: Option<Address>,
    pub task: Option<AbortHandle>,
}

impl Kept {
    /// It is no part any more: whoever waits for it asks elsewhere.
    pub fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.part.is_gone();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.end();
    }
}

impl Whole {
    /// One server, or what is not known yet.
    pub fn single() -> Whole {
        let one = Kept { part: Arc::new(Part::new()), address: None, task: None };
        Whole { parts: vec![Arc::new(one)], of_slot: Vec::new() }
    }

    /// A Cluster. Parts that stay are kept as they are; new ones are made.
    pub fn of_cluster(before: &Whole, slots: &Slots, make: impl Fn(&Address) -> Kept) -> Whole {
        let (mut parts, mut of_slot) = (Vec::<Arc<Kept>>::new(), vec![u16::MAX; SLOTS.into()]);
        for (first, last, address) in &slots.0 {
            let number = number_of(&parts, address).unwrap_or_else(|| {
                let known = number_of(&before.parts, address).map(|number| before.parts[number].clone());
                parts.push(known.unwrap_or_else(|| Arc::new(make(address))));
                parts.len() - 1
            });
            let of_range = of_slot.get_mut(usize::from(*first)..=usize::from(*last)).unwrap_or_default();
            of_range.fill(number as u16);
        }
        Whole { parts, of_slot }
    }

    /// The same, where a node is a part, whether it has slots or not; and that part. It is given a slot, if one is named.
    pub fn with(&self, address: &Address, slot: Option<u16>, make: impl Fn(&Address) -> Kept) -> (Whole, Arc<Part>) {
        let (mut parts, mut of_slot) = (self.parts.clone(), self.of_slot.clone());
        let number = number_of(&parts, address).unwrap_or_else(|| {
            parts.push(Arc::new(make(address)));
            parts.len() - 1
        });
        if let Some(owner) = slot.and_then(|slot| of_slot.get_mut(usize::from(slot))) {
            *owner = number as u16;
        }
        let part = parts[number].part.clone();
        (Whole { parts, of_slot }, part)
    }

    pub fn is_cluster(&self) -> bool {
        !self.of_slot.is_empty()
    }

    /// Those of which there is nothing left in another.
    pub fn without<'a>(&'a self, other: &'a Whole) -> impl Iterator<Item = &'a Arc<Kept>> {
        self.parts.iter().filter(|kept| !other.parts.iter().any(|other| Arc::ptr_eq(kept, other)))
    }

    /// Whether all parts and slots are the same.
    pub fn is(&self, other: &Whole) -> bool {
        let same = |(one, other): (&Arc<Kept>, &Arc<Kept>)| Arc::ptr_eq(one, other);
        self.of_slot == other.of_slot
            && self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(same)
    }

    /// The part that has a key. `None`: its slot is nobody's.
    pub fn part_with(&self, key: &str) -> Option<Arc<Part>> {
        let number = match self.is_cluster() {
            true => *self.of_slot.get(usize::from(slot_of(key)))?,
            false => 0,
        };
        self.parts.get(usize::from(number)).map(|kept| kept.part.clone())
    }
}

fn number_of(parts: &[Arc<Kept>], address: &Address) -> Option<usize> {
    parts.iter().position(|kept| kept.address.as_ref() == Some(address))
}
