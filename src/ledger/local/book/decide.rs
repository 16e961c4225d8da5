//! Whether it fits: all limits of a transaction at once.
//!
//! What lets through most of them is a look at the account itself: the most that can be counted there, what has expired
//! included. Only near a limit is anything looked at that lies elsewhere in memory.

use super::accounts::{Accounts, Holder, Holders};
use super::keys::KeySet;
use super::reservation::Reservation;
use super::slab::Position;
use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName};
use crate::ledger::{LedgerAnswer, LimitStanding, NearLimit, RecipientKey};

/// What is asked for, on top of what the transaction holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// Different recipients, none of them held by the transaction.
    pub keys: &'a KeySet,
    /// How many more recipients the customer is to send to.
    pub recipients: u64,
}

impl Accounts {
    /// Decides for a transaction that holds `mine` already. A limit is asked only if the request adds to it: what was
    /// let through stays let through.
    pub fn decide(
        &mut self,
        now: Moment,
        holders: Holders,
        mine: Option<&Reservation>,
        ask: Ask<'_>,
        limits: &CustomerLimits,
    ) -> LedgerAnswer {
        let mut answer = LedgerAnswer::fitting(now);
        for name in LimitName::ALL {
            let limit = limits.counted(name);
            let Some(max) = limit.max else { continue };
            let limit_and_max = (name, max);
            let over = match name {
                LimitName::UserMessages => self.messages_over(limit_and_max, now, holders.user, mine),
                LimitName::LoginMessages => self.messages_over(limit_and_max, now, holders.login, mine),
                LimitName::UserUniques => self.uniques_over(limit_and_max, now, holders.user, mine, ask.keys),
                LimitName::LoginUniques => self.uniques_over(limit_and_max, now, holders.login, mine, ask.keys),
                LimitName::CustomerPeak | LimitName::CustomerDay => {
                    self.recipients_over(limit_and_max, now, holders.customer, mine, ask.recipients)
                }
            };
            match over {
                Some(standing) if limit.shadow => answer.shadow_over.push(standing),
                Some(standing) => answer.over.push(standing),
                None => {}
            }
        }
        answer
    }

    fn messages_over(
        &mut self,
        (limit, max): (LimitName, u64),
        now: Moment,
        holder: Holder,
        mine: Option<&Reservation>,
    ) -> Option<LimitStanding> {
        if mine.is_some() || holder == Holder::Nobody {
            return None;
        }
        let mut sender = match holder {
            Holder::At(position) => Some(&mut self.senders[position]),
            _ => None,
        };
        let reserved = sender.as_ref().map_or(0, |sender| u64::from(sender.held));
        if sender.as_ref().map_or(0, |sender| sender.messages.at_most()) + reserved < max {
            return None;
        }
        let used = sender.as_mut().map_or(0, |sender| sender.messages.total(now));
        if used + reserved < max {
            return None;
        }
        let fits_at =
            max.checked_sub(1).map(|allowed| sender.map_or(now, |sender| sender.messages.falls_to(allowed, now)));
        Some(LimitStanding { limit, max, used, reserved, own: 1, fits_at })
    }

    fn recipients_over(
        &mut self,
        (limit, max): (LimitName, u64),
        now: Moment,
        customer: Option<Position>,
        mine: Option<&Reservation>,
        more: u64,
    ) -> Option<LimitStanding> {
        if more == 0 {
            return None;
        }
        let mine = mine.map_or(0, Reservation::recipients);
        let own = mine + more;
        let mut customer = customer.map(|position| &mut self.customers[position]);
        let most = customer.as_ref().map_or(0, |customer| {
            let counted = match limit {
                LimitName::CustomerPeak => customer.ten_minutes.at_most(),
                _ => customer.day.at_most(),
            };
            counted + customer.held
        });
        if most + more <= max {
            return None;
        }
        let (used, held) = customer.as_mut().map_or((0, 0), |customer| {
            let used = match limit {
                LimitName::CustomerPeak => customer.ten_minutes.total(now),
                _ => customer.day.total(now),
            };
            (used, customer.held)
        });
        if used + held + more <= max {
            return None;
        }
        let fits_at = max.checked_sub(own).map(|allowed| match (customer, limit) {
            (None, _) => now,
            (Some(customer), LimitName::CustomerPeak) => customer.ten_minutes.falls_to(allowed, now),
            (Some(customer), _) => customer.day.falls_to(allowed, now),
        });
        Some(LimitStanding { limit, max, used, reserved: held - mine, own, fits_at })
    }

