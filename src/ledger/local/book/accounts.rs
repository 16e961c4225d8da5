//! What is counted and held for each customer, user and login.

use super::keys::{HeldKeys, LetGo};
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
    /// Recipients held by open transactions, on the accounts of senders.
    pub held: HeldKeys,
    /// Numbers of accounts that were dropped, for the store to drop them too.
    pub dropped: Vec<u64>,
    sweep_at: (Position, Position),
}

/// Three cache lines.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Customer {
    pub name: Arc<str>,
    pub line: StoredAs,
    /// Recipients, repeats too.
    pub day: Day,
    pub ten_minutes: TenMinutes,
    /// Recipients held by open transactions.
    pub held: u64,
    /// How many senders refer to it.
    pub senders: u32,
}

/// A user or a login: two cache lines, which come together.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Sender {
    pub name: Arc<str>,
    pub line: StoredAs,
    pub messages: Day,
    pub remembered: UniqueRecipients,
    pub customer: Position,
    /// Messages held: the open transactions.
    pub held: u32,
    /// Different recipients held by open transactions.
    pub keys_held: u32,
    /// So many of them may be among the remembered too.
    pub unread: u32,
    pub kind: SubjectKind,
}

/// What the store calls an account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoredAs {
    /// 0: it has no number yet.
    number: u64,
}

/// The top bit tells that the store knows the number, so that there is room for millions.
const KNOWN: u64 = 1 << 63;

impl StoredAs {
    pub fn known(number: u64) -> StoredAs {
        StoredAs { number: number | KNOWN }
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
    /// No more different recipients than so many are counted and held. The true number may be lower: some may have expired,
    /// and what is held and [unread](Sender::unread) may be in it twice.
    pub fn uniques_at_most(&self) -> u64 {
        self.remembered.at_most() + u64::from(self.keys_held)
    }
}

/// Where the accounts of a transaction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holders {
    pub customer: Option<Position>,
    pub user: Holder,
    pub login: Holder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The transaction has none.
    Nobody,
    /// It has one that nothing is known of.
    Fresh,
    At(Position),
}

impl Holders {
    /// Whose account such a limit is about; of the customer's own it is not told here.
    pub fn of(&self, limit: LimitName) -> Holder {
        match SubjectKind::of(limit) {
            SubjectKind::User => self.user,
            SubjectKind::Login => self.login,
            SubjectKind::Customer => Holder::Nobody,
        }
    }
}

