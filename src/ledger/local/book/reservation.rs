//! What one open transaction has reserved.

use super::accounts::{AccountAt, Accounts, TransactionAccounts};
use super::keys::KeySet;
use super::slab::Position;
use crate::clock::Moment;
use crate::ledger::RecipientKey;

/// What one open transaction has reserved: a message and its recipients, on up to three accounts.
#[derive(Debug)]
pub(super) struct Reservation {
    pub started: Moment,
    pub positions: TransactionAccounts,
    customer: Position,
    keys: KeySet,
    unnamed: u32,
}

impl Reservation {
    /// Reserves a message, without recipients yet.
    pub fn start(
        accounts: &mut Accounts,
        now: Moment,
        positions: TransactionAccounts,
        customer: Position,
    ) -> Reservation {
        let reservation = Reservation { started: now, positions, customer, keys: KeySet::default(), unnamed: 0 };
        reservation.senders().for_each(|sender| accounts.senders[sender].reserved += 1);
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

    pub fn has(&self, key: RecipientKey) -> bool {
        self.keys.contains(key)
    }

    /// Reserves one more recipient.
    pub fn add(&mut self, accounts: &mut Accounts, key: RecipientKey) {
        if self.keys.insert(key) {
            accounts.customers[self.customer].reserved += 1;
            self.senders().for_each(|sender| accounts.reserve_key(sender, key));
        }
    }

    /// Reserves exactly these from now on.
    pub fn become_exactly(&mut self, accounts: &mut Accounts, keys: KeySet, unnamed: u32, now: Moment) {
        for &key in keys.as_slice() {
            self.add(accounts, key);
        }
        for &key in self.keys.as_slice() {
            if !keys.contains(key) {
                self.senders().for_each(|sender| accounts.release_key(sender, key, 0, now));
            }
        }
        let before = self.recipients();
        self.keys = keys;
        self.unnamed = unnamed;
        let customer = &mut accounts.customers[self.customer];
        customer.reserved = customer.reserved - before + self.recipients();
    }

    /// Releases everything.
    pub fn release(self, accounts: &mut Accounts, now: Moment) {
        self.end(accounts, 0, now);
    }

    /// Counts everything at the second `at`.
    pub fn count(self, accounts: &mut Accounts, at: u32, now: Moment) {
        let customer = &mut accounts.customers[self.customer];
        let recipients = self.recipients().min(u32::MAX.into()) as u32;
        // Decisions far from the limit do not drop what has expired.
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
        accounts.customers[self.customer].reserved -= self.recipients();
        for sender in self.senders() {
            accounts.senders[sender].reserved -= 1;
            for &key in self.keys.as_slice() {
                accounts.release_key(sender, key, seen, now);
            }
        }
    }

    fn senders(&self) -> impl Iterator<Item = Position> + use<> {
        [self.positions.user, self.positions.login].into_iter().filter_map(|account| match account {
            AccountAt::At(position) => Some(position),
            _ => None,
        })
    }
}
