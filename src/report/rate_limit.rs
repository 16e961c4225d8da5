//! Lets only so many events a second pass, however many there are.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A token bucket.
#[derive(Debug)]
pub struct RateLimit {
    /// Between two events, once the burst is over.
    interval: Duration,
    burst: u32,
    /// When the bucket would be full again, if nothing more came.
    full_at: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// `per_second` events a second (at least 1), and up to `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> RateLimit {
        let interval = Duration::from_secs(1) / per_second.max(1);
        RateLimit { interval, burst: burst.max(1), full_at: Mutex::new(None) }
    }

    /// Whether an event passes now.
    pub fn passes(&self, now: Instant) -> bool {
        let mut full_at = self.full_at.lock();
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + self.interval;
        let passes = next.saturating_duration_since(now) <= self.interval * self.burst;
        if passes {
            *full_at = Some(next);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (limit, start) = (RateLimit::new(10, 5), Instant::now());
        let passed = |millis: u64, events: usize| {
            let now = start + Duration::from_millis(millis);
            (0..events).filter(|_| limit.passes(now)).count()
        };
        assert_eq!(passed(0, 1_000), 5);
        assert_eq!(passed(99, 10), 0);
        assert_eq!(passed(100, 10), 1);
        assert_eq!(passed(300, 10), 2);
        assert_eq!(passed(10_000, 10), 5, "no more than the burst is saved");
    }
}
