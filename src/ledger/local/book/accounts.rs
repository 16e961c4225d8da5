//! Usage and reservations of each customer, user and login.

use super::keys::{Released, ReservedKeys};
use super::rolling::{Day, TenMinutes};
use super::slab::{Position, Slab};
use super::unique_recipients::UniqueRecipients;
use crate::clock::Moment;
use crate::directory::{LimitName, Parties, Subject, SubjectKind};
use crate::ledger::RecipientKey;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The accounts of some customers, and of all their users and logins.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub customers: Slab<Customer>,
    pub senders: Slab<Sender>,
    /// Recipients reserved by open transactions, on the accounts of senders.
    pub reserved: ReservedKeys,
    /// Numbers of accounts that were dropped, for the store to drop them too.
    pub dropped: Vec<u64>,
    sweep_at: (Position, Position),
}

/// Three cache lines.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Customer {
    pub name: Arc<str>,
    pub store_number: StoreNumber,
    /// Recipients, repeats too.
    pub day: Day,
    pub ten_minutes: TenMinutes,
    /// Recipients reserved by open transactions.
    pub reserved: u64,
    /// How many senders refer to it.
    pub senders: u32,
}

/// A user or a login: two cache lines, which come together.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Sender {
    pub name: Arc<str>,
    pub store_number: StoreNumber,
    pub messages: Day,
    pub remembered: UniqueRecipients,
    pub customer: Position,
    /// Messages reserved: the open transactions.
    pub reserved: u32,
    /// Unique recipients reserved by open transactions.
    pub keys_reserved: u32,
    /// How many of them nobody has looked up: they may be among the remembered recipients, too.
    pub not_looked_up: u32,
    pub kind: SubjectKind,
}

/// The number that the store knows an account by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreNumber {
    /// 0: it has no number yet.
    number: u64,
}

/// The top bit says that the store knows the number: one word, as there are millions of accounts.
const KNOWN: u64 = 1 << 63;

impl StoreNumber {
    pub fn known(number: u64) -> StoreNumber {
        StoreNumber { number: number | KNOWN }
    }

    pub fn number(&self) -> u64 {
        self.number & !KNOWN
    }

    pub fn is_known(&self) -> bool {
        self.number & KNOWN != 0
    }

    pub fn number_or(&mut self, new: impl FnOnce() -> u64) -> u64 {
        if self.number == 0 {
            self.number = new() & !KNOWN;
        }
        self.number()
    }

    pub fn make_known(&mut self) {
        self.number |= KNOWN;
    }
}

impl Sender {
    /// An upper bound of the unique recipients that are used and reserved. The true number may be lower: some may have expired, and
    /// those that are [not looked up](Sender::not_looked_up) may be in it twice.
    pub fn uniques_at_most(&self) -> u64 {
        self.remembered.at_most() + u64::from(self.keys_reserved)
    }
}

/// Where a transaction's accounts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TransactionAccounts {
    pub customer: Option<Position>,
    pub user: AccountAt,
    pub login: AccountAt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccountAt {
    /// The transaction has no such party.
    Nobody,
    /// The party has no account yet.
    Fresh,
    At(Position),
}

impl TransactionAccounts {
    /// The sender's account that a limit applies to; nobody's for the customer's own limits.
    pub fn of(&self, limit: LimitName) -> AccountAt {
        match SubjectKind::of(limit) {
            SubjectKind::User => self.user,
            SubjectKind::Login => self.login,
            SubjectKind::Customer => AccountAt::Nobody,
        }
    }
}

/// Hashes of the names of a transaction's parties.
pub(super) struct Hashes {
    pub customer: u64,
    user: u64,
    login: u64,
}

impl Hashes {
    pub fn of(hasher: &impl BuildHasher, parties: &Parties) -> Hashes {
        let customer = hasher.hash_one(&*parties.customer);
        let sender =
            |kind, name: &Option<Arc<str>>| name.as_ref().map_or(0, |name| sender_hash(hasher, customer, kind, name));
        Hashes {
            customer,
            user: sender(SubjectKind::User, &parties.user),
            login: sender(SubjectKind::Login, &parties.login),
        }
    }
}

pub(super) fn sender_hash(hasher: &impl BuildHasher, customer: u64, kind: SubjectKind, name: &str) -> u64 {
    let own = hasher.hash_one(name) ^ customer.rotate_left(kind as u32 + 1);
    own.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ own >> 32
}

impl Accounts {
    /// Has the processor fetch the index entries of a transaction's accounts.
    pub fn fetch_index(&self, hashes: &Hashes) {
        self.customers.fetch_index(hashes.customer);
        self.senders.fetch_index(hashes.user);
        self.senders.fetch_index(hashes.login);
    }

