//! Numbers under which messages are counted, so that the server counts each once, however often it is told.
//!
//! With each the server is told which is the smallest that may yet be sent again. It remembers those from there on, and counts
//! nothing under a smaller one: that was on its way for so long that nobody waits for it any more.

use parking_lot::Mutex;
use std::collections::BTreeSet;

/// One daemon's numbers, ascending.
#[derive(Debug, Default)]
pub(super) struct Nonces(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    last: u64,
    /// May be sent again.
    unsettled: BTreeSet<u64>,
}

/// A number that may be sent again until this is dropped.
#[derive(Debug)]
pub(super) struct Nonce<'a> {
    nonces: &'a Nonces,
    number: u64,
}

impl Nonces {
    pub fn take(&self) -> Nonce<'_> {
        let mut given = self.0.lock();
        given.last += 1;
        let number = given.last;
        given.unsettled.insert(number);
        Nonce { nonces: self, number }
    }

    /// The smallest that may yet be sent again: the server forgets those below.
    pub fn unsettled(&self) -> u64 {
        let given = self.0.lock();
        given.unsettled.first().copied().unwrap_or(given.last + 1)
    }

    /// It is never sent again.
    pub fn settle(&self, number: u64) {
        self.0.lock().unsettled.remove(&number);
    }
}

impl Nonce<'_> {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// It is sent again later; [`Nonces::settle`] has to be called then.
    pub fn keep(self) -> u64 {
        let number = self.number;
        std::mem::forget(self);
        number
    }
}

impl Drop for Nonce<'_> {
    fn drop(&mut self) {
        self.nonces.settle(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_again_is_remembered() {
        let nonces = Nonces::default();
        let first = nonces.take();
        let second = nonces.take();
        assert_eq!((first.number(), second.number(), nonces.unsettled()), (1, 2, 1));
        drop(first);
        assert_eq!(nonces.unsettled(), 2);
        let kept = second.keep();
        assert_eq!(nonces.unsettled(), 2);
        nonces.settle(kept);
        assert_eq!(nonces.unsettled(), 3);
    }
}
