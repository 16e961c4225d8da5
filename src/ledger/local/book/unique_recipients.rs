//! The unique recipients of the last 24 hours.
//!
//! A few are a plain list, exact by the second. Many are a hash table, and a rolling count of when each was last seen: a
//! recipient is remembered for as long as that count has it, so the number is never below the true one.

use super::rolling::{Day, room_for_more};
use super::seen_table::{Seen, SeenTable};
use crate::clock::Moment;
use crate::ledger::RecipientKey;

/// Up to this many are a plain list.
const FEW: usize = 32;

/// A table becomes a list again when at most this many are in it, expired ones included.
const LOOKED_THROUGH: usize = 4096;

/// Who was sent to, and when last.
#[derive(Clone, Debug)]
pub(super) enum UniqueRecipients {
    Few(Vec<Seen>),
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
pub(super) struct Many {
    /// Contains some that have expired, until it would have to grow.
    table: SeenTable,
    times: Day,
}

impl Default for UniqueRecipients {
    fn default() -> Self {
        UniqueRecipients::Few(Vec::new())
    }
}

impl UniqueRecipients {
    /// An upper bound of [`UniqueRecipients::count`], without following a pointer for a few.
    pub fn at_most(&self) -> u64 {
        match self {
            UniqueRecipients::Few(list) => list.len() as u64,
            UniqueRecipients::Many(many) => many.times.at_most(),
        }
    }

    /// How many were seen within the window.
    pub fn count(&mut self, now: Moment) -> u64 {
        match self {
            UniqueRecipients::Few(list) => {
                let horizon = Day::horizon(now);
                list.iter().filter(|seen| seen.at > horizon).count() as u64
            }
            UniqueRecipients::Many(many) => many.times.total(now),
        }
    }

    /// When it was last seen, if that is within the window.
    pub fn last_seen(&mut self, key: RecipientKey, now: Moment) -> Option<u32> {
        match self {
            UniqueRecipients::Few(list) => {
                let horizon = Day::horizon(now);
                list.iter().find(|seen| seen.key() == key && seen.at > horizon).map(|seen| seen.at)
            }
            UniqueRecipients::Many(many) => many.last_seen(key, now),
        }
    }

    /// Whether what was seen at the second `at` is within the window.
    pub fn counts(&mut self, at: u32, now: Moment) -> bool {
        match self {
            UniqueRecipients::Few(_) => at > Day::horizon(now),
            UniqueRecipients::Many(many) => {
                many.times.expire(now);
                many.times.counts(at)
            }
        }
    }

    /// Uncounts one, and returns when it was last seen, if that is within the window.
    pub fn take(&mut self, key: RecipientKey, now: Moment) -> Option<u32> {
        match self {
            UniqueRecipients::Few(list) => {
                let place = list.iter().position(|seen| seen.key() == key)?;
                let seen = list.swap_remove(place);
                (seen.at > Day::horizon(now)).then_some(seen.at)
            }
            UniqueRecipients::Many(many) => {
                let at = many.last_seen(key, now)?;
                many.times.remove_one_at(at);
                Some(at)
            }
        }
    }

    /// Counts one that is not counted now, as last seen at the second `at`. Does nothing if that has left the window.
    pub fn put(&mut self, key: RecipientKey, at: u32, now: Moment) {
        match self {
            UniqueRecipients::Few(list) => {
                let horizon = Day::horizon(now);
                if at <= horizon {
                    return;
                }
                if list.len() == list.capacity() {
                    list.retain(|seen| seen.at > horizon);
                }
                if list.len() == list.capacity() {
                    list.reserve_exact(room_for_more::<Seen>(list.len()));
                }
                list.push(Seen::new(key, at));
                if list.len() > FEW {
                    *self = UniqueRecipients::Many(Box::new(Many::of(list, now)));
                }
            }
            UniqueRecipients::Many(many) => many.put(key, at, now),
        }
    }

    /// Counts one as seen at the second `at`, whether it is counted now or not.
    pub fn refresh(&mut self, key: RecipientKey, at: u32, now: Moment) {
        let before = self.take(key, now).unwrap_or(0);
        self.put(key, at.max(before), now);
    }

