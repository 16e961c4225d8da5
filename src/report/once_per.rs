//! Says the same thing once in a while, however often it happens.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

/// Lets one of many equal reports pass per period, and counts the others.
///
/// Remembers a bounded number of keys; one that was pushed out is reported again when it comes back.
///
/// ```
/// # use relaykeeper::report::OncePer;
/// # use std::time::{Duration, Instant};
/// let garbage = OncePer::new(Duration::from_secs(60), 1024);
/// let now = Instant::now();
/// assert_eq!(garbage.check("192.0.2.7", now), Some(0));
/// assert_eq!(garbage.check("192.0.2.7", now), None);
/// assert_eq!(garbage.check("192.0.2.7", now + Duration::from_secs(60)), Some(1));
/// ```
#[derive(Debug)]
pub struct OncePer<K: Hash + Eq> {
    period: Duration,
    seen: Mutex<LruCache<K, Seen>>,
}

#[derive(Debug)]
struct Seen {
    reported: Instant,
    suppressed: u64,
}

impl<K: Hash + Eq> OncePer<K> {
    /// One report per `period` for each of the `keys` most recent keys (at least one).
    pub fn new(period: Duration, keys: usize) -> OncePer<K> {
        let keys = NonZeroUsize::new(keys).unwrap_or(NonZeroUsize::MIN);
        OncePer { period, seen: Mutex::new(LruCache::new(keys)) }
    }

    /// `Some` when this is to be reported, with the number of equal ones kept back since the last report.
    pub fn check(&self, key: K, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock();
        let Some(entry) = seen.get_mut(&key) else {
            seen.put(key, Seen { reported: now, suppressed: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(entry.reported) < self.period {
            entry.suppressed += 1;
            return None;
        }
        entry.reported = now;
        Some(std::mem::take(&mut entry.suppressed))
    }
}

/// How a report tells of those that were kept back: ` (3 more like it)`; nothing, if none were.
pub fn and_more(suppressed: u64) -> String {
    if suppressed > 0 { format!(" ({suppressed} more like it)") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn keys_do_not_share_their_period() {
        let once = OncePer::new(MINUTE, 8);
        let now = Instant::now();
        assert_eq!(once.check("a", now), Some(0));
        assert_eq!(once.check("b", now), Some(0));
        assert_eq!(once.check("a", now), None);
    }

    #[test]
    fn the_kept_back_are_counted_once() {
        let once = OncePer::new(MINUTE, 8);
        let start = Instant::now();
        assert_eq!(once.check((), start), Some(0));
        for second in 1..60 {
            assert_eq!(once.check((), start + Duration::from_secs(second)), None);
        }
        assert_eq!(once.check((), start + MINUTE), Some(59));
        assert_eq!(once.check((), start + 2 * MINUTE), Some(0));
    }

    #[test]
    fn memory_is_bounded() {
        let once = OncePer::new(MINUTE, 4);
        let now = Instant::now();
        for client in 0..1000 {
            assert_eq!(once.check(client, now), Some(0));
        }
        assert_eq!(once.seen.lock().len(), 4);
        assert_eq!(once.check(999, now), None);
        assert_eq!(once.check(0, now), Some(0));
    }
}
