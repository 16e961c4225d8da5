//! A count over the last minute, in a few bytes that never become more.

use crate::clock::Moment;

/// Of so many milliseconds.
const BUCKET: u64 = 4_000;

/// A minute, and the bucket that has only begun.
const BUCKETS: usize = 16;

/// What was counted in the last 60 seconds, and up to one bucket more: it may forget late, never early.
#[derive(Clone, Debug, Default)]
pub(super) struct Minute {
    buckets: [u32; BUCKETS],
    /// The last bucket that was counted in. Buckets are anchored to the epoch, so they never drift.
    last: u64,
}

impl Minute {
    pub fn count(&mut self, now: Moment) {
        self.advance(now);
        let bucket = &mut self.buckets[place(self.last)];
        *bucket = bucket.saturating_add(1);
    }

    pub fn total(&mut self, now: Moment) -> u64 {
        self.advance(now);
        self.buckets.iter().map(|&count| u64::from(count)).sum()
    }

    /// Takes back one that was counted at `at`.
    pub fn take_back(&mut self, at: Moment) {
        let bucket = at.0 / BUCKET;
        if bucket + BUCKETS as u64 > self.last {
            let count = &mut self.buckets[place(bucket)];
            *count = count.saturating_sub(1);
        }
    }

    fn advance(&mut self, now: Moment) {
        let now = (now.0 / BUCKET).max(self.last);
        for bucket in self.last + 1..=now.min(self.last + BUCKETS as u64) {
            self.buckets[place(bucket)] = 0;
        }
        self.last = now;
    }
}

fn place(bucket: u64) -> usize {
    (bucket % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Never under the true count, and over it only by what left the minute less than a bucket ago.
        #[test]
        fn it_agrees_with_a_list_of_events(steps in prop::collection::vec((0_u64..9_000, any::<bool>()), 1..200)) {
            let mut minute = Minute::default();
            let mut events: Vec<u64> = Vec::new();
            let mut now = 1_800_000_000_000;
            for (wait, takes_back) in steps {
                now += wait;
                match events.pop() {
                    Some(last) if takes_back => minute.take_back(Moment(last)),
                    last => {
                        events.extend(last);
                        events.push(now);
                        minute.count(Moment(now));
                    }
                }
                let within = |ms: u64| events.iter().filter(|&&at| at + ms > now).count() as u64;
                let total = minute.total(Moment(now));
                prop_assert!(total >= within(60_000) && total <= within(60_000 + BUCKET), "{total}");
            }
        }
    }

    #[test]
    fn long_silence_forgets_everything() {
        let mut minute = Minute::default();
        minute.count(Moment(1_800_000_000_000));
        assert_eq!(minute.total(Moment(1_800_000_059_999)), 1);
        assert_eq!(minute.total(Moment(1_800_000_064_000)), 0);
        minute.take_back(Moment(1_800_000_000_000));
        assert_eq!(minute.total(Moment(1_900_000_000_000)), 0);
    }
}
