//! The book: all usage and reservations, in memory. Time is an argument; there is no I/O.
//!
//! Customers are spread over shards, each behind a lock of its own; a customer's users and logins are in its shard. So
//! one lock is enough to check all limits of a transaction, then to record it on all of its accounts.

mod accounts;
mod decide;
mod keys;
mod load;
mod prefetch;
mod reservation;
mod rolling;
mod seen_table;
mod shard;
mod slab;
mod take;
mod unique_recipients;

pub(in crate::ledger) use self::load::{Loaded, Place};

use self::accounts::{Accounts, Hashes, sender_hash};
use self::shard::{Committing, HashedParties, Rules, Shard};
use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName, Parties, Subject, SubjectKind};
use crate::ledger::api::{CommitRequest, LookRequest, ReserveRequest, limits_of};
use crate::ledger::ranking::Leaders;
use crate::ledger::{Foreseen, LedgerAnswer, LedgerSize, LimitUsage, RecipientKey, ReservationId};
use hashbrown::DefaultHashBuilder;
use parking_lot::{Mutex, MutexGuard};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Enough that two customers rarely wait for each other, and that no table takes long to grow.
const SHARDS: usize = 128;

/// What [`Book::sweep`] looks at: shards, rounds in each at most, accounts in a round.
const SWEPT_SHARDS: usize = 4;
const SWEEP_ROUNDS: u32 = 16;
const SWEEP_STEPS: u32 = 128;

#[derive(Debug)]
pub(in crate::ledger) struct Book {
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHashBuilder,
    reservation_timeout: Duration,
    /// The number that the store knows the next account by.
    next_number: AtomicU64,
    swept: AtomicUsize,
    /// The numbers of accounts that were dropped, for the store to drop them, too.
    dropped: Mutex<Vec<u64>>,
}

/// When an accepted message is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Counting {
    /// At once; it is nowhere else.
    Only,
    /// At once; the store never loses it.
    Now,
    /// It stays reserved until [`Book::settle`] or [`Book::give_up`] is called with its ticket.
    WhenSettled,
}

/// An accepted message, as the store keeps it.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Entry {
    pub ticket: Ticket,
    /// In seconds, rounded up.
    pub at: u32,
    pub customer_name: Arc<str>,
    pub customer: AccountRow,
    pub user: Option<AccountRow>,
    pub login: Option<AccountRow>,
    pub recipients: u64,
    /// Empty if there is neither user nor login.
    pub keys: Box<[RecipientKey]>,
}

/// An account, by its number in the store.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct AccountRow {
    pub number: u64,
    /// Set as long as the store may not know the account.
    pub name: Option<Arc<str>>,
}

/// Identifies an accepted message that is not settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Ticket {
    shard: u32,
    number: u64,
}

impl Book {
    pub fn new(reservation_timeout: Duration) -> Book {
        Book {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            reservation_timeout,
            next_number: AtomicU64::new(1),
            swept: AtomicUsize::new(0),
            dropped: Mutex::default(),
        }
    }

    /// Has the processor fetch a transaction's accounts.
    pub fn foresee(&self, parties: &Parties, when: Foreseen) {
        let hashes = Hashes::of(&self.hasher, parties);
        let shard = self.shard(hashes.customer).1.lock();
        match when {
            Foreseen::Soon => shard.accounts.fetch_index(&hashes),
            Foreseen::Next => shard.accounts.fetch(&hashes),
        }
    }

    pub fn reserve(&self, now: Moment, request: ReserveRequest<'_>) -> LedgerAnswer {
        let who = self.hashed(request.parties, request.limits);
        let (now, _, mut shard) = self.enter(now, who.hashes.customer);
        shard.accounts.fetch(&who.hashes);
        let answer = shard.reserve(now, request.id, &who, request.recipient, &self.rules());
        self.note_dropped(&mut shard);
        answer
    }

    pub fn look(&self, now: Moment, request: LookRequest<'_>) -> LedgerAnswer {
        let who = self.hashed(request.parties, request.limits);
        let (now, _, mut shard) = self.enter(now, who.hashes.customer);
        shard.look(now, request.own, &who, request.recipients)
    }