    /// Has the processor fetch the accounts themselves, all at once: with a million, each access misses the caches, and one after
    /// the other they would take longer than all else.
    pub fn fetch(&self, hashes: &Hashes) {
        self.fetch_index(hashes);
        self.customers.fetch_value(hashes.customer);
        self.senders.fetch_value(hashes.user);
        self.senders.fetch_value(hashes.login);
    }

    pub fn find(&mut self, parties: &Parties, hashes: &Hashes) -> TransactionAccounts {
        let customer = self.customers.find(hashes.customer, |customer| same(&customer.name, &parties.customer));
        if let Some(customer) = customer {
            share(&mut self.customers[customer].name, &parties.customer);
        }
        let user = self.find_account(customer, SubjectKind::User, &parties.user, hashes.user);
        let login = self.find_account(customer, SubjectKind::Login, &parties.login, hashes.login);
        TransactionAccounts { customer, user, login }
    }

    fn find_account(
        &mut self,
        customer: Option<Position>,
        kind: SubjectKind,
        name: &Option<Arc<str>>,
        hash: u64,
    ) -> AccountAt {
        let Some(name) = name else { return AccountAt::Nobody };
        let Some(customer) = customer else { return AccountAt::Fresh };
        self.find_sender(customer, kind, name, hash).map_or(AccountAt::Fresh, AccountAt::At)
    }

    pub fn find_sender(
        &mut self,
        customer: Position,
        kind: SubjectKind,
        name: &Arc<str>,
        hash: u64,
    ) -> Option<Position> {
        let is = |sender: &Sender| sender.customer == customer && sender.kind == kind && same(&sender.name, name);
        let position = self.senders.find(hash, is)?;
        share(&mut self.senders[position].name, name);
        Some(position)
    }

    /// Opens the accounts that are missing.
    pub fn open(&mut self, positions: TransactionAccounts, parties: &Parties, hashes: &Hashes) -> TransactionAccounts {
        let customer =
            positions.customer.unwrap_or_else(|| self.open_customer(hashes.customer, parties.customer.clone()));
        let mut open = |account, kind, name: &Option<Arc<str>>, hash| match (account, name) {
            (AccountAt::Fresh, Some(name)) => AccountAt::At(self.open_sender(customer, kind, name.clone(), hash)),
            _ => account,
        };
        let user = open(positions.user, SubjectKind::User, &parties.user, hashes.user);
        let login = open(positions.login, SubjectKind::Login, &parties.login, hashes.login);
        TransactionAccounts { customer: Some(customer), user, login }
    }

    pub fn open_customer(&mut self, hash: u64, name: Arc<str>) -> Position {
        let (day, ten_minutes) = (Day::default(), TenMinutes::default());
        let store_number = StoreNumber::default();
        self.customers.insert(hash, Customer { name, store_number, day, ten_minutes, reserved: 0, senders: 0 })
    }

    pub fn open_sender(&mut self, customer: Position, kind: SubjectKind, name: Arc<str>, hash: u64) -> Position {
        self.customers[customer].senders += 1;
        let sender = Sender {
            name,
            store_number: StoreNumber::default(),
            messages: Day::default(),
            remembered: UniqueRecipients::default(),
            customer,
            reserved: 0,
            keys_reserved: 0,
            not_looked_up: 0,
            kind,
        };
        self.senders.insert(hash, sender)
    }

    /// Reserves a recipient on a sender's account. Whether it was seen before is not looked up: far from the limit nobody needs to
    /// know.
    pub fn reserve_key(&mut self, sender: Position, key: RecipientKey) {
        if self.reserved.reserve(sender, key) {
            let account = &mut self.senders[sender];
            account.keys_reserved += 1;
            account.not_looked_up += 1;
        }
    }

    /// Releases a reserved recipient. `seen`: the second when it was sent to; 0: it was not.
    pub fn release_key(&mut self, sender: Position, key: RecipientKey, seen: u32, now: Moment) {
        let account = &mut self.senders[sender];
        let read = || account.remembered.take(key, now).unwrap_or(0);
        let Some(Released { was_looked_up, last_seen }) = self.reserved.release(sender, key, seen, read) else {
            return;
        };
        account.not_looked_up -= u32::from(was_looked_up);
        match last_seen {
            None => return,
            // It is still among the remembered recipients, if it ever was.
            Some(None) => account.not_looked_up -= 1,
            Some(Some(0)) => {}
            Some(Some(at)) => account.remembered.put(key, at, now),
        }
        account.keys_reserved -= 1;
    }

