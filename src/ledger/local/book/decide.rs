//! Whether a request fits, against all limits of a transaction at once.
//!
//! Most requests fit even if everything that the account has is counted, what has expired included. Only near a limit is
//! anything looked at that is elsewhere in memory.

use super::accounts::{AccountAt, Accounts, TransactionAccounts};
use super::keys::KeySet;
use super::reservation::Reservation;
use super::slab::Position;
use crate::clock::Moment;
use crate::directory::{CustomerLimits, LimitName};
use crate::ledger::{LedgerAnswer, LimitStanding, NearLimit, RecipientKey};

/// What is requested in addition to the transaction's reservation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Additional<'a> {
    /// Recipients that the transaction has not reserved, without repeats.
    pub keys: &'a KeySet,
    /// How many more recipients count for the customer.
    pub recipients: u64,
}

impl Accounts {
    /// Decides for a transaction that has `reservation`. A limit is checked only if the request adds to its usage: what was let
    /// through stays let through.
    pub fn decide(
        &mut self,
        now: Moment,
        positions: TransactionAccounts,
        reservation: Option<&Reservation>,
        additional: Additional<'_>,
        limits: &CustomerLimits,
    ) -> LedgerAnswer {
        let mut answer = LedgerAnswer::fitting(now);
        for name in LimitName::ALL {
            let limit = limits.counted(name);
            let Some(max) = limit.max else { continue };
            let limit_and_max = (name, max);
            let over = match name {
                LimitName::UserMessages => self.messages_over(limit_and_max, now, positions.user, reservation),
                LimitName::LoginMessages => self.messages_over(limit_and_max, now, positions.login, reservation),
                LimitName::UserUniques => {
                    self.uniques_over(limit_and_max, now, positions.user, reservation, additional.keys)
                }
                LimitName::LoginUniques => {
                    self.uniques_over(limit_and_max, now, positions.login, reservation, additional.keys)
                }
                LimitName::CustomerPeak | LimitName::CustomerDay => {
                    self.recipients_over(limit_and_max, now, positions.customer, reservation, additional.recipients)
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
        account: AccountAt,
        reservation: Option<&Reservation>,
    ) -> Option<LimitStanding> {
        if reservation.is_some() || account == AccountAt::Nobody {
            return None;
        }
        let mut sender = match account {
            AccountAt::At(position) => Some(&mut self.senders[position]),
            _ => None,
        };
        let reserved = sender.as_ref().map_or(0, |sender| u64::from(sender.reserved));
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
        reservation: Option<&Reservation>,
        more: u64,
    ) -> Option<LimitStanding> {
        if more == 0 {
            return None;
        }
        let reservation = reservation.map_or(0, Reservation::recipients);
        let own = reservation + more;
        let mut customer = customer.map(|position| &mut self.customers[position]);
        let most = customer.as_ref().map_or(0, |customer| {
            let counted = match limit {
                LimitName::CustomerPeak => customer.ten_minutes.at_most(),
                _ => customer.day.at_most(),
            };
            counted + customer.reserved
        });
        if most + more <= max {
            return None;
        }
        let (used, reserved) = customer.as_mut().map_or((0, 0), |customer| {
            let used = match limit {
                LimitName::CustomerPeak => customer.ten_minutes.total(now),
                _ => customer.day.total(now),
            };
            (used, customer.reserved)
        });
        if used + reserved + more <= max {
            return None;
        }
        let fits_at = max.checked_sub(own).map(|allowed| match (customer, limit) {
            (None, _) => now,
            (Some(customer), LimitName::CustomerPeak) => customer.ten_minutes.falls_to(allowed, now),
            (Some(customer), _) => customer.day.falls_to(allowed, now),
        });
        Some(LimitStanding { limit, max, used, reserved: reserved - reservation, own, fits_at })
    }

    fn uniques_over(
        &mut self,
        (limit, max): (LimitName, u64),
        now: Moment,
        account: AccountAt,
        reservation: Option<&Reservation>,
        keys: &KeySet,
    ) -> Option<LimitStanding> {
        let position = match account {
            AccountAt::Nobody => return None,
            AccountAt::Fresh => {
                let own = keys.len() as u64;
                let fits_at = (own <= max).then_some(now);
                return (own > max).then_some(LimitStanding { limit, max, used: 0, reserved: 0, own, fits_at });
            }
            AccountAt::At(position) => position,
        };
        if self.senders[position].uniques_at_most() + keys.len() as u64 <= max {
            return None;
        }
        self.look_up_reserved(position, now);
        let sender = &mut self.senders[position];
        let counted = sender.remembered.count(now) + u64::from(sender.keys_reserved);
        if counted + keys.len() as u64 <= max {
            return None;
        }
        let newcomers = keys
            .as_slice()
            .iter()
            .filter(|&&key| !self.reserved.contains(position, key) && sender.remembered.last_seen(key, now).is_none())
            .count() as u64;
        if newcomers == 0 || counted + newcomers <= max {
            return None;
        }
        Some(self.uniques_standing((limit, max), now, position, reservation, keys))
    }

    /// The recipients that the transaction itself names are its `own`, whether they were seen before or not; `used` and
    /// `reserved` are the others.
    fn uniques_standing(
        &mut self,
        (limit, max): (LimitName, u64),
        now: Moment,
        position: Position,
        reservation: Option<&Reservation>,
        keys: &KeySet,
    ) -> LimitStanding {
        let sender = &mut self.senders[position];
        let own = (reservation.map_or(0, |reservation| reservation.keys().len()) + keys.len()) as u64;
        let is_own = |key| keys.contains(key) || reservation.is_some_and(|reservation| reservation.has(key));
        let known: Vec<RecipientKey> = keys
            .as_slice()
            .iter()
            .copied()
            .filter(|&key| !self.reserved.contains(position, key) && sender.remembered.last_seen(key, now).is_some())
            .collect();
        let mut seen_and_reserved = Vec::new();
        let mut reserved = 0;
        for other in self.reserved.of(position).filter(|other| !is_own(other.key)) {
            match other.last_seen {
                Some(at) if at > 0 && sender.remembered.counts(at, now) => seen_and_reserved.push(at),
                _ => reserved += 1,
            }
        }
        let used = sender.remembered.count(now) - known.len() as u64 + seen_and_reserved.len() as u64;
        let fits_at =
            max.checked_sub(own).map(|allowed| sender.remembered.falls_to(allowed, now, &known, &seen_and_reserved));
        LimitStanding { limit, max, used, reserved, own, fits_at }
    }

    /// The limits that, with an accepted message, are near enough to their maximum that people may have to be warned.
    pub fn near(&mut self, now: Moment, reservation: &Reservation, limits: &CustomerLimits) -> Vec<NearLimit> {
        let mut near = Vec::new();
        if !limits.warn() {
            return near;
        }
        for limit in LimitName::ALL {
            let (from, account) = (limits.warned_from(limit), reservation.positions.of(limit));
            if from == u64::MAX {
                continue;
            }
            let taken = match (limit, account) {
                (LimitName::CustomerPeak, _) => {
                    let customer = &mut self.customers[reservation.customer()];
                    customer.ten_minutes.total(now) + customer.reserved
                }
                (LimitName::CustomerDay, _) => {
                    let customer = &mut self.customers[reservation.customer()];
                    customer.day.total(now) + customer.reserved
                }
                (LimitName::UserMessages | LimitName::LoginMessages, AccountAt::At(position)) => {
                    let sender = &mut self.senders[position];
                    sender.messages.total(now) + u64::from(sender.reserved)
                }
                (LimitName::UserUniques | LimitName::LoginUniques, AccountAt::At(position)) => {
                    if self.senders[position].uniques_at_most() < from {
                        continue;
                    }
                    self.look_up_reserved(position, now);
                    let sender = &mut self.senders[position];
                    sender.remembered.count(now) + u64::from(sender.keys_reserved)
                }
                (_, AccountAt::Nobody | AccountAt::Fresh) => continue,
            };
            if taken >= from {
                near.push(NearLimit { limit, max: limits.counted(limit).max.unwrap_or(u64::MAX), taken });
            }
        }
        near
    }

    /// How many unique recipients were seen within the window, and how many more are only reserved; and when at most `allowed` of
    /// the former will be left.
    pub fn uniques_usage(&mut self, position: Position, allowed: u64, now: Moment) -> (u64, u64, Moment) {
        self.look_up_reserved(position, now);
        let sender = &mut self.senders[position];
        let seen: Vec<u32> = self
            .reserved
            .of(position)
            .filter_map(|reserved| reserved.last_seen)
            .filter(|&at| at > 0 && sender.remembered.counts(at, now))
            .collect();
        let used = sender.remembered.count(now) + seen.len() as u64;
        let reserved = u64::from(sender.keys_reserved) - seen.len() as u64;
        (used, reserved, sender.remembered.falls_to(allowed, now, &[], &seen))
    }
}