    /// Ends a reservation, if there is one; what it does not cover is checked against the limits again. What fits is handed to
    /// `record`, before anything else happens to the customer.
    pub fn commit(
        &self,
        now: Moment,
        request: CommitRequest<'_>,
        counting: Counting,
        record: impl FnOnce(Entry),
    ) -> LedgerAnswer {
        let who = self.hashed(request.parties, request.limits);
        let (now, place, mut shard) = self.enter(now, who.hashes.customer);
        shard.accounts.fetch(&who.hashes);
        let how = Committing { counting, shard: place, numbers: &self.next_number };
        let (answer, entry) = shard.commit(now, request.id, &who, request.recipients, &how, &self.rules());
        if let Some(entry) = entry {
            record(entry);
        }
        self.note_dropped(&mut shard);
        answer
    }

    /// Counts an accepted message that is on disk now.
    pub fn settle(&self, ticket: Ticket, at: u32) {
        self.shards[ticket.shard as usize].lock().settle(ticket.number, at);
    }

    /// Releases an accepted message that could not be written.
    pub fn give_up(&self, ticket: Ticket) {
        self.shards[ticket.shard as usize].lock().give_up(ticket.number);
    }

    /// Releases a reservation, if there is one.
    pub fn release(&self, id: ReservationId, parties: &Parties) {
        self.shard(self.hasher.hash_one(&*parties.customer)).1.lock().release(id);
    }

    pub fn usage(&self, now: Moment, subject: &Subject, limits: &CustomerLimits) -> Vec<LimitUsage> {
        let hash = self.hasher.hash_one(&*subject.customer);
        let (now, _, mut shard) = self.enter(now, hash);
        let accounts = &mut shard.accounts;
        let customer = accounts.customers.find(hash, |customer| customer.name == subject.customer);
        let sender = customer.and_then(|customer| {
            let hash = sender_hash(&self.hasher, hash, subject.kind, &subject.name);
            accounts.find_sender(customer, subject.kind, &subject.name, hash)
        });
        let usage = |limit: LimitName| {
            let max = limits.counted(limit).max;
            let allowed = max.unwrap_or(u64::MAX).saturating_sub(1);
            let (used, reserved, falls) = match (limit, customer, sender) {
                (LimitName::CustomerPeak, Some(position), _) => {
                    let customer = &mut accounts.customers[position];
                    let window = &mut customer.ten_minutes;
                    (window.total(now), customer.reserved, window.falls_to(allowed, now))
                }
                (LimitName::CustomerDay, Some(position), _) => {
                    let customer = &mut accounts.customers[position];
                    (customer.day.total(now), customer.reserved, customer.day.falls_to(allowed, now))
                }
                (LimitName::UserMessages | LimitName::LoginMessages, _, Some(position)) => {
                    let sender = &mut accounts.senders[position];
                    (sender.messages.total(now), sender.reserved.into(), sender.messages.falls_to(allowed, now))
                }
                (LimitName::UserUniques | LimitName::LoginUniques, _, Some(position)) => {
                    accounts.uniques_usage(position, allowed, now)
                }
                _ => (0, 0, now),
            };
            let is_full = max.is_some_and(|max| max > 0 && used >= max);
            LimitUsage { limit, used, reserved, max, resets_at: is_full.then_some(falls) }
        };
        limits_of(subject.kind).iter().copied().map(usage).collect()
    }

    /// Forgets a subject's usage; reservations stay. `record` gets its number in the store, and is called before anything else
    /// happens to the customer.
    pub fn reset(&self, subject: &Subject, record: impl FnOnce(Option<u64>)) {
        let hash = self.hasher.hash_one(&*subject.customer);
        let mut shard = self.shard(hash).1.lock();
        let accounts = &mut shard.accounts;
        let found = self.find_subject(accounts, hash, subject);
        record(found.and_then(|(_, row)| row));
        match found {
            Some((customer, _)) if subject.kind == SubjectKind::Customer => {
                accounts.customers[customer].day.clear();
                accounts.customers[customer].ten_minutes.clear();
            }
            Some((sender, _)) => accounts.forget_sender(sender),
            None => {}
        }
    }