/// Hashes of a transaction's names.
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
    /// Has the processor fetch what leads to a transaction's accounts.
    pub fn fetch_index(&self, hashes: &Hashes) {
        self.customers.fetch_index(hashes.customer);
        self.senders.fetch_index(hashes.user);
        self.senders.fetch_index(hashes.login);
    }

    /// Has it fetch the accounts themselves, all at once: with a million, each is in memory that no cache holds, and one after
    /// the other they would take longer than all else.
    pub fn fetch(&self, hashes: &Hashes) {
        self.fetch_index(hashes);
        self.customers.fetch_value(hashes.customer);
        self.senders.fetch_value(hashes.user);
        self.senders.fetch_value(hashes.login);
    }

    pub fn find(&mut self, parties: &Parties, hashes: &Hashes) -> Holders {
        let customer = self.customers.find(hashes.customer, |customer| same(&customer.name, &parties.customer));
        if let Some(customer) = customer {
            share(&mut self.customers[customer].name, &parties.customer);
        }
        let user = self.find_holder(customer, SubjectKind::User, &parties.user, hashes.user);
        let login = self.find_holder(customer, SubjectKind::Login, &parties.login, hashes.login);
        Holders { customer, user, login }
    }

    fn find_holder(
        &mut self,
        customer: Option<Position>,
        kind: SubjectKind,
        name: &Option<Arc<str>>,
        hash: u64,
    ) -> Holder {
        let Some(name) = name else { return Holder::Nobody };
        let Some(customer) = customer else { return Holder::Fresh };
        self.find_sender(customer, kind, name, hash).map_or(Holder::Fresh, Holder::At)
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
    pub fn open(&mut self, holders: Holders, parties: &Parties, hashes: &Hashes) -> Holders {
        let customer =
            holders.customer.unwrap_or_else(|| self.open_customer(hashes.customer, parties.customer.clone()));
        let mut open = |holder, kind, name: &Option<Arc<str>>, hash| match (holder, name) {
            (Holder::Fresh, Some(name)) => Holder::At(self.open_sender(customer, kind, name.clone(), hash)),
            _ => holder,
        };
        let user = open(holders.user, SubjectKind::User, &parties.user, hashes.user);
        let login = open(holders.login, SubjectKind::Login, &parties.login, hashes.login);
        Holders { customer: Some(customer), user, login }
    }

    pub fn open_customer(&mut self, hash: u64, name: Arc<str>) -> Position {
        let (day, ten_minutes) = (Day::default(), TenMinutes::default());
        let line = StoredAs::default();
        self.customers.insert(hash, Customer { name, line, day, ten_minutes, held: 0, senders: 0 })
    }

    pub fn open_sender(&mut self, customer: Position, kind: SubjectKind, name: Arc<str>, hash: u64) -> Position {
        self.customers[customer].senders += 1;
        let sender = Sender {
            name,
            line: StoredAs::default(),
            messages: Day::default(),
            remembered: UniqueRecipients::default(),
            customer,
            held: 0,
            keys_held: 0,
            unread: 0,
            kind,
        };
        self.senders.insert(hash, sender)
    }

    /// Holds a recipient on a sender's account. Whether it was seen before is not looked up: far from the limit nobody asks.
    pub fn hold(&mut self, sender: Position, key: RecipientKey) {
        if self.held.hold(sender, key) {
            let account = &mut self.senders[sender];
            account.keys_held += 1;
            account.unread += 1;
        }
    }

    /// Gives a held recipient back, as seen at the second `seen`; 0: it was not.
    pub fn let_go(&mut self, sender: Position, key: RecipientKey, seen: u32, now: Moment) {
        let account = &mut self.senders[sender];
        let read = || account.remembered.take(key, now).unwrap_or(0);
        let Some(LetGo { was_read, last_seen }) = self.held.let_go(sender, key, seen, read) else { return };
        account.unread -= u32::from(was_read);
        match last_seen {
            None => return,
            // It is among the remembered still, if it ever was.
            Some(None) => account.unread -= 1,
            Some(Some(0)) => {}
            Some(Some(at)) => account.remembered.put(key, at, now),
        }
        account.keys_held -= 1;
    }

    /// Looks up all that is held on an account among the remembered: from then on each is in one place only.
    pub fn read_held(&mut self, sender: Position, now: Moment) {
        let account = &mut self.senders[sender];
        if std::mem::take(&mut account.unread) == 0 {
            return;
        }
        for held in self.held.of_mut(sender) {
            held.last_seen.get_or_insert_with(|| account.remembered.take(held.key, now).unwrap_or(0));
        }
    }

    /// Forgets what is counted for a sender. What is held stays held.
    pub fn forget_sender(&mut self, sender: Position) {
        let account = &mut self.senders[sender];
        account.messages.clear();
        account.remembered.clear();
        account.unread = 0;
        self.held.of_mut(sender).for_each(|held| held.last_seen = Some(0));
    }

    /// Whose account is there, if it has such a limit, and how much of it is used.
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
                // Of those that are held at the moment some are left out.
                _ => sender.remembered.count(now),
            };
            (&self.customers[sender.customer].name, &sender.name, used)
        };
        Some((move || Subject { kind, customer: customer.clone(), name: name.clone() }, used))
    }

    /// How many accounts there is place for: what a whole sweep has to look at.
    pub fn end(&self) -> Position {
        self.senders.end().max(self.customers.end())
    }

    /// Looks at the next few accounts, and drops those that are as good as new.
    pub fn sweep(&mut self, steps: u32, now: Moment, hasher: &impl BuildHasher) {
        for _ in 0..steps {
            self.sweep_sender(now, hasher);
            self.sweep_customer(now, hasher);
        }
    }

    fn sweep_sender(&mut self, now: Moment, hasher: &impl BuildHasher) {
        let position = next(&mut self.sweep_at.0, self.senders.end());
        let Some(sender) = self.senders.get_mut(position) else { return };
        if sender.held > 0 || sender.keys_held > 0 {
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
            self.drop_line(sender.line);
        }
    }

    fn sweep_customer(&mut self, now: Moment, hasher: &impl BuildHasher) {
        let position = next(&mut self.sweep_at.1, self.customers.end());
        let Some(customer) = self.customers.get_mut(position) else { return };
        customer.day.expire(now);
        customer.ten_minutes.expire(now);
        let used = customer.held > 0 || customer.senders > 0;
        if used || !customer.day.is_empty() || !customer.ten_minutes.is_empty() {
            return;
        }
        let hash = hasher.hash_one(&*customer.name);
        if let Some(customer) = self.customers.remove(hash, position) {
            self.drop_line(customer.line);
        }
    }

    fn drop_line(&mut self, line: StoredAs) {
        if line.is_known() {
            self.dropped.push(line.number());
        }
    }
}

/// Names mostly come from the one directory, so that their place tells.
fn same(a: &Arc<str>, b: &Arc<str>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Keeps the directory's copy instead of an own one: less memory, and found without reading it the next time.
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
