//! A naive model of the ledger: a list of every event, from which each answer is worked out afresh.

use crate::stores::RESERVATION_TIMEOUT;
use relaykeeper::clock::Moment;
use relaykeeper::directory::{CustomerLimits, Limit, LimitName, Parties, SubjectKind};
use relaykeeper::ledger::LimitStanding;
use std::collections::{BTreeMap, BTreeSet};

/// An account, as limits see it.
pub type Account = (SubjectKind, &'static str, &'static str);

#[derive(Clone, Debug)]
pub struct Event {
    /// In seconds, rounded up.
    pub at: u64,
    pub who: Who,
    pub keys: BTreeSet<u64>,
    pub unnamed: u32,
    /// Accounts that were reset since.
    pub forgotten: BTreeSet<Account>,
}

#[derive(Clone, Debug)]
pub struct Open {
    pub started: u64,
    pub who: Who,
    pub keys: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub customer: &'static str,
    pub user: Option<&'static str>,
    pub login: Option<&'static str>,
}

impl Who {
    pub fn parties(self) -> Parties {
        Parties { customer: self.customer.into(), user: self.user.map(Into::into), login: self.login.map(Into::into) }
    }

    fn account(self, limit: LimitName) -> Option<Account> {
        Some(match limit {
            LimitName::CustomerDay | LimitName::CustomerPeak => (SubjectKind::Customer, self.customer, self.customer),
            LimitName::UserMessages | LimitName::UserUniques => (SubjectKind::User, self.customer, self.user?),
            LimitName::LoginMessages | LimitName::LoginUniques => (SubjectKind::Login, self.customer, self.login?),
        })
    }
}

#[derive(Default)]
pub struct Model {
    /// In milliseconds.
    pub now: u64,
    pub events: Vec<Event>,
    pub open: BTreeMap<u64, Open>,
    /// Remembers so much longer than it should, in percent of the window: 0 or 1.
    pub late: u64,
}

impl Model {
    pub fn pass_time(&mut self, now: Moment) {
        self.now = now.0;
        let timeout = RESERVATION_TIMEOUT.as_millis() as u64;
        self.open.retain(|_, open| open.started + timeout > now.0);
    }

    fn counted(&self, limit: LimitName, account: Account) -> impl Iterator<Item = &Event> {
        let window = u64::from(limit.window().seconds());
        let horizon = self.now / 1000 - window - window * self.late / 100;
        self.events.iter().filter(move |event| {
            event.at > horizon && event.who.account(limit) == Some(account) && !event.forgotten.contains(&account)
        })
    }

    fn others(&self, id: Option<u64>, limit: LimitName, account: Account) -> impl Iterator<Item = &Open> {
        let open = self.open.iter().filter(move |(other, _)| Some(**other) != id);
        open.map(|(_, open)| open).filter(move |open| open.who.account(limit) == Some(account))
    }

    /// When each recipient that counts was last seen.
    fn seen(&self, limit: LimitName, account: Account) -> BTreeMap<u64, u64> {
        let mut seen = BTreeMap::new();
        for event in self.counted(limit, account) {
            for &key in &event.keys {
                let at: &mut u64 = seen.entry(key).or_default();
                *at = event.at.max(*at);
            }
        }
        seen
    }

