//! A count over a rolling window.
//!
//! Exact by the second while it has few entries; beyond that, neighbours in one bucket of a 120th of the window are merged and
//! keep the *later* time. So a count may expire late, by less than 1 % of the window, but never early.

use crate::clock::Moment;
use std::collections::VecDeque;

/// How many entries are exact before neighbours are merged.
const EXACT_ENTRIES: usize = 64;

/// How many buckets a window has.
const BUCKETS: u32 = 120;

/// What was counted in the last `SECONDS` seconds.
#[derive(Clone, Debug)]
pub(super) struct Rolling<const SECONDS: u32> {
    /// By time, without repeats. An entry has what was counted after the time of the entry before it, up to its own.
    entries: VecDeque<Entry>,
    total: u64,
    /// The time of the first entry (`u32::MAX`: none), so that most reads need not follow the pointer.
    oldest: u32,
    /// Everything up to this second has left the window.
    forgotten: u32,
}

/// The last 24 hours.
pub(super) type Day = Rolling<86_400>;
/// The last 10 minutes.
pub(super) type TenMinutes = Rolling<600>;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// In seconds, rounded up.
    time: u32,
    count: u32,
}

impl<const SECONDS: u32> Default for Rolling<SECONDS> {
    fn default() -> Self {
        Rolling { entries: VecDeque::new(), total: 0, oldest: u32::MAX, forgotten: 0 }
    }
}

impl<const SECONDS: u32> Rolling<SECONDS> {
    const BUCKET: u32 = SECONDS / BUCKETS;

    /// The last second that has left a window that ends now.
    pub fn horizon(now: Moment) -> u32 {
        ((now.0 / 1000) as u32).saturating_sub(SECONDS)
    }

    /// What is counted within the window that ends now.
    pub fn total(&mut self, now: Moment) -> u64 {
        self.expire(now);
        self.total
    }

    /// An upper bound of [`Rolling::total`]: it may include what has expired. Follows no pointer.
    pub fn at_most(&self) -> u64 {
        self.total
    }

    /// Counts `count` at the second `at`, or at the latest second that was counted before, if that is later.
    pub fn push(&mut self, at: u32, count: u32) {
        let Some(last) = self.entries.back().copied() else { return self.insert(0, at, count) };
        let at = at.max(last.time);
        let merges = at == last.time || (self.entries.len() >= EXACT_ENTRIES && same_bucket::<SECONDS>(at, last.time));
        match self.entries.back_mut() {
            Some(back) if merges && back.count.checked_add(count).is_some() => {
                back.time = at;
                back.count += count;
                self.total += u64::from(count);
                if self.entries.len() == 1 {
                    self.oldest = at;
                }
            }
            _ => self.insert(self.entries.len(), at, count),
        }
    }

    /// Counts one at the second `at`, exactly, even if that lies before others.
    pub fn count_one(&mut self, at: u32) {
        match self.entries.back() {
            Some(last) if at < last.time => self.add_one_before_the_last(at),
            _ => self.push(at, 1),
        }
    }

    fn add_one_before_the_last(&mut self, at: u32) {
        let place = self.covering(at);
        if let Some(entry) = self.entries.get_mut(place)
            && same_bucket::<SECONDS>(at, entry.time)
        {
            entry.count += 1;
            self.total += 1;
            return;
        }
        // Moving the entry before it up to `at` keeps the ranges apart, and the number of entries bounded.
        if self.entries.len() >= EXACT_ENTRIES
            && let Some(before) = place.checked_sub(1)
            && same_bucket::<SECONDS>(at, self.entries[before].time)
        {
            let entry = &mut self.entries[before];
            entry.time = at;
            entry.count += 1;
            self.total += 1;
            if before == 0 {
                self.oldest = at;
            }
            return;
        }
        self.insert(place, at, 1);
    }

    /// Uncounts one that was counted at the second `at` and is still [within the window](Self::counts).
    pub fn remove_one_at(&mut self, at: u32) {
        let place = self.covering(at);
        if let Some(entry) = self.entries.get_mut(place)
            && entry.count > 0
        {
            entry.count -= 1;
            self.total -= 1;
        }
    }

    /// Whether what was counted at the second `at` is still within the window.
    pub fn counts(&self, at: u32) -> bool {
        at > self.forgotten
    }

    /// Drops what has left the window.
    pub fn expire(&mut self, now: Moment) {
        let horizon = Self::horizon(now);
        if self.oldest > horizon {
            return;
        }
        while let Some(first) = self.entries.front()
            && first.time <= horizon
        {
            self.total -= u64::from(first.count);
            self.forgotten = first.time;
            self.entries.pop_front();
        }
        self.oldest = self.entries.front().map_or(u32::MAX, |first| first.time);
        if self.entries.capacity() > EXACT_ENTRIES / 2 && self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// When at most `allowed` will be left of what is counted now.
    pub fn falls_to(&mut self, allowed: u64, now: Moment) -> Moment {
        let mut left = self.total(now);
        for entry in &self.entries {
            if left <= allowed {
                break;
            }
            left -= u64::from(entry.count);
            if left <= allowed {
                return leaves::<SECONDS>(entry.time);
            }
        }
        now
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Rolling { forgotten: self.forgotten, ..Rolling::default() };
    }

    /// The entry that has what was counted at the second `at`.
    fn covering(&self, at: u32) -> usize {
        self.entries.partition_point(|entry| entry.time < at)
    }

    fn insert(&mut self, place: usize, at: u32, count: u32) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(room_for_more::<Entry>(self.entries.len()));
        }
        self.entries.insert(place, Entry { time: at, count });
        self.total += u64::from(count);
        if place == 0 {
            self.oldest = at;
        }
    }
}

