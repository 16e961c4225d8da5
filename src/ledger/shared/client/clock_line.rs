//! Whether a server's clock runs on as it should: pure comparisons of readings.
//!
//! The daemon's own elapsed time (`CLOCK_BOOTTIME`, which counts while the machine sleeps and which nobody can set) says what
//! the server's clock must show now. NTP that slews stays within [`DRIFT`]; a step, of a second or a leap second, within
//! [`TOLERANCE`]; so does the clock of another server after a failover. Whatever is beyond is a jump.

use crate::clock::Moment;
use std::fmt;
use std::time::Duration;

/// How far a reading may be from what is expected. `MAX_AHEAD` in scripts/clock_check.lua is the same.
pub(in crate::ledger::shared) const TOLERANCE: Duration = Duration::from_secs(30);

/// How much a clock may drift on top of that since the last reading: this fraction of the time. NTP slews by half of it at most.
const DRIFT: u32 = 1000;

/// How recently the store's daemons must have vouched for a time to be believed: less than [`TOLERANCE`], so that a jump is
/// never mistaken for it.
const VOUCHED: Duration = Duration::from_secs(20);

/// How far a server's clock may be from the wall clock of a daemon that has no other witness.
const WALL_TOLERANCE: Duration = Duration::from_secs(300);

/// What a server's clock showed at some time between two points of the daemon's elapsed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::shared) struct Reading {
    pub server: Moment,
    pub before: Moment,
    pub after: Moment,
}

/// What a server's clock must show at any time, from its last accepted reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::shared) struct ClockLine {
    server: Moment,
    own: Moment,
}

/// What else speaks for or against a server's time.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ledger::shared) struct Witnesses {
    /// The last time for which a daemon vouched, in the server's time.
    pub vouched: Option<Moment>,
    /// This machine's wall clock: milliseconds since 1970.
    pub wall: i64,
}

/// Why a server's time is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::shared) enum Deviation {
    /// From what this daemon expects: so many milliseconds, ahead if positive.
    Jumped(i64),
    /// A new daemon expects nothing, but the server's clock is so much behind the last time that was vouched for. This machine's
    /// wall clock is no witness for it: both may be the same machine's, just booted, before NTP has set it.
    Behind(i64),
    /// From the wall clock of a new daemon's machine, while nobody vouches for the server.
    Differs(i64),
}

impl ClockLine {
    pub fn from(reading: Reading) -> ClockLine {
        ClockLine { server: reading.server, own: reading.after }
    }

    /// What the server's clock must show then.
    pub fn expected(self, own: Moment) -> Moment {
        Moment(self.at(own).max(0) as u64)
    }

    /// The earliest and the latest time at which the server may decide a request that is sent now.
    pub fn bounds(self, own: Moment) -> (Moment, Moment) {
        let (expected, tolerance) = (self.at(own), self.tolerance(own));
        (Moment((expected - tolerance).max(0) as u64), Moment((expected + tolerance).max(0) as u64))
    }

    /// How far a reading is from what is expected, in milliseconds, ahead if positive. `None`: near enough.
    pub fn deviation(self, reading: Reading) -> Option<i64> {
        let server = reading.server.0 as i64;
        let (earliest, latest) = (self.at(reading.before), self.at(reading.after));
        let deviation = if server < earliest { server - earliest } else { (server - latest).max(0) };
        (deviation.abs() > self.tolerance(reading.after)).then_some(deviation)
    }

    fn at(self, own: Moment) -> i64 {
        self.server.0 as i64 + (own.0 as i64 - self.own.0 as i64)
    }

    fn tolerance(self, own: Moment) -> i64 {
        (TOLERANCE + own.since(self.own) / DRIFT).as_millis() as i64
    }
}

