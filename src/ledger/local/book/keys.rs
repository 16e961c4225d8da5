//! The recipients that open transactions hold.

use super::slab::Position;
use crate::ledger::RecipientKey;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

/// Up to so many are looked through one by one.
const SCANNED: usize = 64;

/// Different recipients, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    list: SmallVec<[RecipientKey; 4]>,
    index: Option<Box<HashTable<RecipientKey>>>,
}

impl KeySet {
    /// Whether it is new.
    pub fn insert(&mut self, key: RecipientKey) -> bool {
        if self.contains(key) {
            return false;
        }
        self.list.push(key);
        match &mut self.index {
            Some(index) => {
                index.insert_unique(key.0, key, |key| key.0);
            }
            None if self.list.len() > SCANNED => {
                let mut index = HashTable::with_capacity(2 * SCANNED);
                for &key in &self.list {
                    index.insert_unique(key.0, key, |key: &RecipientKey| key.0);
                }
                self.index = Some(Box::new(index));
            }
            None => {}
        }
        true
    }

    pub fn contains(&self, key: RecipientKey) -> bool {
        match &self.index {
            Some(index) => index.find(key.0, |&other| other == key).is_some(),
            None => self.list.contains(&key),
        }
    }

    pub fn as_slice(&self) -> &[RecipientKey] {
        &self.list
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }
}

impl FromIterator<RecipientKey> for KeySet {
    fn from_iter<I: IntoIterator<Item = RecipientKey>>(keys: I) -> KeySet {
        let mut set = KeySet::default();
        keys.into_iter().for_each(|key| {
            set.insert(key);
        });
        set
    }
}

/// Which recipients are held on which accounts, and by how many transactions.
#[derive(Debug, Default)]
pub(super) struct HeldKeys(HashTable<HeldKey>);

#[derive(Clone, Copy, Debug)]
pub(super) struct HeldKey {
    pub key: RecipientKey,
    pub account: Position,
    pub holders: u32,
    /// The second when it was last seen before it was held; 0 is never. It is not counted as remembered then: it is in one
    /// place or the other. `None`: nobody has looked yet, and if it was seen, it is still counted as remembered.
    pub last_seen: Option<u32>,
}

/// What became of a recipient that was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LetGo {
    /// It was looked for among the remembered just now.
    pub was_read: bool,
    /// Nobody holds it any more, and this was known of it.
    pub last_seen: Option<Option<u32>>,
}

impl HeldKeys {
    pub fn contains(&self, account: Position, key: RecipientKey) -> bool {
        self.0.find(hash(account, key), |held| held.is(account, key)).is_some()
    }

    /// Holds it once more; true if nobody held it before.
    pub fn hold(&mut self, account: Position, key: RecipientKey) -> bool {
        let rehash = |held: &HeldKey| hash(held.account, held.key);
        match self.0.entry(hash(account, key), |held| held.is(account, key), rehash) {
            Entry::Occupied(mut held) => {
                held.get_mut().holders += 1;
                false
            }
            Entry::Vacant(place) => {
                place.insert(HeldKey { key, account, holders: 1, last_seen: None });
                true
            }
        }
    }

    /// Holds it once less, as seen at the second `seen` if that is later than before; 0: it was not. `read` tells when it was
    /// seen before, if that is asked. `None`: it was not held.
    pub fn let_go(
        &mut self,
        account: Position,
        key: RecipientKey,
        seen: u32,
        read: impl FnOnce() -> u32,
    ) -> Option<LetGo> {
        let mut entry = self.0.find_entry(hash(account, key), |held| held.is(account, key)).ok()?;
        let held = entry.get_mut();
        let was_read = seen > 0 && held.last_seen.is_none();
        if seen > 0 {
            held.last_seen = Some(held.last_seen.unwrap_or_else(read).max(seen));
        }
        held.holders -= 1;
        let last_seen = (held.holders == 0).then(|| entry.remove().0.last_seen);
        Some(LetGo { was_read, last_seen })
    }

    /// All that is held on one account. Looks through all that is open.
    pub fn of(&self, account: Position) -> impl Iterator<Item = &HeldKey> {
        self.0.iter().filter(move |held| held.account == account)
    }

    /// As [`HeldKeys::of`].
    pub fn of_mut(&mut self, account: Position) -> impl Iterator<Item = &mut HeldKey> {
        self.0.iter_mut().filter(move |held| held.account == account)
    }
}

impl HeldKey {
    fn is(&self, account: Position, key: RecipientKey) -> bool {
        self.key == key && self.account == account
    }
}

fn hash(account: Position, key: RecipientKey) -> u64 {
    key.0 ^ u64::from(account).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_each_key_once_however_many_there_are() {
        let keys = || (0..500).map(|n: u64| RecipientKey(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let set: KeySet = keys().chain(keys()).collect();
        assert_eq!(set.len(), 500);
        assert!(keys().all(|key| set.contains(key)));
        assert!(!set.contains(RecipientKey(1)));
    }

    #[test]
    fn a_key_is_let_go_when_the_last_holder_lets_go() {
        let mut held = HeldKeys::default();
        let key = RecipientKey(7);
        assert!(held.hold(1, key));
        assert!(!held.hold(1, key));
        assert!(held.hold(2, key));
        assert_eq!(held.let_go(1, key, 9, || 5), Some(LetGo { was_read: true, last_seen: None }));
        let last = held.let_go(1, key, 0, || panic!("it is known already"));
        assert_eq!(last, Some(LetGo { was_read: false, last_seen: Some(Some(9)) }));
        assert!(!held.contains(1, key) && held.contains(2, key));
        let unread = held.let_go(2, key, 0, || panic!("nobody asks"));
        assert_eq!(unread, Some(LetGo { was_read: false, last_seen: Some(None) }));
        assert_eq!(held.let_go(2, key, 9, || 0), None);
    }
}
