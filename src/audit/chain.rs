//! The hash chain: each line ends in the hash of its own text, which includes the hash of the line before.

use super::digest::sha256_hex;
use super::record::Record;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, BufRead, Read};

/// The longest line that is read, in bytes; no record is this long.
const MAX_LINE: u64 = 4 << 20;

/// Stands between a record and its hash.
const HASH: &str = ",\"hash\":\"";

/// How many breaks are reported.
const MAX_BREAKS: usize = 100;

/// Where the chain ended when something was last written. It is stored in another file, so that a truncated log is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The number of the last record; 0: there is none.
    pub records: u64,
    /// Its hash.
    pub hash: String,
}

/// Where the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// From 1; 0: not at a line.
    pub line: u64,
    pub what: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

/// The result of verifying a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub breaks: Vec<Break>,
    /// The last record that could be read.
    pub last: Anchor,
    /// Where the last line begins, in bytes, if it was not written to its end.
    pub torn_at: Option<u64>,
}

/// A record as a line of the log, and its hash.
pub(super) fn seal(record: &Record) -> serde_json::Result<(String, String)> {
    let text = serde_json::to_string(record)?;
    let open = text.strip_suffix('}').unwrap_or(&text);
    let hash = hash_of(open);
    Ok((format!("{open}{HASH}{hash}\"}}\n"), hash))
}

fn hash_of(text: &str) -> String {
    sha256_hex(text.as_bytes())
}

/// Reads a log, hands each record that can be read to `each`, and reports where the chain is broken.
///
/// # Errors
/// The log cannot be read.
pub fn verify(mut log: impl BufRead, anchor: &Anchor, mut each: impl FnMut(Record)) -> io::Result<Verified> {
    let mut verifier = Verifier {
        anchor,
        verified: Verified::default(),
        expected: Some(Anchor::default()),
        meets_anchor: anchor.records == 0,
    };
    let (mut number, mut position, mut bytes) = (0, 0, Vec::new());
    loop {
        bytes.clear();
        let length = log.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? as u64;
        if length == 0 {
            return Ok(verifier.finish());
        }
        number += 1;
        if let Some(record) = verifier.line(number, position, &bytes) {
            each(record);
        }
        position += length;
    }
}

/// What is known after some lines of a log.
struct Verifier<'a> {
    anchor: &'a Anchor,
    verified: Verified,
    /// What the next record must follow; `None` after a line that could not be read.
    expected: Option<Anchor>,
    meets_anchor: bool,
}

impl Verifier<'_> {
    /// Checks one line, with its line break if it has one. Returns its record, if it can be read.
    fn line(&mut self, number: u64, position: u64, bytes: &[u8]) -> Option<Record> {
        if bytes.last() != Some(&b'\n') {
            self.unterminated(number, position, bytes.len() as u64);
            return None;
        }
        let line = String::from_utf8_lossy(bytes);
        match read(line.trim_end_matches('\n')) {
            Ok((record, hash)) => {
                self.record(number, &record, hash);
                Some(record)
            }
            Err(what) => {
                self.verified.push(number, what);
                self.expected = None;
                None
            }
        }
    }

    /// The end of the log, or a line that is longer than any that was written.
    fn unterminated(&mut self, number: u64, position: u64, length: u64) {
        if length < MAX_LINE {
            self.verified.torn_at = Some(position);
            self.verified.push(number, "the last line was not written to its end".to_owned());
        } else {
            self.verified.push(number, "the line is too long".to_owned());
            self.expected = None;
        }
    }

    fn record(&mut self, line: u64, record: &Record, hash: String) {
        if let Some(what) = self.expected.as_ref().and_then(|expected| misfit(record, expected)) {
            self.verified.push(line, what);
        }
        if record.number == self.anchor.records {
            self.meets_anchor = true;
            if hash != self.anchor.hash {
                self.verified.push(line, format!("record {} differs from the one that was written", record.number));
            }
        }
        self.verified.last = Anchor { records: record.number, hash };
        self.expected = Some(self.verified.last.clone());
    }

    fn finish(mut self) -> Verified {
        if !self.meets_anchor {
            let (last, expected) = (self.verified.last.records, self.anchor.records);
            let what = format!("it ends with record {last}, but {expected} were written: the last ones are missing");
            self.verified.push(0, what);
        }
        self.verified
    }
}

impl Verified {
    pub fn is_good(&self) -> bool {
        self.breaks.is_empty()
    }

    fn push(&mut self, line: u64, what: String) {
        if self.breaks.len() < MAX_BREAKS {
            self.breaks.push(Break { line, what });
        }
    }
}