    /// When at most `allowed` will be left of what is counted now, without the recipients `without`, and with more that
    /// were last seen at the seconds `with`.
    pub fn falls_to(&mut self, allowed: u64, now: Moment, without: &[RecipientKey], with: &[u32]) -> Moment {
        let mut times = match self {
            UniqueRecipients::Few(list) => {
                let horizon = Day::horizon(now);
                let counted = list.iter().filter(|seen| seen.at > horizon && !without.contains(&seen.key()));
                day_of(counted.map(|seen| seen.at).chain(with.iter().copied()).collect())
            }
            UniqueRecipients::Many(many) => {
                let mut times = many.times.clone();
                let left_out = without.iter().filter_map(|&key| many.last_seen(key, now));
                left_out.for_each(|at| times.remove_one_at(at));
                with.iter().for_each(|&at| times.count_one(at));
                times
            }
        };
        times.falls_to(allowed, now)
    }

    /// Frees the memory of what has expired. Nothing may be taken at the time.
    pub fn tidy(&mut self, now: Moment) {
        match self {
            UniqueRecipients::Few(list) => {
                let horizon = Day::horizon(now);
                list.retain(|seen| seen.at > horizon);
                if list.len() * 2 < list.capacity() {
                    list.shrink_to_fit();
                }
            }
            UniqueRecipients::Many(many) => {
                let counted = many.times.total(now) as usize;
                many.tidy();
                if counted <= FEW / 2 && many.table.len() <= LOOKED_THROUGH {
                    *self = UniqueRecipients::Few(many.counted());
                }
            }
        }
    }

    /// Whether there is nothing, not even expired.
    pub fn is_empty(&self) -> bool {
        matches!(self, UniqueRecipients::Few(list) if list.is_empty())
    }

    pub fn clear(&mut self) {
        *self = UniqueRecipients::default();
    }
}

impl Many {
    fn of(list: &[Seen], now: Moment) -> Many {
        let times = day_of(list.iter().map(|seen| seen.at).collect());
        let mut many = Many { table: SeenTable::with_capacity(list.len() * 2), times };
        list.iter().for_each(|seen| many.table.set(seen.key(), seen.at, |_| true));
        many.times.expire(now);
        many
    }

    fn last_seen(&mut self, key: RecipientKey, now: Moment) -> Option<u32> {
        self.times.expire(now);
        self.table.get(key).filter(|&at| self.times.counts(at))
    }

    fn put(&mut self, key: RecipientKey, at: u32, now: Moment) {
        self.times.expire(now);
        if !self.times.counts(at) {
            return;
        }
        self.times.count_one(at);
        let times = &self.times;
        self.table.set(key, at, |at| times.counts(at));
    }

    /// One part of the table at a time.
    fn tidy(&mut self) {
        let times = &self.times;
        self.table.tidy(|at| times.counts(at));
    }

