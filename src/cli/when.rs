//! Times as people type them: `2d`, `friday`, `2026-11-28`, `2026-11-28T17:00`, RFC 3339.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// What a time without an hour means, and where one without a date lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// `--since`: ago; a day means its beginning.
    Past,
    /// `--until`: from now; a day means its end.
    Future,
}

/// How times are written.
pub(super) const FORMS: &str = "write a duration (90s, 30m, 12h, 2d, 1w), a weekday (friday), a date (2026-11-28), a date and time \
     (2026-11-28T17:00), or RFC 3339 (2026-11-28T17:00:00Z)";

/// Now, in the local time zone.
pub(super) fn now() -> Zoned {
    crate::clock::wall_time().to_zoned(jiff::tz::TimeZone::system())
}

/// The time meant. What has no offset is local time, of the zone that `now` is in.
///
/// # Errors
/// It is none of the forms, or cannot exist; one line that says what to write.
pub(super) fn read(text: &str, side: Side, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    let no_time = || format!("\"{}\" is no time; {FORMS}", text.escape_debug());
    if let Some(duration) = duration(text) {
        let duration = if side == Side::Past { -duration } else { duration };
        return now.timestamp().checked_add(duration).map_err(|_| no_time());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // A date would take what stands behind it, too, and forget it.
    if text.contains(':') {
        let time = text.parse::<DateTime>().map_err(|_| no_time())?;
        return time.to_zoned(now.time_zone().clone()).map(|zoned| zoned.timestamp()).map_err(|_| no_time());
    }
    if let Ok(date) = text.parse::<Date>() {
        return day(date, side, now).ok_or_else(no_time);
    }
    let weekday = weekday(text).ok_or_else(no_time)?;
    // The nearest such day on that side, today included.
    let today = now.weekday();
    let days = match side {
        Side::Future => i64::from(today.until(weekday)),
        Side::Past => -i64::from(today.since(weekday)),
    };
    let date = now.date().checked_add(days.days()).map_err(|_| no_time())?;
    day(date, side, now).ok_or_else(no_time)
}

fn day(date: Date, side: Side, now: &Zoned) -> Option<Timestamp> {
    let date = if side == Side::Past { date } else { date.tomorrow().ok()? };
    Some(date.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

fn duration(text: &str) -> Option<SignedDuration> {
    let (last, _) = text.char_indices().next_back()?;
    let seconds = match &text[last..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    let number: u32 = text[..last].replace('_', "").parse().ok()?;
    Some(SignedDuration::from_secs(i64::from(number) * seconds))
}

fn weekday(text: &str) -> Option<Weekday> {
    const DAYS: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let text = text.to_ascii_lowercase();
    DAYS.into_iter().find(|(name, _)| *name == text || (text.len() == 3 && name.starts_with(&text))).map(|(_, day)| day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saturday() -> Zoned {
        "2026-11-21T14:32:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    fn until(text: &str) -> String {
        read(text, Side::Future, &saturday()).unwrap().to_string()
    }

    fn since(text: &str) -> String {
        read(text, Side::Past, &saturday()).unwrap().to_string()
    }

    #[test]
    fn every_form_is_understood() {
        assert_eq!(until("2026-11-28T17:00:00Z"), "2026-11-28T17:00:00Z");
        assert_eq!(until("2026-11-28T17:00:00+01:00"), "2026-11-28T16:00:00Z");
        assert_eq!(until("2026-11-28T17:00"), "2026-11-28T16:00:00Z");
        assert_eq!(until("2026-11-28 17:00"), "2026-11-28T16:00:00Z");
        assert_eq!(until("2d"), "2026-11-23T13:32:00Z");
        assert_eq!(since("90s"), "2026-11-21T13:30:30Z");
        assert_eq!(since("1w"), "2026-11-14T13:32:00Z");
    }

    #[test]
    fn a_day_means_its_end_or_its_beginning() {
        assert_eq!(until("2026-11-28"), "2026-11-28T23:00:00Z");
        assert_eq!(since("2026-11-28"), "2026-11-27T23:00:00Z");
        assert_eq!(until("Friday"), "2026-11-27T23:00:00Z");
        assert_eq!(until("sat"), "2026-11-21T23:00:00Z");
        assert_eq!(since("saturday"), "2026-11-20T23:00:00Z");
        assert_eq!(since("fri"), "2026-11-19T23:00:00Z");
    }

    #[test]
    fn anything_else_is_told_what_to_write() {
        for text in ["", "soon", "2026-13-01", "2x", "d", "99999999999d", "-2d", "ö", "s", "2026-11-28T25:00"] {
            let error = read(text, Side::Future, &saturday()).unwrap_err();
            assert!(error.contains("is no time; write a duration"), "{text}: {error}");
        }
    }
}
