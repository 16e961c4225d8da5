//! Times as people type them: `2d`, `friday`, `2026-11-28`, `2026-11-28T17:00`, RFC 3339.

use super::{USAGE, print};
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

/// The time that somebody meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Understood {
    pub time: Timestamp,
    /// Only a day was named.
    pub is_day: bool,
}

/// A day that ends sooner than this may not be the one that was meant.
const SOON: SignedDuration = SignedDuration::from_hours(24);

/// How times are written.
pub(super) const FORMS: &str = "write a duration (90s, 30m, 12h, 2d, 1w), a weekday (friday), a date (2026-11-28), a date and time \
     (2026-11-28T17:00), or RFC 3339 (2026-11-28T17:00:00Z)";

/// Now, in the local time zone.
pub(super) fn now() -> Zoned {
    crate::clock::wall_time().to_zoned(jiff::tz::TimeZone::system())
}

/// The value of `--until`; says which time a day stands for, and what is wrong.
///
/// # Errors
/// The exit code, where it is no time.
pub(super) fn until(text: &str) -> Result<Timestamp, u8> {
    let now = now();
    match read(text, Side::Future, &now) {
        Ok(understood) => {
            if let Some(note) = note_on(&understood, &now) {
                print::error(format_args!("--until {text}: {note}"));
            }
            Ok(understood.time)
        }
        Err(error) => {
            print::error(format_args!("--until: {error}"));
            Err(USAGE)
        }
    }
}

/// A day has an end that nobody typed: it is said, with a warning if it is near.
fn note_on(understood: &Understood, now: &Zoned) -> Option<String> {
    if !understood.is_day {
        return None;
    }
    let end = understood.time.to_zoned(now.time_zone().clone());
    let end_of = end.yesterday().ok()?.strftime("%A, %-d %B %Y").to_string();
    let mut note = format!("until the end of {end_of} ({})", end.strftime("%Y-%m-%d %H:%M %Z"));
    let left = understood.time.duration_since(now.timestamp());
    if left < SOON && left > SignedDuration::ZERO {
        let (hours, minutes) = (left.as_hours(), left.as_mins() % 60);
        note.push_str(&format!("; warning: that is only {hours} h {minutes} min from now"));
    }
    Some(note)
}

/// The time meant. What has no offset is local time, of the zone that `now` is in.
///
/// # Errors
/// It is none of the forms, or cannot exist; one line that says what to write.
pub(super) fn read(text: &str, side: Side, now: &Zoned) -> Result<Understood, String> {
    let text = text.trim();
    let no_time = || format!("\"{}\" is not a time; {FORMS}", text.escape_debug());
    let exactly = |time| Understood { time, is_day: false };
    if let Some(duration) = duration(text) {
        let duration = if side == Side::Past { -duration } else { duration };
        return now.timestamp().checked_add(duration).map(exactly).map_err(|_| no_time());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(exactly(time));
    }
    // A date would be parsed with what follows it, which would be ignored.
    if text.contains(':') {
        let time = text.parse::<DateTime>().map_err(|_| no_time())?;
        return time.to_zoned(now.time_zone().clone()).map(|zoned| exactly(zoned.timestamp())).map_err(|_| no_time());
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

fn day(date: Date, side: Side, now: &Zoned) -> Option<Understood> {
    let date = if side == Side::Past { date } else { date.tomorrow().ok()? };
    Some(Understood { time: date.to_zoned(now.time_zone().clone()).ok()?.timestamp(), is_day: true })
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
        read(text, Side::Future, &saturday()).unwrap().time.to_string()
    }

    fn since(text: &str) -> String {
        read(text, Side::Past, &saturday()).unwrap().time.to_string()
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
    fn a_day_is_said_and_warned_of_if_it_ends_soon() {
        let note = |text: &str| note_on(&read(text, Side::Future, &saturday()).unwrap(), &saturday());
        assert_eq!(
            note("saturday").unwrap(),
            "until the end of Saturday, 21 November 2026 (2026-11-22 00:00 CET); warning: that is only 9 h 28 min from now"
        );
        assert_eq!(note("friday").unwrap(), "until the end of Friday, 27 November 2026 (2026-11-28 00:00 CET)");
        assert_eq!(note("2026-11-23").unwrap(), "until the end of Monday, 23 November 2026 (2026-11-24 00:00 CET)");
        assert_eq!([note("2h"), note("2026-11-21T15:00"), note("2026-11-21T15:00:00Z")], [None, None, None]);
    }

    #[test]
    fn anything_else_is_told_what_to_write() {
        for text in ["", "soon", "2026-13-01", "2x", "d", "99999999999d", "-2d", "ö", "s", "2026-11-28T25:00"] {
            let error = read(text, Side::Future, &saturday()).unwrap_err();
            assert!(error.contains("is not a time; write a duration"), "{text}: {error}");
        }
    }
}
