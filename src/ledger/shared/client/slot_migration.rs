//! Customers that cannot be served because their slot is migrating, and their keys stay divided between two nodes.
//!
//! While a slot migrates, a request for several keys is served only by a node that has all of them; elsewhere it gets TRYAGAIN
//! (Redis Cluster specification, "Multiple keys operations"). Once the old node has none of them it sends requests to the new one
//! (ASK), where the client creates those that are missing. But while the old node still has the keys of a customer, a new user of
//! that customer has its keys on neither, and the old node creates none. Such a customer counts as unreachable; the slot's other
//! customers do not.

use crate::ledger::StoreError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(super) struct BlockedCustomers {
    /// By the common beginning of their keys: the slot, and the error that their requests get.
    customers: Mutex<BTreeMap<String, (u16, StoreError)>>,
    is_any: AtomicBool,
}

impl BlockedCustomers {
    /// Why the customer that a key belongs to cannot be served.
    pub fn error(&self, key: &str) -> Option<StoreError> {
        if !self.is_any.load(Ordering::Acquire) {
            return None;
        }
        self.customers.lock().get(customer_of(key)).map(|(_, error)| error.clone())
    }

    /// One error for each slot.
    pub fn errors(&self) -> Vec<StoreError> {
        let by_slot: BTreeMap<u16, StoreError> = self.customers.lock().values().cloned().collect();
        by_slot.into_values().collect()
    }

    /// Whether a customer of a slot is blocked.
    pub fn has_any_in(&self, slot: u16) -> bool {
        self.is_any.load(Ordering::Acquire) && self.customers.lock().values().any(|(other, _)| *other == slot)
    }

    /// How many customers.
    pub fn len(&self) -> usize {
        self.customers.lock().len()
    }

    /// Blocks the customer that a key belongs to. Whether it was not blocked before.
    pub fn add(&self, key: &str, slot: u16) -> (StoreError, bool) {
        let error = StoreError::transient(format!("slot {slot} is migrating, and some of its keys cannot be used yet"));
        let mut customers = self.customers.lock();
        self.is_any.store(true, Ordering::Release);
        let is_new = customers.insert(customer_of(key).to_owned(), (slot, error.clone())).is_none();
        (error, is_new)
    }

    pub fn remove(&self, key: &str) {
        let mut customers = self.customers.lock();
        customers.remove(customer_of(key));
        self.is_any.store(!customers.is_empty(), Ordering::Release);
    }
}

/// All keys of a customer begin with it.
fn customer_of(key: &str) -> &str {
    key.split_once('}').map_or(key, |(customer, _)| customer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_known_by_each_of_its_keys() {
        let blocked = BlockedCustomers::default();
        let error = |key| blocked.error(key).map(|error| error.to_string());
        assert_eq!(error("rk:{a}:c"), None);
        assert!(blocked.add("rk:{a}:u:ann", 1).1);
        assert!(!blocked.add("rk:{a}:c", 1).1);
        assert!(blocked.add("rk:{b}:c", 1).1);
        assert!(error("rk:{a}:c+").is_some_and(|error| error.starts_with("slot 1 is migrating")));
        assert_eq!(error("rk:{ab}:c"), None);
        assert_eq!((blocked.errors().len(), blocked.len()), (1, 2));
        assert!(blocked.has_any_in(1) && !blocked.has_any_in(2));
        blocked.remove("rk:{a}:c");
        assert_eq!((error("rk:{a}:c"), blocked.errors().len()), (None, 1));
        blocked.remove("rk:{b}:c");
        assert!(!blocked.is_any.load(Ordering::Acquire));
    }
}
