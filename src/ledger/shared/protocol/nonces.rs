//! Numbers under which messages are counted, so that the server counts each once, however often it is told.
//!
//! With each the server is told which is the customer's smallest that may yet be sent again. It remembers those from there on,
//! and counts nothing under a smaller one: that was on its way for so long that nobody waits for it any more. Each customer
//! has its own: where a part of the store is away numbers wait for long, and others' are not to be remembered meanwhile.

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

/// One daemon's numbers, ascending.
#[derive(Debug, Default)]
pub(in crate::ledger::shared) struct Nonces(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    last: u64,
    /// Of each customer those that may be sent again, ascending; of none that has none.
    unsettled: HashMap<Arc<str>, SmallVec<[u64; 2]>>,
}

/// A number that may be sent again until this is dropped.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Nonce<'a> {
    nonces: &'a Nonces,
    customer: Arc<str>,
    number: u64,
    is_kept: bool,
}

impl Nonces {
    /// For a message of a customer.
    pub fn take(&self, customer: &Arc<str>) -> Nonce<'_> {
        let mut given = self.0.lock();
        given.last += 1;
        let number = given.last;
        given.unsettled.entry(customer.clone()).or_default().push(number);
        Nonce { nonces: self, customer: customer.clone(), number, is_kept: false }
    }

    /// The customer's smallest that may yet be sent again: the server counts nothing below.
    pub fn unsettled(&self, customer: &str) -> u64 {
        let given = self.0.lock();
        let numbers = given.unsettled.get(customer);
        numbers.and_then(|numbers| numbers.first().copied()).unwrap_or(given.last + 1)
    }

    /// It is never sent again.
    pub fn settle(&self, customer: &str, number: u64) {
        let mut given = self.0.lock();
        let Some(numbers) = given.unsettled.get_mut(customer) else { return };
        if let Ok(place) = numbers.binary_search(&number) {
            numbers.remove(place);
        }
        if numbers.is_empty() {
            given.unsettled.remove(customer);
        }
    }
}

impl Nonce<'_> {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// It is sent again later; [`Nonces::settle`] has to be called then.
    pub fn keep(mut self) -> u64 {
        self.is_kept = true;
        self.number
    }
}

impl Drop for Nonce<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.nonces.settle(&self.customer, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_again_is_remembered() {
        let nonces = Nonces::default();
        let [acme, bolt] = ["acme", "bolt"].map(Arc::<str>::from);
        let (first, second) = (nonces.take(&acme), nonces.take(&acme));
        assert_eq!((first.number(), second.number(), nonces.unsettled("acme")), (1, 2, 1));
        drop(first);
        assert_eq!(nonces.unsettled("acme"), 2);
        let kept = second.keep();
        drop(nonces.take(&bolt));
        assert_eq!((nonces.unsettled("acme"), nonces.unsettled("bolt")), (2, 4), "one does not wait for the other");
        nonces.settle("acme", kept);
        assert_eq!(nonces.unsettled("acme"), 4);
        assert!(nonces.0.lock().unsettled.is_empty());
    }
}
