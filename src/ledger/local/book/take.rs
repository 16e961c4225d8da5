//! Takes usage out of the book: somebody else counts it from then on.

use super::Book;
use super::shard::Shard;
use crate::clock::Moment;
use crate::directory::{Subject, SubjectKind};
use std::hash::BuildHasher;
use std::sync::Arc;

impl Book {
    /// Forgets the usage of a customer, its users and its logins, and returns it: of the customer recipients in a day and in ten
    /// minutes, of the others messages and unique recipients. Reservations stay.
    pub fn take_counted(&self, now: Moment, customer: &Arc<str>) -> Vec<(Subject, [u64; 2])> {
        let hash = self.hasher.hash_one(&**customer);
        let (now, _, mut shard) = self.enter(now, hash);
        let Shard { accounts, .. } = &mut *shard;
        let Some(position) = accounts.customers.find(hash, |other| other.name == *customer) else { return Vec::new() };
        let subject = |kind, name: &Arc<str>| Subject { kind, customer: customer.clone(), name: name.clone() };
        let account = &mut accounts.customers[position];
        let used = [account.day.total(now), account.ten_minutes.total(now)];
        account.day.clear();
        account.ten_minutes.clear();
        let mut taken = vec![(subject(SubjectKind::Customer, customer), used)];
        for place in 0..accounts.senders.end() {
            if accounts.senders.get(place).is_none_or(|sender| sender.customer != position) {
                continue;
            }
            let (uniques, ..) = accounts.uniques_usage(place, u64::MAX, now);
            let sender = &mut accounts.senders[place];
            taken.push((subject(sender.kind, &sender.name), [sender.messages.total(now), uniques]));
            accounts.forget_sender(place);
        }
        taken.retain(|(_, used)| used.iter().any(|&used| used > 0));
        taken
    }
}