    fn counted(&self) -> Vec<Seen> {
        self.table.iter().filter(|seen| self.times.counts(seen.at)).copied().collect()
    }
}

fn day_of(mut times: Vec<u32>) -> Day {
    times.sort_unstable();
    let mut day = Day::default();
    times.iter().for_each(|&at| day.push(at, 1));
    day
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const START: u32 = 1_700_000_000;
    const DAY: u32 = 86_400;

    fn moment(second: u32) -> Moment {
        Moment::from_seconds(second.into())
    }

    #[test]
    fn it_is_three_words_whatever_it_holds() {
        assert_eq!(size_of::<UniqueRecipients>(), 24);
    }

    #[test]
    fn the_same_recipient_counts_once_until_a_day_after_it_was_last_seen() {
        let mut remembered = UniqueRecipients::default();
        remembered.refresh(RecipientKey(1), START, moment(START));
        remembered.refresh(RecipientKey(1), START + 100, moment(START + 100));
        assert_eq!(remembered.count(moment(START + 86_499)), 1);
        assert_eq!(remembered.last_seen(RecipientKey(1), moment(START + 86_499)), Some(START + 100));
        assert_eq!(remembered.count(moment(START + 86_500)), 0);
        assert_eq!(remembered.last_seen(RecipientKey(1), moment(START + 86_500)), None);
    }

    #[test]
    fn it_says_when_room_is_made_without_some_and_with_others() {
        for many in [3, 100] {
            let mut remembered = UniqueRecipients::default();
            (0..many).for_each(|n| {
                remembered.refresh(RecipientKey(n), START + n as u32 * 500, moment(START + n as u32 * 500))
            });
            let now = moment(START + 60_000);
            let room = |remembered: &mut UniqueRecipients, allowed, without: &[RecipientKey], with: &[u32]| {
                remembered.falls_to(allowed, now, without, with)
            };
            assert_eq!(room(&mut remembered, many, &[], &[]), now);
            for (allowed, without, with, leaves_first) in [
                (many - 1, &[][..], &[][..], START),
                (many - 2, &[RecipientKey(0)], &[], START + 500),
                (many, &[], &[START + 100], START),
                (many - 1, &[], &[START + 100], START + 100),
            ] {
                let found = room(&mut remembered, allowed, without, with).seconds_up() - DAY;
                let late = if many == 3 { 0 } else { DAY / 120 };
                assert!((leaves_first..=leaves_first + late).contains(&found), "{many} {allowed} {found}");
            }
        }
    }

    #[test]
    fn it_becomes_small_again() {
        let mut remembered = UniqueRecipients::default();
        (0..5000).for_each(|key| remembered.refresh(RecipientKey(key), START, moment(START)));
        (0..5).for_each(|key| remembered.refresh(RecipientKey(key), START + 50_000, moment(START + 50_000)));
        remembered.tidy(moment(START + 86_400));
        assert!(matches!(&remembered, UniqueRecipients::Few(list) if list.len() == 5));
        remembered.tidy(moment(START + 200_000));
        assert!(remembered.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u32),
        Refresh(u64),
        Take(u64),
        PutBack,
        Tidy,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || prop_oneof![0u64..8, 0u64..200];
        prop_oneof![
            3 => prop_oneof![0u32..10, 0u32..700, 0u32..5_000, 0u32..90_000].prop_map(Step::Wait),
            8 => key().prop_map(Step::Refresh),
            2 => key().prop_map(Step::Take),
            2 => Just(Step::PutBack),
            1 => Just(Step::Tidy),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list_of_events(steps in prop::collection::vec(step(), 1..800)) {
            let mut remembered = UniqueRecipients::default();
            let mut last_seen: BTreeMap<u64, u32> = BTreeMap::new();
            let mut taken: BTreeMap<u64, u32> = BTreeMap::new();
            let mut now = START;
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += seconds,
                    Step::Refresh(key) if !taken.contains_key(&key) => {
                        remembered.refresh(RecipientKey(key), now, moment(now));
                        last_seen.insert(key, now);
                    }
                    Step::Take(key) if !taken.contains_key(&key) => {
                        if let Some(at) = remembered.take(RecipientKey(key), moment(now)) {
                            prop_assert_eq!(last_seen.remove(&key), Some(at));
                            taken.insert(key, at);
                        }
                    }
                    Step::PutBack => {
                        if let Some((key, at)) = taken.pop_first() {
                            remembered.put(RecipientKey(key), at, moment(now));
                            last_seen.insert(key, at);
                        }
                    }
                    Step::Tidy if taken.is_empty() => remembered.tidy(moment(now)),
                    _ => {}
                }
                let count = remembered.count(moment(now));
                let within = |seconds: u32| last_seen.values().filter(|&&at| at > now - seconds).count() as u64;
                prop_assert!(count >= within(DAY));
                prop_assert!(count <= within(DAY + DAY / 100));
                let known: BTreeSet<u64> = (0..200)
                    .filter(|key| !taken.contains_key(key))
                    .filter(|&key| remembered.last_seen(RecipientKey(key), moment(now)).is_some())
                    .collect();
                prop_assert_eq!(known.len() as u64, count);
                for key in known {
                    prop_assert!(last_seen.get(&key).is_some_and(|&at| at > now - DAY - DAY / 100));
                }
            }
        }
    }
}