/// Whether a reading is believed. `line`: what this daemon expects; `None`: it has read no clock of the store before.
///
/// # Errors
/// It is not.
pub(in crate::ledger::shared) fn judge(
    line: Option<ClockLine>,
    reading: Reading,
    witnesses: Witnesses,
) -> Result<(), Deviation> {
    let jumped = match line.map(|line| line.deviation(reading)) {
        Some(None) => return Ok(()),
        Some(Some(deviation)) => Some(deviation),
        None => None,
    };
    let server = reading.server;
    // Other daemons count at this time, so if this one expects another, it is this machine that stood still.
    if let Some(vouched) = witnesses.vouched
        && server.plus(TOLERANCE) >= vouched
        && server.since(vouched) <= VOUCHED
    {
        return Ok(());
    }
    let from_wall = server.0 as i64 - witnesses.wall;
    match jumped {
        Some(deviation) => Err(Deviation::Jumped(deviation)),
        None if let Some(vouched) = witnesses.vouched
            && server.plus(TOLERANCE) < vouched =>
        {
            Err(Deviation::Behind((vouched.0 - server.0) as i64))
        }
        // Nothing was counted yet.
        None if witnesses.vouched.is_none() => Ok(()),
        None if from_wall.unsigned_abs() <= WALL_TOLERANCE.as_millis() as u64 => Ok(()),
        None => Err(Deviation::Differs(from_wall)),
    }
}

impl Deviation {
    /// By how many seconds counts are moved if it is accepted, rounded up: what is moved expires late rather than early.
    pub fn seconds(self) -> i64 {
        match self {
            Deviation::Jumped(milliseconds) | Deviation::Differs(milliseconds) => -(-milliseconds).div_euclid(1000),
            // Which of the counts were made while the clock was ahead is unknown. Those that are later than now are moved to now.
            Deviation::Behind(_) => 0,
        }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accept = "run \"relaykeeper quota reset --clock\"";
        match *self {
            Deviation::Jumped(by) => {
                let direction = if by > 0 { "forward" } else { "back" };
                write!(f, "the server's clock jumped {direction} by {}: ", span(by))?;
                write!(f, "correct it (chronyd, ntpd), or, if the new time is right, {accept}")
            }
            Deviation::Behind(by) => {
                write!(f, "the server's clock is {} behind the time at which the store was last used: ", span(by))?;
                write!(f, "correct it (chronyd, ntpd), or, if it is right, {accept}")
            }
            Deviation::Differs(by) => {
                let direction = if by > 0 { "ahead of" } else { "behind" };
                write!(f, "the server's clock is {} {direction} this machine's: ", span(by))?;
                write!(f, "correct whichever is wrong (chronyd, ntpd), or, if the server's is right, {accept}")
            }
        }
    }
}

/// `forward by 1 h 0 min`
pub(in crate::ledger::shared) fn direction(seconds: i64) -> String {
    format!("{} by {}", if seconds < 0 { "back" } else { "forward" }, span(seconds.saturating_mul(1000)))
}

