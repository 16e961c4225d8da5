//! Nonces: numbers under which messages are counted, so that the server counts each once, however often it is sent.
//!
//! Each commit names the customer's oldest nonce that may still be sent again. The server remembers nonces from that one on,
//! and counts nothing under an older one: such a request was delayed until nobody waited for it any more. The oldest nonce is
//! kept per customer: while a node is unreachable, its customers' nonces stay pending for long, and those of other customers
//! need not be remembered meanwhile.

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

/// One daemon's nonces, ascending.
#[derive(Debug, Default)]
pub(in crate::ledger::shared) struct Nonces(Mutex<Issued>);

#[derive(Debug, Default)]
struct Issued {
    last: u64,
    /// Of each customer those that may be sent again, ascending. A customer without any has no entry.
    pending: HashMap<Arc<str>, SmallVec<[u64; 2]>>,
}

/// A nonce that may be sent again until this is dropped.
#[derive(Debug)]
pub(in crate::ledger::shared) struct Nonce<'a> {
    nonces: &'a Nonces,
    customer: Arc<str>,
    number: u64,
    stays_pending: bool,
}

impl Nonces {
    /// A new one for a customer's message.
    pub fn issue(&self, customer: &Arc<str>) -> Nonce<'_> {
        let mut issued = self.0.lock();
        issued.last += 1;
        let number = issued.last;
        issued.pending.entry(customer.clone()).or_default().push(number);
        Nonce { nonces: self, customer: customer.clone(), number, stays_pending: false }
    }

    /// The customer's oldest nonce that may be sent again: the server counts nothing under older ones.
    pub fn oldest_pending(&self, customer: &str) -> u64 {
        let issued = self.0.lock();
        let numbers = issued.pending.get(customer);
        numbers.and_then(|numbers| numbers.first().copied()).unwrap_or(issued.last + 1)
    }

    /// It will never be sent again.
    pub fn retire(&self, customer: &str, number: u64) {
        let mut issued = self.0.lock();
        let Some(numbers) = issued.pending.get_mut(customer) else { return };
        if let Ok(place) = numbers.binary_search(&number) {
            numbers.remove(place);
        }
        if numbers.is_empty() {
            issued.pending.remove(customer);
        }
    }
}

impl Nonce<'_> {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// It will be sent again later, until [`Nonces::retire`] is called.
    pub fn stay_pending(mut self) -> u64 {
        self.stays_pending = true;
        self.number
    }
}

impl Drop for Nonce<'_> {
    fn drop(&mut self) {
        if !self.stays_pending {
            self.nonces.retire(&self.customer, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_that_may_be_sent_again_are_pending() {
        let nonces = Nonces::default();
        let [acme, bolt] = ["acme", "bolt"].map(Arc::<str>::from);
        let (first, second) = (nonces.issue(&acme), nonces.issue(&acme));
        assert_eq!((first.number(), second.number(), nonces.oldest_pending("acme")), (1, 2, 1));
        drop(first);
        assert_eq!(nonces.oldest_pending("acme"), 2);
        let pending = second.stay_pending();
        drop(nonces.issue(&bolt));
        let oldest = (nonces.oldest_pending("acme"), nonces.oldest_pending("bolt"));
        assert_eq!(oldest, (2, 4), "one customer does not wait for the other");
        nonces.retire("acme", pending);
        assert_eq!(nonces.oldest_pending("acme"), 4);
        assert!(nonces.0.lock().pending.is_empty());
    }
}