    /// Looks up all recipients that are reserved on an account among the remembered ones: from then on each is in one place only.
    pub fn look_up_reserved(&mut self, sender: Position, now: Moment) {
        let account = &mut self.senders[sender];
        if std::mem::take(&mut account.not_looked_up) == 0 {
            return;
        }
        for reserved in self.reserved.of_mut(sender) {
            reserved.last_seen.get_or_insert_with(|| account.remembered.take(reserved.key, now).unwrap_or(0));
        }
    }

    /// Forgets a sender's usage; reservations stay.
    pub fn forget_sender(&mut self, sender: Position) {
        let account = &mut self.senders[sender];
        account.messages.clear();
        account.remembered.clear();
        account.not_looked_up = 0;
        self.reserved.of_mut(sender).for_each(|reserved| reserved.last_seen = Some(0));
    }

    /// Whose account is at a position, if such a limit applies to it, and how much of it is used.
    pub fn used(&mut self, position: Position, limit: LimitName, now: Moment) -> Option<(impl Fn() -> Subject, u64)> {
        let kind = SubjectKind::of(limit);
        let (customer, name, used) = if kind == SubjectKind::Customer {
            let customer = self.customers.get_mut(position)?;
            let used = match limit {
                LimitName::CustomerPeak => customer.ten_minutes.total(now),
                _ => customer.day.total(now),
            };
            (&customer.name, &customer.name, used)
        } else {
            let sender = self.senders.get_mut(position).filter(|sender| sender.kind == kind)?;
            let used = match limit {
                LimitName::UserMessages | LimitName::LoginMessages => sender.messages.total(now),
                // Without some of those that are reserved at the moment.
                _ => sender.remembered.count(now),
            };
            (&self.customers[sender.customer].name, &sender.name, used)
        };
        Some((move || Subject { kind, customer: customer.clone(), name: name.clone() }, used))
    }

    /// The positions that a complete sweep looks at.
    pub fn end(&self) -> Position {
        self.senders.end().max(self.customers.end())
    }

    /// Looks at the next few accounts, and drops those without usage and reservations.
    pub fn sweep(&mut self, steps: u32, now: Moment, hasher: &impl BuildHasher) {
        for _ in 0..steps {
            self.sweep_sender(now, hasher);
            self.sweep_customer(now, hasher);
        }
    }

    fn sweep_sender(&mut self, now: Moment, hasher: &impl BuildHasher) {
        let position = next(&mut self.sweep_at.0, self.senders.end());
        let Some(sender) = self.senders.get_mut(position) else { return };
        if sender.reserved > 0 || sender.keys_reserved > 0 {
            return;
        }
        sender.messages.expire(now);
        sender.remembered.tidy(now);
        if !sender.messages.is_empty() || !sender.remembered.is_empty() {
            return;
        }
        let customer = hasher.hash_one(&*self.customers[sender.customer].name);
        let hash = sender_hash(hasher, customer, sender.kind, &sender.name);
        if let Some(sender) = self.senders.remove(hash, position) {
            self.customers[sender.customer].senders -= 1;
            self.note_dropped(sender.store_number);
        }
    }

    fn sweep_customer(&mut self, now: Moment, hasher: &impl BuildHasher) {
        let position = next(&mut self.sweep_at.1, self.customers.end());
        let Some(customer) = self.customers.get_mut(position) else { return };
        customer.day.expire(now);
        customer.ten_minutes.expire(now);
        let used = customer.reserved > 0 || customer.senders > 0;
        if used || !customer.day.is_empty() || !customer.ten_minutes.is_empty() {
            return;
        }
        let hash = hasher.hash_one(&*customer.name);
        if let Some(customer) = self.customers.remove(hash, position) {
            self.note_dropped(customer.store_number);
        }
    }

    fn note_dropped(&mut self, number: StoreNumber) {
        if number.is_known() {
            self.dropped.push(number.number());
        }
    }
}

/// Most names come from the one directory, so their addresses are equal.
fn same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Keeps the directory's copy instead of its own one: less memory, and next time it is found without being read.
fn share(name: &mut Arc<str>, other: &Arc<str>) {
    if !Arc::ptr_eq(name, other) {
        *name = other.clone();
    }
}

fn next(at: &mut Position, end: Position) -> Position {
    let position = if *at < end { *at } else { 0 };
    *at = position + 1;
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_takes_two_cache_lines() {
        assert_eq!(size_of::<Option<Sender>>(), 128);
    }
}