fn read(line: &str) -> Result<(Record, String), String> {
    let (open, rest) = line.rsplit_once(HASH).ok_or("it is not a record")?;
    let hash = rest.strip_suffix("\"}").ok_or("it is not a record")?;
    if hash_of(open) != hash {
        return Err("the record was changed: its hash does not match".to_owned());
    }
    let record = serde_json::from_str(&format!("{open}}}")).map_err(|error| format!("it is not a record: {error}"))?;
    Ok((record, hash.to_owned()))
}

fn misfit(record: &Record, before: &Anchor) -> Option<String> {
    let next = before.records + 1;
    match record.number {
        number if number < next => Some(format!("record {number} follows record {}", before.records)),
        number if number == next + 1 => Some(format!("record {next} is missing")),
        number if number > next => Some(format!("records {next} to {} are missing", number - 1)),
        _ if record.previous != before.hash => Some("the record before it was replaced".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Action;
    use crate::audit::Actor;

    fn log_of(records: u64) -> (Vec<String>, Anchor) {
        let mut anchor = Anchor::default();
        let lines = (1..=records).map(|number| {
            let action = Action::ConfigurationUnknown { files: number };
            let at = "2026-11-21T14:32:00Z".parse().unwrap();
            let (by, previous) = (Actor::Daemon, anchor.hash.clone());
            let record = Record { number, at, by, action, why: String::new(), previous };
            let (line, hash) = seal(&record).unwrap();
            anchor = Anchor { records: number, hash };
            line
        });
        (lines.collect(), anchor)
    }

    fn breaks(lines: &[String], anchor: &Anchor) -> Vec<String> {
        let verified = verify(lines.concat().as_bytes(), anchor, |_| {}).unwrap();
        verified.breaks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_untouched_log_is_good() {
        for records in 0..5 {
            let (lines, anchor) = log_of(records);
            assert!(breaks(&lines, &anchor).is_empty());
            assert!(breaks(&lines, &Anchor::default()).is_empty(), "more than was known is no break");
        }
    }

    #[test]
    fn every_edit_shows_and_where() {
        let (lines, anchor) = log_of(4);
        let whole = lines.concat();
        for at in 0..whole.len() {
            let mut bad = whole.clone().into_bytes();
            bad[at] ^= 0x01;
            let verified = verify(&bad[..], &anchor, |_| {}).unwrap();
            let line = whole[..at].matches('\n').count() as u64 + 1;
            let found = verified.breaks.first().unwrap_or_else(|| panic!("byte {at} is not missed"));
            assert!((line..=line + 1).contains(&found.line) || found.line == 0, "byte {at} of line {line}: {found}");
        }
    }

    #[test]
    fn gaps_exchanges_and_a_lost_tail_show() {
        let (lines, anchor) = log_of(5);
        let without = |from: usize, to: usize| [&lines[..from], &lines[to..]].concat();
        assert_eq!(breaks(&without(1, 2), &anchor), ["line 2: record 2 is missing"]);
        assert_eq!(breaks(&without(1, 4), &anchor), ["line 2: records 2 to 4 are missing"]);
        assert_eq!(breaks(&without(0, 1), &anchor), ["line 1: record 1 is missing"]);
        let lost = "it ends with record 3, but 5 were written: the last ones are missing";
        assert_eq!(breaks(&lines[..3], &anchor), [lost]);
        assert_eq!(breaks(&[], &anchor)[0], lost.replace("record 3", "record 0"));
        let (mut twice, mut swapped) = (lines.clone(), lines.clone());
        twice.insert(2, lines[1].clone());
        assert_eq!(breaks(&twice, &anchor)[0], "line 3: record 2 follows record 2");
        swapped.swap(1, 2);
        assert_eq!(breaks(&swapped, &anchor).len(), 3);
        // Whoever forges all of the log still has to match the anchor.
        let (mut forged, _) = log_of(5);
        forged[4] = forged[4].replace("\"files\":5", "\"files\":6");
        assert!(breaks(&forged, &anchor)[0].starts_with("line 5: the record was changed"));
        let (open, _) = forged[4].rsplit_once(HASH).unwrap();
        forged[4] = format!("{open}{HASH}{}\"}}\n", hash_of(open));
        assert_eq!(breaks(&forged, &anchor), ["line 5: record 5 differs from the one that was written"]);
    }

    #[test]
    fn a_torn_last_line_is_told_from_an_edit() {
        let (lines, anchor) = log_of(2);
        let whole = lines.concat();
        let verified = verify(&whole.as_bytes()[..whole.len() - 7], &anchor, |_| {}).unwrap();
        assert_eq!(verified.torn_at, Some(lines[0].len() as u64));
        assert_eq!(verified.last.records, 1);
    }
}