    /// A subject's number in the store, if it was ever counted.
    pub fn number_of(&self, subject: &Subject) -> Option<u64> {
        let hash = self.hasher.hash_one(&*subject.customer);
        let mut shard = self.shard(hash).1.lock();
        self.find_subject(&mut shard.accounts, hash, subject).and_then(|(_, row)| row)
    }

    fn find_subject(&self, accounts: &mut Accounts, hash: u64, subject: &Subject) -> Option<(u32, Option<u64>)> {
        let customer = accounts.customers.find(hash, |customer| customer.name == subject.customer)?;
        let (position, row) = if subject.kind == SubjectKind::Customer {
            (customer, accounts.customers[customer].store_number)
        } else {
            let hash = sender_hash(&self.hasher, hash, subject.kind, &subject.name);
            let sender = accounts.find_sender(customer, subject.kind, &subject.name, hash)?;
            (sender, accounts.senders[sender].store_number)
        };
        Some((position, Some(row.number()).filter(|&number| number > 0)))
    }

    /// Looks at some accounts, and drops those without usage and reservations. Returns the store's numbers of all that were dropped
    /// since the last call.
    pub fn sweep(&self, now: Moment) -> Vec<u64> {
        for _ in 0..SWEPT_SHARDS {
            let place = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let accounts = self.shards[place].lock().accounts.end();
            for _ in 0..accounts.div_ceil(SWEEP_STEPS).min(SWEEP_ROUNDS) {
                // The lock is released between rounds, so that nobody waits for long.
                let mut shard = self.shards[place].lock();
                let now = shard.pass_time(now, self.reservation_timeout);
                shard.accounts.sweep(SWEEP_STEPS, now, &self.hasher);
                self.note_dropped(&mut shard);
            }
        }
        std::mem::take(&mut *self.dropped.lock())
    }

    fn note_dropped(&self, shard: &mut Shard) {
        if !shard.accounts.dropped.is_empty() {
            self.dropped.lock().append(&mut shard.accounts.dropped);
        }
    }

    /// Offers all subjects that have used something of a limit for a ranking.
    pub fn rank(&self, now: Moment, limit: LimitName, leaders: &mut Leaders) {
        let mut used = Vec::new();
        for place in &self.shards {
            let mut position = 0;
            loop {
                // A few at a time, so that nobody waits for long.
                let mut shard = place.lock();
                let now = shard.pass_time(now, self.reservation_timeout);
                let end = shard.accounts.end();
                for position in position..end.min(position + SWEEP_STEPS) {
                    let found = shard.accounts.used(position, limit, now).filter(|(_, used)| *used > 0);
                    used.extend(found.map(|(subject, used)| (subject(), used)));
                }
                drop(shard);
                used.drain(..).for_each(|(subject, used)| leaders.offer(subject, used));
                position += SWEEP_STEPS;
                if position >= end {
                    break;
                }
            }
        }
    }

    /// How many customers, users and logins there are, and how many transactions are open.
    pub fn size(&self) -> LedgerSize {
        let mut size = LedgerSize::default();
        for shard in &self.shards {
            let shard = shard.lock();
            size.customers += shard.accounts.customers.len();
            size.senders += shard.accounts.senders.len();
            size.open += shard.open_reservations();
        }
        size
    }

    fn hashed<'a>(&self, parties: &'a Parties, limits: &'a CustomerLimits) -> HashedParties<'a> {
        HashedParties { parties, hashes: Hashes::of(&self.hasher, parties), limits }
    }

    fn rules(&self) -> Rules<'_> {
        Rules { timeout: self.reservation_timeout, hasher: &self.hasher }
    }

    fn enter(&self, now: Moment, customer_hash: u64) -> (Moment, u32, MutexGuard<'_, Shard>) {
        let (place, shard) = self.shard(customer_hash);
        let mut shard = shard.lock();
        let now = shard.pass_time(now, self.reservation_timeout);
        (now, place, shard)
    }

    fn shard(&self, customer_hash: u64) -> (u32, &Mutex<Shard>) {
        // The half of the hash that the shard's own indexes do not use.
        let place = customer_hash as usize % SHARDS;
        (place as u32, &self.shards[place])
    }
}