/// The two largest units.
fn span(milliseconds: i64) -> String {
    let seconds = milliseconds.unsigned_abs().saturating_add(500) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let plural = if days == 1 { "" } else { "s" };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} day{plural}"),
        (days, hours, _) => format!("{days} day{plural} {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    /// Half a second on the way.
    fn reading(server: u64, own: u64) -> Reading {
        Reading { server: Moment(server), before: Moment(own), after: Moment(own + 500) }
    }

    fn line() -> ClockLine {
        ClockLine::from(reading(NOON, 0))
    }

    fn witnesses(vouched: Option<u64>, wall: u64) -> Witnesses {
        Witnesses { vouched: vouched.map(Moment), wall: wall as i64 }
    }

    #[test]
    fn what_ntp_does_is_no_jump_and_what_it_steps_is() {
        let none = witnesses(None, NOON);
        // 500 ppm for a week without a reading, either way; a leap second; another server, half a minute off.
        let week = 7 * DAY;
        for (server, own) in [
            (NOON + week + week / 2000, week),
            (NOON + week - week / 2000, week),
            (NOON + HOUR - 1000, HOUR),
            (NOON + 30_000, 0),
            (NOON - 30_000, 0),
        ] {
            assert_eq!(judge(Some(line()), reading(server, own), none), Ok(()), "{server} {own}");
        }
        for (server, own, by) in [
            (NOON + DAY, 1000, DAY as i64 - 1000),
            (NOON - HOUR, 0, 500 - HOUR as i64),
            (NOON + HOUR + 34_000, HOUR, 34_000),
        ] {
            let judged = judge(Some(line()), reading(server, own), none);
            assert_eq!(judged, Err(Deviation::Jumped(by)), "{server} {own}");
        }
    }

    #[test]
    fn slow_drift_never_adds_up_to_a_jump() {
        let mut line = line();
        // Unsynchronized, 100 ppm fast, read every ten seconds: two minutes in two weeks.
        for tick in 1..=120_960 {
            let reading = reading(NOON + tick * 10_001, tick * 10_000);
            assert_eq!(judge(Some(line), reading, Witnesses::default()), Ok(()));
            line = ClockLine::from(reading);
        }
    }

    #[test]
    fn a_daemon_that_stood_still_believes_those_that_did_not() {
        // This machine was paused for an hour; the others have counted on.
        let later = reading(NOON + HOUR, 1000);
        assert_eq!(judge(Some(line()), later, witnesses(Some(NOON + HOUR - 9000), NOON)), Ok(()));
        for vouched in [None, Some(NOON), Some(NOON + HOUR - 21_000), Some(NOON + HOUR + 31_000)] {
            let judged = judge(Some(line()), later, witnesses(vouched, NOON + HOUR));
            assert_eq!(
                judged,
                Err(Deviation::Jumped(HOUR as i64 - 1000)),
                "{vouched:?}: its own wall clock is no witness"
            );
        }
    }

    #[test]
    fn a_new_daemon_believes_the_others_then_its_wall_clock() {
        let now = reading(NOON, 0);
        assert_eq!(judge(None, now, witnesses(None, 0)), Ok(()), "nobody has counted anything");
        assert_eq!(judge(None, now, witnesses(Some(NOON - 10_000), 0)), Ok(()), "this machine's clock is wrong");
        assert_eq!(judge(None, now, witnesses(Some(NOON - DAY), NOON + 299_000)), Ok(()), "nobody ran for a day");
        let ahead = judge(None, now, witnesses(Some(NOON - DAY), NOON - DAY + HOUR));
        assert_eq!(ahead, Err(Deviation::Differs((DAY - HOUR) as i64)));
        let behind = judge(None, now, witnesses(Some(NOON + DAY), NOON + DAY));
        assert_eq!(behind, Err(Deviation::Behind(DAY as i64)));
        let just_booted = judge(None, now, witnesses(Some(NOON + HOUR), NOON));
        assert_eq!(just_booted, Err(Deviation::Behind(HOUR as i64)), "NTP has not set the clock yet");
        assert_eq!(judge(None, reading(NOON + HOUR + 60_000, 0), witnesses(Some(NOON + HOUR), NOON + HOUR)), Ok(()));
    }

    #[test]
    fn a_server_decides_within_the_bounds_only() {
        let (earliest, latest) = line().bounds(Moment(1_000_500));
        assert_eq!((earliest.0, latest.0), (NOON + 1_000_000 - 31_000, NOON + 1_000_000 + 31_000));
        assert_eq!(line().expected(Moment(2500)), Moment(NOON + 2000));
    }

    #[test]
    fn a_jump_is_described_and_rounded_up() {
        let seconds = [1, 1000, 1001, -1, -1000, -1001].map(|by| Deviation::Jumped(by).seconds());
        assert_eq!(seconds, [1, 1, 2, 0, -1, -1]);
        let spans = [45_000, 125_000, 2 * HOUR + 60_000, DAY, 366 * DAY + HOUR].map(|by| span(-(by as i64)));
        assert_eq!(spans, ["45 s", "2 min 5 s", "2 h 1 min", "1 day", "366 days 1 h"]);
        assert_eq!(
            Deviation::Jumped(-3_600_000).to_string(),
            "the server's clock jumped back by 1 h 0 min: correct it (chronyd, ntpd), or, if the new time is right, run \"relaykeeper quota reset --clock\""
        );
    }
}
