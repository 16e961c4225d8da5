//! Some customers, with their usage and open transactions: what one lock guards.

use super::accounts::{AccountAt, Accounts, Hashes, TransactionAccounts};
use super::decide::Additional;
use super::keys::KeySet;
use super::reservation::Reservation;
use super::{AccountRow, Counting, Entry, Ticket};
use crate::clock::Moment;
use crate::directory::{CustomerLimits, Parties};
use crate::ledger::{AcceptedRecipients, LedgerAnswer, RecipientKey, ReservationId};
use hashbrown::{DefaultHashBuilder, HashMap};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Accounts that are checked for removal each time one is opened. Unused accounts so remain a small fraction of all, without a
/// sweep that would hold the lock for long.
const SWEEP_STEPS: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub accounts: Accounts,
    open: HashMap<ReservationId, Reservation>,
    /// Accepted, and being written to disk. They end when that is done, however long it takes.
    committing: HashMap<u64, Reservation>,
    next_ticket: u64,
    /// When open reservations expire, in that order. Some have ended since.
    deadlines: VecDeque<(Moment, ReservationId)>,
    /// A clock that steps back counts as stopped.
    latest: Moment,
}

impl Shard {
    /// Advances the time: reservations expire, and from here on it is never earlier than `now`.
    pub fn pass_time(&mut self, now: Moment, timeout: Duration) -> Moment {
        self.latest = self.latest.max(now);
        let now = self.latest;
        while let Some(&(deadline, id)) = self.deadlines.front()
            && deadline <= now
        {
            self.deadlines.pop_front();
            if self.open.get(&id).is_some_and(|open| open.started.plus(timeout) == deadline) {
                self.release(id);
            }
        }
        now
    }

    pub fn reserve(
        &mut self,
        now: Moment,
        id: ReservationId,
        who: &HashedParties<'_>,
        key: RecipientKey,
        rules: &Rules<'_>,
    ) -> LedgerAnswer {
        let positions = self.accounts.find(who.parties, &who.hashes);
        self.release_if_other_accounts(id, positions);
        let reservation = self.open.get_mut(&id);
        if let Some(reservation) = &reservation
            && reservation.has(key)
        {
            return LedgerAnswer::fitting(now);
        }
        let keys = KeySet::from_iter([key]);
        let answer = self.accounts.decide(
            now,
            positions,
            reservation.as_deref(),
            Additional { keys: &keys, recipients: 1 },
            who.limits,
        );
        if !answer.fits() {
            return answer;
        }
        match reservation {
            Some(reservation) => reservation.add(&mut self.accounts, key),
            None => {
                let mut reservation = self.start(now, positions, who);
                reservation.add(&mut self.accounts, key);
                self.open.insert(id, reservation);
                self.note_deadline(now, id, rules.timeout);
                self.sweep_after_opening(positions, now, rules);
            }
        }
        answer
    }

    pub fn look(
        &mut self,
        now: Moment,
        except: Option<ReservationId>,
        who: &HashedParties<'_>,
        recipients: &[RecipientKey],
    ) -> LedgerAnswer {
        let positions = self.accounts.find(who.parties, &who.hashes);
        let reservation =
            except.and_then(|id| self.open.get(&id)).filter(|reservation| reservation.positions == positions);
        let is_new = |key: &RecipientKey| reservation.is_none_or(|reservation| !reservation.has(*key));
        let keys: KeySet = recipients.iter().copied().filter(is_new).collect();
        let additional = Additional { keys: &keys, recipients: keys.len() as u64 };
        self.accounts.decide(now, positions, reservation, additional, who.limits)
    }

    /// Ends the reservation, if there is one. What fits is counted, or stays reserved until the ticket in the entry is settled.
    pub fn commit(
        &mut self,
        now: Moment,
        id: ReservationId,
        who: &HashedParties<'_>,
        accepted: AcceptedRecipients<'_>,
        how: &Committing<'_>,
        rules: &Rules<'_>,
    ) -> (LedgerAnswer, Option<Entry>) {
        let positions = self.accounts.find(who.parties, &who.hashes);
        self.release_if_other_accounts(id, positions);
        let reservation = self.open.remove(&id);
        let keys: KeySet = accepted.named.iter().copied().collect();
        let recipients = keys.len() as u64 + u64::from(accepted.unnamed);
        let is_new = |key: &RecipientKey| reservation.as_ref().is_none_or(|reservation| !reservation.has(*key));
        let new_keys: KeySet = keys.as_slice().iter().copied().filter(is_new).collect();
        let more = recipients.saturating_sub(reservation.as_ref().map_or(0, Reservation::recipients));
        let additional = Additional { keys: &new_keys, recipients: more };
        let mut answer = if recipients == 0 {
            LedgerAnswer::fitting(now)
        } else {
            self.accounts.decide(now, positions, reservation.as_ref(), additional, who.limits)
        };
        if !answer.fits() || recipients == 0 {
            if let Some(reservation) = reservation {
                reservation.release(&mut self.accounts, now);
            }
            return (answer, None);
        }
        let mut reservation = reservation.unwrap_or_else(|| self.start(now, positions, who));
        reservation.become_exactly(&mut self.accounts, keys, accepted.unnamed, now);
        answer.near = self.accounts.near(now, &reservation, who.limits);
        self.sweep_after_opening(positions, now, rules);
        if how.counting == Counting::Only {
            reservation.count(&mut self.accounts, now.seconds_up(), now);
            return (answer, None);
        }
        let entry = self.entry(&reservation, now, how);
        if how.counting == Counting::Now {
            reservation.count(&mut self.accounts, entry.at, now);
        } else {
            self.committing.insert(entry.ticket.number, reservation);
        }
        (answer, Some(entry))
    }