    fn uniques_over(
        &mut self,
        (limit, max): (LimitName, u64),
        now: Moment,
        holder: Holder,
        mine: Option<&Reservation>,
        keys: &KeySet,
    ) -> Option<LimitStanding> {
        let position = match holder {
            Holder::Nobody => return None,
            Holder::Fresh => {
                let own = keys.len() as u64;
                let fits_at = (own <= max).then_some(now);
                return (own > max).then_some(LimitStanding { limit, max, used: 0, reserved: 0, own, fits_at });
            }
            Holder::At(position) => position,
        };
        if self.senders[position].uniques_at_most() + keys.len() as u64 <= max {
            return None;
        }
        self.read_held(position, now);
        let sender = &mut self.senders[position];
        let counted = sender.remembered.count(now) + u64::from(sender.keys_held);
        if counted + keys.len() as u64 <= max {
            return None;
        }
        let newcomers = keys
            .as_slice()
            .iter()
            .filter(|&&key| !self.held.contains(position, key) && sender.remembered.last_seen(key, now).is_none())
            .count() as u64;
        if newcomers == 0 || counted + newcomers <= max {
            return None;
        }
        Some(self.uniques_standing((limit, max), now, position, mine, keys))
    }

    /// The recipients that the transaction itself names are its `own`, whether they were seen before or not; `used` and
    /// `reserved` are the others.
    fn uniques_standing(
        &mut self,
        (limit, max): (LimitName, u64),
        now: Moment,
        position: Position,
        mine: Option<&Reservation>,
        keys: &KeySet,
    ) -> LimitStanding {
        let sender = &mut self.senders[position];
        let own = (mine.map_or(0, |mine| mine.keys().len()) + keys.len()) as u64;
        let is_own = |key| keys.contains(key) || mine.is_some_and(|mine| mine.holds(key));
        let known: Vec<RecipientKey> = keys
            .as_slice()
            .iter()
            .copied()
            .filter(|&key| !self.held.contains(position, key) && sender.remembered.last_seen(key, now).is_some())
            .collect();
        let mut seen_and_held = Vec::new();
        let mut reserved = 0;
        for held in self.held.of(position).filter(|held| !is_own(held.key)) {
            match held.last_seen {
                Some(at) if at > 0 && sender.remembered.counts(at, now) => seen_and_held.push(at),
                _ => reserved += 1,
            }
        }
        let used = sender.remembered.count(now) - known.len() as u64 + seen_and_held.len() as u64;
        let fits_at =
            max.checked_sub(own).map(|allowed| sender.remembered.falls_to(allowed, now, &known, &seen_and_held));
        LimitStanding { limit, max, used, reserved, own, fits_at }
    }

    /// The limits of an accepted message of which so much is taken that people may have to be told.
    pub fn near(&mut self, now: Moment, mine: &Reservation, limits: &CustomerLimits) -> Vec<NearLimit> {
        let mut near = Vec::new();
        if !limits.warn() {
            return near;
        }
        for limit in LimitName::ALL {
            let (from, holder) = (limits.warned_from(limit), mine.holders.of(limit));
            if from == u64::MAX {
                continue;
            }
            let taken = match (limit, holder) {
                (LimitName::CustomerPeak, _) => {
                    let customer = &mut self.customers[mine.customer()];
                    customer.ten_minutes.total(now) + customer.held
                }
                (LimitName::CustomerDay, _) => {
                    let customer = &mut self.customers[mine.customer()];
                    customer.day.total(now) + customer.held
                }
                (LimitName::UserMessages | LimitName::LoginMessages, Holder::At(position)) => {
                    let sender = &mut self.senders[position];
                    sender.messages.total(now) + u64::from(sender.held)
                }
                (LimitName::UserUniques | LimitName::LoginUniques, Holder::At(position)) => {
                    if self.senders[position].uniques_at_most() < from {
                        continue;
                    }
                    self.read_held(position, now);
                    let sender = &mut self.senders[position];
                    sender.remembered.count(now) + u64::from(sender.keys_held)
                }
                (_, Holder::Nobody | Holder::Fresh) => continue,
            };
            if taken >= from {
                near.push(NearLimit { limit, max: limits.counted(limit).max.unwrap_or(u64::MAX), taken });
            }
        }
        near
    }

    /// How many different recipients were seen within the window, and how many more are held only; and when at most
    /// `allowed` will be left of the former.
    pub fn uniques_usage(&mut self, position: Position, allowed: u64, now: Moment) -> (u64, u64, Moment) {
        self.read_held(position, now);
        let sender = &mut self.senders[position];
        let seen: Vec<u32> = self
            .held
            .of(position)
            .filter_map(|held| held.last_seen)
            .filter(|&at| at > 0 && sender.remembered.counts(at, now))
            .collect();
        let used = sender.remembered.count(now) + seen.len() as u64;
        let reserved = u64::from(sender.keys_held) - seen.len() as u64;
        (used, reserved, sender.remembered.falls_to(allowed, now, &[], &seen))
    }
}
