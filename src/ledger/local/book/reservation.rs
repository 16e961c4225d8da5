//! What one open transaction holds.

use super::accounts::{Accounts, Holder, Holders};
use super::keys::KeySet;
use super::slab::Position;
use crate::clock::Moment;
use crate::ledger::RecipientKey;

/// What one open transaction holds: a message and its recipients, on up to three accounts.
#[derive(Debug)]
pub(super) struct Reservation {
    pub started: Moment,
    pub holders: Holders,
    customer: Position,
    keys: KeySet,
    unnamed: u32,
}

impl Reservation {
    /// Holds a message without recipients, yet.
    pub fn start(accounts: &mut Accounts, now: Moment, holders: Holders, customer: Position) -> Reservation {
        let reservation = Reservation { started: now, holders, customer, keys: KeySet::default(), unnamed: 0 };
        reservation.senders().for_each(|sender| accounts.senders[sender].held += 1);
        reservation
    }

    /// Recipients, named and unnamed.
    pub fn recipients(&self) -> u64 {
        self.keys.len() as u64 + u64::from(self.unnamed)
    }

    pub fn keys(&self) -> &[RecipientKey] {
        self.keys.as_slice()
    }

    pub fn customer(&self) -> Position {
        self.customer
    }

    pub fn holds(&self, key: RecipientKey) -> bool {
        self.keys.contains(key)
    }

    /// Holds one more recipient.
    pub fn add(&mut self, accounts: &mut Accounts, key: RecipientKey) {
        if self.keys.insert(key) {
            accounts.customers[self.customer].held += 1;
            self.senders().for_each(|sender| accounts.hold(sender, key));
        }
    }

    /// Holds exactly these from now on.
    pub fn become_exactly(&mut self, accounts: &mut Accounts, keys: KeySet, unnamed: u32, now: Moment) {
        for &key in keys.as_slice() {
            self.add(accounts, key);
        }
        for &key in self.keys.as_slice() {
            if !keys.contains(key) {
                self.senders().for_each(|sender| accounts.let_go(sender, key, 0, now));
            }
        }
        let before = self.recipients();
        self.keys = keys;
        self.unnamed = unnamed;
        let customer = &mut accounts.customers[self.customer];
        customer.held = customer.held - before + self.recipients();
    }

    /// Gives everything back.
    pub fn release(self, accounts: &mut Accounts, now: Moment) {
        self.end(accounts, 0, now);
    }

    /// Counts everything at the second `at`.
    pub fn count(self, accounts: &mut Accounts, at: u32, now: Moment) {
        let customer = &mut accounts.customers[self.customer];
        let recipients = self.recipients().min(u32::MAX.into()) as u32;
        // Decisions far from the limit leave what has expired where it is.
        customer.day.expire(now);
        customer.ten_minutes.expire(now);
        customer.day.push(at, recipients);
        customer.ten_minutes.push(at, recipients);
        for sender in self.senders() {
            let messages = &mut accounts.senders[sender].messages;
            messages.expire(now);
            messages.push(at, 1);
        }
        self.end(accounts, at, now);
    }

    fn end(self, accounts: &mut Accounts, seen: u32, now: Moment) {
        accounts.customers[self.customer].held -= self.recipients();
        for sender in self.senders() {
            accounts.senders[sender].held -= 1;
            for &key in self.keys.as_slice() {
                accounts.let_go(sender, key, seen, now);
            }
        }
    }

    fn senders(&self) -> impl Iterator<Item = Position> + use<> {
        [self.holders.user, self.holders.login].into_iter().filter_map(|holder| match holder {
            Holder::At(position) => Some(position),
            _ => None,
        })
    }
}