    /// The message is on disk: it is counted from now on.
    pub fn settle(&mut self, ticket: u64, at: u32) {
        let Some(reservation) = self.committing.remove(&ticket) else { return };
        let accounts = &mut self.accounts;
        accounts.customers[reservation.customer()].store_number.make_known();
        for account in [reservation.positions.user, reservation.positions.login] {
            if let AccountAt::At(position) = account {
                accounts.senders[position].store_number.make_known();
            }
        }
        reservation.count(accounts, at, self.latest);
    }

    /// The message could not be written: it is released.
    pub fn give_up(&mut self, ticket: u64) {
        if let Some(reservation) = self.committing.remove(&ticket) {
            reservation.release(&mut self.accounts, self.latest);
        }
    }

    pub fn release(&mut self, id: ReservationId) {
        if let Some(reservation) = self.open.remove(&id) {
            reservation.release(&mut self.accounts, self.latest);
        }
    }

    pub fn open_reservations(&self) -> usize {
        self.open.len() + self.committing.len()
    }

    /// A reservation stays on the accounts that it began with; a request for others ends it.
    fn release_if_other_accounts(&mut self, id: ReservationId, positions: TransactionAccounts) {
        if self.open.get(&id).is_some_and(|reservation| reservation.positions != positions) {
            self.release(id);
        }
    }

    fn start(&mut self, now: Moment, positions: TransactionAccounts, who: &HashedParties<'_>) -> Reservation {
        let positions = self.accounts.open(positions, who.parties, &who.hashes);
        let customer = positions.customer.unwrap_or_default();
        Reservation::start(&mut self.accounts, now, positions, customer)
    }

    /// Sweeps a few accounts for each one that was opened. The new ones must have something reserved by now.
    fn sweep_after_opening(&mut self, before: TransactionAccounts, now: Moment, rules: &Rules<'_>) {
        if before.customer.is_none() || before.user == AccountAt::Fresh || before.login == AccountAt::Fresh {
            self.accounts.sweep(SWEEP_STEPS, now, rules.hasher);
        }
    }

    fn note_deadline(&mut self, started: Moment, id: ReservationId, timeout: Duration) {
        self.deadlines.push_back((started.plus(timeout), id));
        if self.deadlines.len() > 2 * self.open.len() + 32 {
            let open = &self.open;
            self.deadlines.retain(|(deadline, id)| {
                open.get(id).is_some_and(|reservation| reservation.started.plus(timeout) == *deadline)
            });
        }
    }

    fn entry(&mut self, reservation: &Reservation, now: Moment, how: &Committing<'_>) -> Entry {
        self.next_ticket += 1;
        let row = |row: &mut super::accounts::StoreNumber, name: &std::sync::Arc<str>| {
            let number = row.number_or(|| how.numbers.fetch_add(1, Ordering::Relaxed));
            let name = (!row.is_known()).then(|| name.clone());
            if how.counting == Counting::Now {
                // Entries are then never lost, and are written in their order.
                row.make_known();
            }
            AccountRow { number, name }
        };
        let customer = &mut self.accounts.customers[reservation.customer()];
        let customer_name = customer.name.clone();
        let customer = row(&mut customer.store_number, &customer.name);
        let mut sender = |account| match account {
            AccountAt::At(position) => {
                let sender = &mut self.accounts.senders[position];
                Some(row(&mut sender.store_number, &sender.name))
            }
            _ => None,
        };
        let user = sender(reservation.positions.user);
        let login = sender(reservation.positions.login);
        let keys = if user.is_some() || login.is_some() { reservation.keys().into() } else { Box::default() };
        Entry {
            ticket: Ticket { shard: how.shard, number: self.next_ticket },
            at: now.seconds_up(),
            customer_name,
            customer,
            user,
            login,
            recipients: reservation.recipients(),
            keys,
        }
    }
}

/// Whose transaction it is, with hashes of the names, and the limits that apply.
pub(super) struct HashedParties<'a> {
    pub parties: &'a Parties,
    pub hashes: Hashes,
    pub limits: &'a CustomerLimits,
}

/// What a commit needs besides the message.
pub(super) struct Committing<'a> {
    pub counting: Counting,
    pub shard: u32,
    pub numbers: &'a AtomicU64,
}

/// What all shards share.
pub(super) struct Rules<'a> {
    pub timeout: Duration,
    pub hasher: &'a DefaultHashBuilder,
}