    /// How things would stand if `id`, which is to hold `keys` and so many recipients in all, were let through; and
    /// whether that adds anything. `None`: the limit is nobody's.
    pub fn standing(
        &self,
        limit: LimitName,
        max: u64,
        id: u64,
        who: Who,
        keys: &BTreeSet<u64>,
        all: u64,
    ) -> Option<(LimitStanding, bool)> {
        let account = who.account(limit)?;
        let mine = self.open.get(&id);
        // What is there, with the second it was counted at.
        let (used, reserved, own, adds): (Vec<(u64, u64)>, u64, u64, bool) = match limit {
            LimitName::UserMessages | LimitName::LoginMessages => (
                self.counted(limit, account).map(|event| (event.at, 1)).collect(),
                self.others(Some(id), limit, account).count() as u64,
                1,
                mine.is_none(),
            ),
            LimitName::CustomerDay | LimitName::CustomerPeak => {
                let held = mine.map_or(0, |mine| mine.keys.len() as u64);
                (
                    self.counted(limit, account)
                        .map(|event| (event.at, event.keys.len() as u64 + u64::from(event.unnamed)))
                        .collect(),
                    self.others(Some(id), limit, account).map(|open| open.keys.len() as u64).sum(),
                    all.max(held),
                    all > held,
                )
            }
            LimitName::UserUniques | LimitName::LoginUniques => {
                let seen = self.seen(limit, account);
                let mut own = keys.clone();
                own.extend(mine.iter().flat_map(|mine| &mine.keys));
                let others: BTreeSet<u64> =
                    self.others(Some(id), limit, account).flat_map(|open| open.keys.iter().copied()).collect();
                let held = |key| mine.is_some_and(|mine| mine.keys.contains(key)) || others.contains(key);
                let adds = keys.iter().any(|key| !seen.contains_key(key) && !held(key));
                let reserved = others.iter().filter(|key| !seen.contains_key(key) && !own.contains(key)).count();
                let used = seen.iter().filter(|(key, _)| !own.contains(key)).map(|(_, at)| (*at, 1)).collect();
                (used, reserved as u64, own.len() as u64, adds)
            }
        };
        let total = |used: &[(u64, u64)], horizon| -> u64 {
            used.iter().filter(|(at, _)| *at > horizon).map(|(_, count)| count).sum()
        };
        let window = u64::from(limit.window().seconds());
        let fits_at = (own <= max).then(|| {
            let mut leaves: Vec<u64> = used.iter().map(|(at, _)| *at).collect();
            leaves.sort_unstable();
            let now = std::iter::once((Moment(self.now), 0));
            now.chain(leaves.into_iter().map(|at| (Moment::from_seconds(at + window), at)))
                .find(|(_, horizon)| total(&used, *horizon) + own <= max)
                .map_or(Moment(self.now), |(moment, _)| moment)
        });
        Some((LimitStanding { limit, max, used: total(&used, 0), reserved, own, fits_at }, adds))
    }

    /// The limits that refuse.
    pub fn decide(&self, limits: &Limits, id: u64, who: Who, keys: &BTreeSet<u64>, all: u64) -> Vec<LimitStanding> {
        let over = |limit| {
            let max = limits.0[limit as usize]?;
            let (standing, adds) = self.standing(limit, max, id, who, keys, all)?;
            (adds && standing.used + standing.reserved + standing.own > max).then_some(standing)
        };
        LimitName::ALL.into_iter().filter_map(over).collect()
    }

    pub fn usage(&self, limit: LimitName, account: Account) -> (u64, u64) {
        let open = || self.others(None, limit, account);
        match limit {
            LimitName::UserMessages | LimitName::LoginMessages => {
                (self.counted(limit, account).count() as u64, open().count() as u64)
            }
            LimitName::CustomerDay | LimitName::CustomerPeak => (
                self.counted(limit, account).map(|event| event.keys.len() as u64 + u64::from(event.unnamed)).sum(),
                open().map(|open| open.keys.len() as u64).sum(),
            ),
            LimitName::UserUniques | LimitName::LoginUniques => {
                let seen = self.seen(limit, account);
                let held: BTreeSet<u64> = open().flat_map(|open| open.keys.iter().copied()).collect();
                (seen.len() as u64, held.iter().filter(|key| !seen.contains_key(key)).count() as u64)
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct Limits(pub [Option<u64>; LimitName::COUNT]);

impl Limits {
    pub fn in_force(&self) -> CustomerLimits {
        CustomerLimits::new(Limit::UNLIMITED, |name| self.0[name as usize].map_or(Limit::UNLIMITED, Limit::of))
    }
}
