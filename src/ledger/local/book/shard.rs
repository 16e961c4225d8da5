//! Some customers, with all that is counted and open for them: what one lock guards.

use super::accounts::{Accounts, Hashes, Holder, Holders};
use super::decide::Ask;
use super::keys::KeySet;
use super::reservation::Reservation;
use super::{Counting, Entry, Line, Ticket};
use crate::clock::Moment;
use crate::directory::{CustomerLimits, Parties};
use crate::ledger::{AcceptedRecipients, LedgerAnswer, RecipientKey, ReservationId};
use hashbrown::{DefaultHashBuilder, HashMap};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For each account that is opened so many are looked at, whether they can be dropped: so what is as good as new never
/// is more than a part of the whole, and nothing ever stops for it.
const SWEEP_STEPS: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub accounts: Accounts,
    open: HashMap<ReservationId, Reservation>,
    /// Accepted, and on their way to the disk. They end when that is done, however long it takes.
    committing: HashMap<u64, Reservation>,
    next_ticket: u64,
    /// When open reservations end by themselves, in that order. Some have ended since.
    deadlines: VecDeque<(Moment, ReservationId)>,
    /// A clock that steps back is taken to stand still.
    latest: Moment,
}

impl Shard {
    /// Lets time pass: reservations end, and from here on it is never earlier than `now`.
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
        let holders = self.accounts.find(who.parties, &who.hashes);
        self.release_if_of_others(id, holders);
        let mine = self.open.get_mut(&id);
        if let Some(mine) = &mine
            && mine.holds(key)
        {
            return LedgerAnswer::fitting(now);
        }
        let keys = KeySet::from_iter([key]);
        let answer =
            self.accounts.decide(now, holders, mine.as_deref(), Ask { keys: &keys, recipients: 1 }, who.limits);
        if !answer.fits() {
            return answer;
        }
        match mine {
            Some(mine) => mine.add(&mut self.accounts, key),
            None => {
                let mut reservation = self.start(now, holders, who);
                reservation.add(&mut self.accounts, key);
                self.open.insert(id, reservation);
                self.note_deadline(now, id, rules.timeout);
                self.sweep_after_opening(holders, now, rules);
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
        let holders = self.accounts.find(who.parties, &who.hashes);
        let mine = except.and_then(|id| self.open.get(&id)).filter(|mine| mine.holders == holders);
        let is_new = |key: &RecipientKey| mine.is_none_or(|mine| !mine.holds(*key));
        let keys: KeySet = recipients.iter().copied().filter(is_new).collect();
        let ask = Ask { keys: &keys, recipients: keys.len() as u64 };
        self.accounts.decide(now, holders, mine, ask, who.limits)
    }

    /// Ends the reservation, if there is one. What fits is counted, or held until the ticket in the entry is settled.
    pub fn commit(
        &mut self,
        now: Moment,
        id: ReservationId,
        who: &HashedParties<'_>,
        accepted: AcceptedRecipients<'_>,
        how: &Committing<'_>,
        rules: &Rules<'_>,
    ) -> (LedgerAnswer, Option<Entry>) {
        let holders = self.accounts.find(who.parties, &who.hashes);
        self.release_if_of_others(id, holders);
        let mine = self.open.remove(&id);
        let keys: KeySet = accepted.named.iter().copied().collect();
        let recipients = keys.len() as u64 + u64::from(accepted.unnamed);
        let is_new = |key: &RecipientKey| mine.as_ref().is_none_or(|mine| !mine.holds(*key));
        let new_keys: KeySet = keys.as_slice().iter().copied().filter(is_new).collect();
        let more = recipients.saturating_sub(mine.as_ref().map_or(0, Reservation::recipients));
        let ask = Ask { keys: &new_keys, recipients: more };
        let mut answer = if recipients == 0 {
            LedgerAnswer::fitting(now)
        } else {
            self.accounts.decide(now, holders, mine.as_ref(), ask, who.limits)
        };
        if !answer.fits() || recipients == 0 {
            if let Some(mine) = mine {
                mine.release(&mut self.accounts, now);
            }
            return (answer, None);
        }
        let mut mine = mine.unwrap_or_else(|| self.start(now, holders, who));
        mine.become_exactly(&mut self.accounts, keys, accepted.unnamed, now);
        answer.near = self.accounts.near(now, &mine, who.limits);
        self.sweep_after_opening(holders, now, rules);
        if how.counting == Counting::Only {
            mine.count(&mut self.accounts, now.seconds_up(), now);
            return (answer, None);
        }
        let entry = self.entry(&mine, now, how);
        if how.counting == Counting::Now {
            mine.count(&mut self.accounts, entry.at, now);
        } else {
            self.committing.insert(entry.ticket.number, mine);
        }
        (answer, Some(entry))
    }

    /// The message is on disk: it is counted from now on.
    pub fn settle(&mut self, ticket: u64, at: u32) {
        let Some(mine) = self.committing.remove(&ticket) else { return };
        let accounts = &mut self.accounts;
        accounts.customers[mine.customer()].line.make_known();
        for holder in [mine.holders.user, mine.holders.login] {
            if let Holder::At(position) = holder {
                accounts.senders[position].line.make_known();
            }
        }
        mine.count(accounts, at, self.latest);
    }

    /// The message could not be written: it is given back.
    pub fn give_up(&mut self, ticket: u64) {
        if let Some(mine) = self.committing.remove(&ticket) {
            mine.release(&mut self.accounts, self.latest);
        }
    }

    pub fn release(&mut self, id: ReservationId) {
        if let Some(mine) = self.open.remove(&id) {
            mine.release(&mut self.accounts, self.latest);
        }
    }

    pub fn open_reservations(&self) -> usize {
        self.open.len() + self.committing.len()
    }

    /// One reservation is on the accounts that it began with; asked for others, it ends.
    fn release_if_of_others(&mut self, id: ReservationId, holders: Holders) {
        if self.open.get(&id).is_some_and(|mine| mine.holders != holders) {
            self.release(id);
        }
    }

    fn start(&mut self, now: Moment, holders: Holders, who: &HashedParties<'_>) -> Reservation {
        let holders = self.accounts.open(holders, who.parties, &who.hashes);
        let customer = holders.customer.unwrap_or_default();
        Reservation::start(&mut self.accounts, now, holders, customer)
    }

    /// Each account that was opened pays for a look at some others. The new ones must be held by now.
    fn sweep_after_opening(&mut self, before: Holders, now: Moment, rules: &Rules<'_>) {
        if before.customer.is_none() || before.user == Holder::Fresh || before.login == Holder::Fresh {
            self.accounts.sweep(SWEEP_STEPS, now, rules.hasher);
        }
    }

    fn note_deadline(&mut self, started: Moment, id: ReservationId, timeout: Duration) {
        self.deadlines.push_back((started.plus(timeout), id));
        if self.deadlines.len() > 2 * self.open.len() + 32 {
            let open = &self.open;
            self.deadlines
                .retain(|(deadline, id)| open.get(id).is_some_and(|mine| mine.started.plus(timeout) == *deadline));
        }
    }

    fn entry(&mut self, mine: &Reservation, now: Moment, how: &Committing<'_>) -> Entry {
        self.next_ticket += 1;
        let line = |line: &mut super::accounts::StoredAs, name: &std::sync::Arc<str>| {
            let number = line.number_or(|| how.numbers.fetch_add(1, Ordering::Relaxed));
            let name = (!line.is_known()).then(|| name.clone());
            if how.counting == Counting::Now {
                // Entries are never lost then, and are written in their order.
                line.make_known();
            }
            Line { number, name }
        };
        let customer = &mut self.accounts.customers[mine.customer()];
        let customer_name = customer.name.clone();
        let customer = line(&mut customer.line, &customer.name);
        let mut sender = |holder| match holder {
            Holder::At(position) => {
                let sender = &mut self.accounts.senders[position];
                Some(line(&mut sender.line, &sender.name))
            }
            _ => None,
        };
        let user = sender(mine.holders.user);
        let login = sender(mine.holders.login);
        let keys = if user.is_some() || login.is_some() { mine.keys().into() } else { Box::default() };
        Entry {
            ticket: Ticket { shard: how.shard, number: self.next_ticket },
            at: now.seconds_up(),
            customer_name,
            customer,
            user,
            login,
            recipients: mine.recipients(),
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

/// What is the same in all shards.
pub(super) struct Rules<'a> {
    pub timeout: Duration,
    pub hasher: &'a DefaultHashBuilder,
}
