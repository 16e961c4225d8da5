//! Customers that cannot be asked about because their slot is on its way to another server, and stays so.
//!
//! While a slot moves, a request about several keys is answered only where all of them are: elsewhere it is TRYAGAIN (Redis
//! Cluster specification, "Multiple keys operations"). What is not there yet, such as a new customer's or a new user's keys, is
//! nowhere, so that lasts until all of the slot is moved. Such a customer is taken for away, and nobody else of the slot is.

use super::client::Trouble;
use super::connection::{RequestError, TRY};
use super::manager::{ConnectionManager, LOOK_AGAIN};
use super::slots::slot_of;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::{Instant, sleep};

#[derive(Default)]
pub(in crate::ledger::shared) struct SlotMigrations {
    /// By the beginning of all their keys.
    customers: Mutex<BTreeMap<String, Trouble>>,
    are_any: AtomicBool,
}

impl SlotMigrations {
    /// Why the customer that has a key cannot be asked about.
    pub fn trouble(&self, key: &str) -> Option<Trouble> {
        if !self.are_any.load(Ordering::Acquire) {
            return None;
        }
        self.customers.lock().get(customer_of(key)).cloned()
    }

    /// One for each slot.
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut troubles: Vec<Trouble> = self.customers.lock().values().cloned().collect();
        troubles.sort_unstable();
        troubles.dedup();
        troubles
    }

    /// How many customers.
    pub fn len(&self) -> usize {
        self.customers.lock().len()
    }

    /// False: that was known.
    pub fn add(&self, key: &str, why: Trouble) -> bool {
        let mut customers = self.customers.lock();
        self.are_any.store(true, Ordering::Release);
        customers.insert(customer_of(key).to_owned(), why).is_none()
    }

    pub fn remove(&self, key: &str) {
        let mut customers = self.customers.lock();
        customers.remove(customer_of(key));
        self.are_any.store(!customers.is_empty(), Ordering::Release);
    }
}

/// Sees when a customer can be asked about again, by the keys that were asked about in vain.
pub(in crate::ledger::shared) async fn retry_until_moved(manager: Weak<ConnectionManager>, keys: Vec<String>) {
    let Some(key) = keys.first() else { return };
    loop {
        sleep(LOOK_AGAIN).await;
        let Some(manager) = manager.upgrade() else { return };
        if all_on_one_node(&manager, key, &keys).await {
            return manager.has_moved(key);
        }
    }
}

/// Whether one node has all of some keys, or is to have what there is not: a script about them would be run.
async fn all_on_one_node(manager: &ConnectionManager, key: &str, keys: &[String]) -> bool {
    let mut request = redis::cmd("MGET");
    request.arg(keys);
    let deadline = Instant::now() + TRY;
    let Some(node) = manager.topology().node_for(key) else { return false };
    let Ok((_, batcher)) = node.connection(deadline).await else { return false };
    let mut answer = RequestError::or(deadline, batcher.connection().ask(&request)).await;
    if let Err(failure) = &answer
        && let Some((address, for_once)) = failure.redirect()
    {
        let Some(node) = manager.redirected(slot_of(key), address, for_once) else { return false };
        let Ok((_, batcher)) = node.connection(deadline).await else { return false };
        let asking = async {
            match for_once {
                true => batcher.connection().send_for_moving_slot(&request).await?.extract_error(),
                false => batcher.connection().ask(&request).await,
            }
        };
        answer = RequestError::or(deadline, asking).await;
    }
    // Whatever else is wrong with the server the requests themselves come across.
    answer.map_or_else(|failure| failure.is_final(), |_| true)
}

/// All of a customer's keys begin with it.
fn customer_of(key: &str) -> &str {
    key.split_once('}').map_or(key, |(customer, _)| customer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_known_by_each_of_its_keys() {
        let migrations = SlotMigrations::default();
        assert_eq!(migrations.trouble("rk:{a}:c"), None);
        assert!(migrations.add("rk:{a}:u:ann", "slot 1".into()));
        assert!(!migrations.add("rk:{a}:c", "slot 1".into()));
        assert!(migrations.add("rk:{b}:c", "slot 1".into()));
        assert_eq!(migrations.trouble("rk:{a}:c+"), Some("slot 1".into()));
        assert_eq!(migrations.trouble("rk:{ab}:c"), None);
        assert_eq!(migrations.troubles(), [Trouble::from("slot 1")]);
        migrations.remove("rk:{a}:c");
        assert_eq!((migrations.trouble("rk:{a}:c"), migrations.troubles().len()), (None, 1));
        migrations.remove("rk:{b}:c");
        assert!(!migrations.are_any.load(Ordering::Acquire));
    }
}
