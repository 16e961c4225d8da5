//! Fills the book from a store.

use super::accounts::{StoreNumber, sender_hash};
use super::rolling::{Day, TenMinutes};
use super::shard::Shard;
use super::slab::Position;
use super::{Book, SHARDS};
use crate::clock::Moment;
use crate::directory::SubjectKind;
use crate::ledger::RecipientKey;
use parking_lot::MutexGuard;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;

/// Where an account is in the book. Valid until anything but loading happens.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Place {
    pub shard: u16,
    position: Position,
}

/// An accepted message, as the store kept it.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Loaded {
    pub at: u32,
    pub customer: Place,
    /// False: the customer was reset since then.
    pub customer_counts: bool,
    pub user: Option<Place>,
    pub login: Option<Place>,
    pub recipients: u32,
}

/// Some shards, locked for loading.
pub(in crate::ledger) struct LoadingShards<'a>(Vec<Option<MutexGuard<'a, Shard>>>);

impl Book {
    /// The store has used all lower numbers.
    pub fn number_from(&self, number: u64) {
        self.next_number.fetch_max(number, Ordering::Relaxed);
    }

    /// Opens an account that the store has.
    pub fn open_stored(&self, kind: SubjectKind, customer: &str, name: &str, number: u64) -> Place {
        let hash = self.hasher.hash_one(customer);
        let (shard, locked) = self.shard(hash);
        let accounts = &mut locked.lock().accounts;
        let found = accounts.customers.find(hash, |other| &*other.name == customer);
        let position = found.unwrap_or_else(|| accounts.open_customer(hash, customer.into()));
        let place = |position| Place { shard: shard as u16, position };
        if kind == SubjectKind::Customer {
            accounts.customers[position].store_number = StoreNumber::known(number);
            return place(position);
        }
        let hash = sender_hash(&self.hasher, hash, kind, name);
        let name = name.into();
        let found = accounts.find_sender(position, kind, &name, hash);
        let sender = found.unwrap_or_else(|| accounts.open_sender(position, kind, name, hash));
        accounts.senders[sender].store_number = StoreNumber::known(number);
        place(sender)
    }

    pub fn load_shards(&self, which: impl Fn(usize) -> bool) -> LoadingShards<'_> {
        LoadingShards((0..SHARDS).map(|shard| which(shard).then(|| self.shards[shard].lock())).collect())
    }
}

impl LoadingShards<'_> {
    /// Counts a message, unless it has left all windows. Each account's messages must be counted in their order.
    pub fn count(&mut self, message: &Loaded, keys: &[RecipientKey], now: Moment) {
        let Some(Some(shard)) = self.0.get_mut(message.customer.shard as usize) else { return };
        if message.at <= Day::horizon(now) {
            return;
        }
        if message.customer_counts {
            let customer = &mut shard.accounts.customers[message.customer.position];
            customer.day.push(message.at, message.recipients);
            if message.at > TenMinutes::horizon(now) {
                customer.ten_minutes.push(message.at, message.recipients);
            }
        }
        for place in [message.user, message.login].into_iter().flatten() {
            let sender = &mut shard.accounts.senders[place.position];
            sender.messages.push(message.at, 1);
            keys.iter().for_each(|&key| sender.remembered.refresh(key, message.at, now));
        }
    }
}
