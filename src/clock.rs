//! The one source of time.
//!
//! What counts for windows is the time that passed, also while the machine was suspended (`CLOCK_BOOTTIME`,
//! clock_gettime(2)); the wall clock is read once, when the daemon starts. So setting it forth or back frees nothing
//! and counts nothing twice.

use nix::time::{ClockId, clock_gettime};
use std::fmt;
use std::time::Duration;

/// A point on the ledger's own time line, in milliseconds. It began as the wall clock's time since 1970 and never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    pub const fn from_seconds(seconds: u64) -> Moment {
        Moment(seconds * 1000)
    }

    /// Whole seconds, rounded up: a count that is stored by the second never ends early.
    pub const fn seconds_up(self) -> u32 {
        self.0.div_ceil(1000) as u32
    }

    pub const fn plus(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration.as_millis() as u64))
    }

    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Tells the time. Tests bring their own.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time that passed, on the ledger's time line.
    fn now(&self) -> Moment;

    /// What the wall clock shows, or will show, at a moment of the ledger's time line: milliseconds since 1970.
    fn wall(&self, moment: Moment) -> i64;

    /// Marks where the time line stands, for the store.
    fn anchor(&self) -> Anchor {
        Anchor { moment: self.now(), boot_id: String::new(), since_boot_ms: 0 }
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    /// What has to be added to the time since boot.
    offset: i64,
}

/// Where the time line stood at some instant, to be found again after a restart of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub moment: Moment,
    pub boot_id: String,
    pub since_boot_ms: u64,
}

impl SystemClock {
    /// Starts the time line, or goes on with the one that `last` marks: within one boot by the time that passed, whatever was
    /// done to the wall clock; after a reboot by the wall clock, but never backwards.
    pub fn start(last: Option<&Anchor>) -> SystemClock {
        let since_boot = since_boot_ms();
        let now = match last {
            Some(anchor) if !anchor.boot_id.is_empty() && anchor.boot_id == boot_id() => {
                anchor.moment.0 + since_boot.saturating_sub(anchor.since_boot_ms)
            }
            Some(anchor) => anchor.moment.0.max(wall_ms()),
            None => wall_ms(),
        };
        SystemClock { offset: now as i64 - since_boot as i64 }
    }

    /// Marks where the time line stands.
    pub fn anchor(&self) -> Anchor {
        let since_boot_ms = since_boot_ms();
        Anchor { moment: self.at(since_boot_ms), boot_id: boot_id(), since_boot_ms }
    }

    fn at(&self, since_boot_ms: u64) -> Moment {
        Moment((since_boot_ms as i64).saturating_add(self.offset).max(0) as u64)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        self.at(since_boot_ms())
    }

    fn wall(&self, moment: Moment) -> i64 {
        wall_ms() as i64 + (moment.0 as i64 - self.now().0 as i64)
    }

    fn anchor(&self) -> Anchor {
        SystemClock::anchor(self)
    }
}

/// What the wall clock shows now, for commands that have no ledger.
pub fn wall_time() -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(wall_ms() as i64).unwrap_or_default()
}

/// The time since the machine's start, also while it was suspended. Nobody can set it.
pub fn since_boot() -> Moment {
    Moment(since_boot_ms())
}

fn since_boot_ms() -> u64 {
    read(ClockId::CLOCK_BOOTTIME) + test_shift_ms()
}

fn wall_ms() -> u64 {
    read(ClockId::CLOCK_REALTIME) + test_shift_ms()
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux that Rust supports; a clock that cannot be read counts as stopped.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000)
}

/// Tells this boot from the next (random(4)); empty where it cannot be known.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// `RELAYKEEPER_CLOCK` names a file with a number of seconds that is added to every reading.
#[cfg(feature = "test-clock")]
pub(crate) fn test_shift_ms() -> u64 {
    let Some(path) = std::env::var_os("RELAYKEEPER_CLOCK") else { return 0 };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse::<u64>().unwrap_or(0) * 1000
}

#[cfg(not(feature = "test-clock"))]
pub(crate) const fn test_shift_ms() -> u64 {
    0
}

/// A clock that moves only when a test advances it.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

impl ManualClock {
    pub fn at(moment: Moment) -> ManualClock {
        ManualClock(moment.0.into())
    }

    pub fn advance(&self, duration: Duration) {
        self.0.fetch_add(duration.as_millis() as u64, std::sync::atomic::Ordering::Relaxed);
    }

    pub fn set(&self, moment: Moment) {
        self.0.store(moment.0, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn wall(&self, moment: Moment) -> i64 {
        moment.0 as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_line_goes_on_within_a_boot_whatever_the_wall_clock_says() {
        let before = SystemClock::start(None);
        let mut anchor = before.anchor();
        anchor.moment.0 += 3_600_000; // as if the wall clock had been set back by an hour since
        let after = SystemClock::start(Some(&anchor));
        assert!(after.now() >= anchor.moment);
        assert!(after.now().since(anchor.moment) < Duration::from_secs(60));
    }

    #[test]
    fn after_a_reboot_the_time_line_never_goes_back() {
        let clock = SystemClock::start(None);
        let mut anchor = clock.anchor();
        anchor.boot_id = "another boot".into();
        anchor.moment.0 += 3_600_000;
        assert!(SystemClock::start(Some(&anchor)).now() >= anchor.moment);
    }

    #[test]
    fn seconds_round_up() {
        assert_eq!(Moment(1000).seconds_up(), 1);
        assert_eq!(Moment(1001).seconds_up(), 2);
    }
}
