//! The recipients that open transactions have reserved.

use super::slab::Position;
use crate::ledger::RecipientKey;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

/// Up to this many are searched one by one.
const SCANNED: usize = 64;

/// Recipients without repeats, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    list: SmallVec<[RecipientKey; 4]>,
    index: Option<Box<HashTable<RecipientKey>>>,
}

impl KeySet {
    /// Whether it was added: it may be there already.
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

/// Which recipients are reserved on which accounts, and by how many transactions.
#[derive(Debug, Default)]
pub(super) struct ReservedKeys(HashTable<ReservedKey>);

#[derive(Clone, Copy, Debug)]
pub(super) struct ReservedKey {
    pub key: RecipientKey,
    pub account: Position,
    /// How many transactions have reserved it.
    pub reservations: u32,
    /// The second when it was last seen before it was reserved; 0 is never. It is then not counted as remembered: it is in one
    /// place or the other. `None`: nobody has looked yet, and if it was seen, it is still counted as remembered.
    pub last_seen: Option<u32>,
}

/// What became of a recipient that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Released {
    /// It was looked up among the remembered recipients just now.
    pub was_looked_up: bool,
    /// Nobody has reserved it any more, and this was known of it.
    pub last_seen: Option<Option<u32>>,
}

impl ReservedKeys {
    pub fn contains(&self, account: Position, key: RecipientKey) -> bool {
        self.0.find(hash(account, key), |reserved| reserved.is(account, key)).is_some()
    }

    /// Reserves it once more. True: nobody had reserved it before.
    pub fn reserve(&mut self, account: Position, key: RecipientKey) -> bool {
        let rehash = |reserved: &ReservedKey| hash(reserved.account, reserved.key);
        match self.0.entry(hash(account, key), |reserved| reserved.is(account, key), rehash) {
            Entry::Occupied(mut reserved) => {
                reserved.get_mut().reservations += 1;
                false
            }
            Entry::Vacant(place) => {
                place.insert(ReservedKey { key, account, reservations: 1, last_seen: None });
                true
            }
        }
    }

    /// Releases it once. `seen`: the second when it was sent to; 0: it was not. `look_up` returns when it was seen before, if that is
    /// needed. `None`: it was not reserved.
    pub fn release(
        &mut self,
        account: Position,
        key: RecipientKey,
        seen: u32,
        look_up: impl FnOnce() -> u32,
    ) -> Option<Released> {
        let mut entry = self.0.find_entry(hash(account, key), |reserved| reserved.is(account, key)).ok()?;
        let reserved = entry.get_mut();
        let was_looked_up = seen > 0 && reserved.last_seen.is_none();
        if seen > 0 {
            reserved.last_seen = Some(reserved.last_seen.unwrap_or_else(look_up).max(seen));
        }
        reserved.reservations -= 1;
        let last_seen = (reserved.reservations == 0).then(|| entry.remove().0.last_seen);
        Some(Released { was_looked_up, last_seen })
    }

    /// All that is reserved on one account. Looks through everything that is reserved.
    pub fn of(&self, account: Position) -> impl Iterator<Item = &ReservedKey> {
        self.0.iter().filter(move |reserved| reserved.account == account)
    }

    /// As [`ReservedKeys::of`].
    pub fn of_mut(&mut self, account: Position) -> impl Iterator<Item = &mut ReservedKey> {
        self.0.iter_mut().filter(move |reserved| reserved.account == account)
    }
}

impl ReservedKey {
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
    fn a_key_is_released_with_its_last_reservation() {
        let mut reserved = ReservedKeys::default();
        let key = RecipientKey(7);
        assert!(reserved.reserve(1, key));
        assert!(!reserved.reserve(1, key));
        assert!(reserved.reserve(2, key));
        assert_eq!(reserved.release(1, key, 9, || 5), Some(Released { was_looked_up: true, last_seen: None }));
        let last = reserved.release(1, key, 0, || panic!("it is known already"));
        assert_eq!(last, Some(Released { was_looked_up: false, last_seen: Some(Some(9)) }));
        assert!(!reserved.contains(1, key) && reserved.contains(2, key));
        let not_looked_up = reserved.release(2, key, 0, || panic!("nobody asks"));
        assert_eq!(not_looked_up, Some(Released { was_looked_up: false, last_seen: Some(None) }));
        assert_eq!(reserved.release(2, key, 9, || 0), None);
    }
}