/// By how much a full list of `length` grows. Most lists stay short, and there are millions of them, so they grow not to twice their
/// size but to the next size class of allocators, which have four in each doubling: what is between two classes would be wasted.
pub(super) fn room_for_more<T>(length: usize) -> usize {
    let least = (length + 2) * size_of::<T>();
    let step = (least.next_power_of_two() / 8).max(16);
    least.next_multiple_of(step) / size_of::<T>() - length
}

/// When what was counted at a second leaves the window.
fn leaves<const SECONDS: u32>(at: u32) -> Moment {
    Moment::from_seconds(u64::from(at) + u64::from(SECONDS))
}

/// Buckets are anchored to the epoch, so they never drift.
fn same_bucket<const SECONDS: u32>(a: u32, b: u32) -> bool {
    a / Rolling::<SECONDS>::BUCKET == b / Rolling::<SECONDS>::BUCKET
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u32 = 1_700_000_000;

    fn moment(second: u32) -> Moment {
        Moment::from_seconds(second.into())
    }

    #[test]
    fn a_count_leaves_after_exactly_its_window() {
        let mut window = TenMinutes::default();
        window.push(START, 3);
        assert_eq!(window.total(Moment(moment(START + 600).0 - 1)), 3);
        assert_eq!(window.total(moment(START + 600)), 0);
        assert!(window.is_empty());
    }

    #[test]
    fn a_clock_that_steps_back_neither_forgets_nor_doubles() {
        let mut window = Day::default();
        window.push(START, 1);
        window.push(START - 3600, 1);
        assert_eq!(window.total(moment(START - 3600)), 2);
        assert_eq!(window.total(moment(START + 86_399)), 2);
        assert_eq!(window.total(moment(START + 86_400)), 0);
    }

    #[test]
    fn it_says_when_room_is_made() {
        let mut window = Day::default();
        window.push(START, 2);
        window.push(START + 10, 2);
        assert_eq!(window.falls_to(4, moment(START + 20)), moment(START + 20));
        assert_eq!(window.falls_to(3, moment(START + 20)), moment(START + 86_400));
        assert_eq!(window.falls_to(0, moment(START + 20)), moment(START + 86_410));
    }

    #[test]
    fn it_stays_short_however_much_is_counted() {
        let mut window = Day::default();
        for second in 0..200_000 {
            window.push(START + second, 1);
            window.expire(moment(START + second));
            assert!(window.entries.len() <= EXACT_ENTRIES + BUCKETS as usize + 2);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u32),
        Count(u32),
        /// Move the n-th of those that are counted still to now.
        Move(usize),
        /// Take the n-th back.
        Take(usize),
        /// Count again the last one that was taken back.
        PutBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![Just(0u32), Just(1), 0u32..10, 0u32..700, 0u32..90_000].prop_map(Step::Wait),
            4 => (1u32..4).prop_map(Step::Count),
            2 => any::<usize>().prop_map(Step::Move),
            2 => any::<usize>().prop_map(Step::Take),
            2 => Just(Step::PutBack),
        ]
    }

    /// Never under the true count, and over it only by what left the window less than a 1 % of it ago.
    fn check<const SECONDS: u32>(steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut window = Rolling::<SECONDS>::default();
        let mut events: Vec<u32> = Vec::new();
        let mut taken: Vec<u32> = Vec::new();
        let mut now = START;
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds,
                Step::Count(count) => {
                    window.push(now, count);
                    events.extend(std::iter::repeat_n(now, count as usize));
                }
                Step::Move(nth) | Step::Take(nth) => {
                    window.expire(moment(now));
                    let live: Vec<usize> = (0..events.len()).filter(|&i| window.counts(events[i])).collect();
                    if !live.is_empty() {
                        let event = events.swap_remove(live[nth % live.len()]);
                        window.remove_one_at(event);
                        if matches!(step, Step::Move(_)) {
                            window.push(now, 1);
                            events.push(now);
                        } else {
                            taken.push(event);
                        }
                    }
                }
                Step::PutBack => {
                    window.expire(moment(now));
                    if let Some(event) = taken.pop()
                        && window.counts(event)
                    {
                        window.count_one(event);
                        events.push(event);
                    }
                }
            }
            let total = window.total(moment(now));
            let within = |seconds: u32| events.iter().filter(|&&at| at > now - seconds).count() as u64;
            prop_assert!(total >= within(SECONDS));
            prop_assert!(total <= within(SECONDS + SECONDS / 100));
            prop_assert_eq!(total, events.iter().filter(|&&at| window.counts(at)).count() as u64);
            prop_assert_eq!(total, window.entries.iter().map(|entry| u64::from(entry.count)).sum::<u64>());
            prop_assert!(window.entries.iter().is_sorted_by(|a, b| a.time <= b.time));
            prop_assert_eq!(window.oldest, window.entries.front().map_or(u32::MAX, |entry| entry.time));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_day_agrees_with_a_list_of_events(steps in prop::collection::vec(step(), 1..600)) {
            check::<86_400>(steps)?;
        }

        #[test]
        fn ten_minutes_agree_with_a_list_of_events(steps in prop::collection::vec(step(), 1..600)) {
            check::<600>(steps)?;
        }
    }
}
