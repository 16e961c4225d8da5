//! `audit`: who changed what, when and why, and whether the log was touched. Reads the files; needs no daemon.

use super::when::{self, Side};
use super::{DONE, NO, USAGE, print, store_folder};
use crate::administration::read_anchor;
use crate::audit::{Actor, Anchor, FILE_NAME, Record, Verified, verify};
use jiff::Timestamp;
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

pub fn run(config: &Path, since: Option<&str>, json: bool) -> u8 {
    let since = match since.map(|text| when::read(text, Side::Past, &when::now())).transpose() {
        Ok(since) => since.map_or(Timestamp::MIN, |since| since.time),
        Err(error) => {
            print::error(format_args!("--since: {error}"));
            return USAGE;
        }
    };
    let Some(folder) = store_folder(config) else { return NO };
    // Before the log: what is written meanwhile is more than the anchor knows, and never less.
    let (anchor, anchor_error) = match read_anchor(&folder) {
        Ok(anchor) => (anchor, None),
        Err(error) => (Anchor::default(), Some(error.to_string())),
    };
    let path = folder.join(FILE_NAME);
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) => {
            print::error(format_args!("{}: {error}; the daemon creates it when it first starts", path.display()));
            return NO;
        }
    };
    let mut records = Vec::new();
    let verified = verify(BufReader::new(log), &anchor, |record| match json {
        _ if record.at < since => {}
        true => records.push(record),
        false => print::lines(&lines(&record)),
    });
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => {
            print::error(format_args!("{}: {error}", path.display()));
            return NO;
        }
    };
    if json {
        let chain = json!({ "good": verified.is_good() && anchor_error.is_none(), "breaks": verified.breaks });
        print::json(&json!({ "records": records, "chain": chain }));
    }
    conclude(&path, &verified, anchor_error.as_deref())
}

fn conclude(path: &Path, verified: &Verified, anchor_error: Option<&str>) -> u8 {
    for at in &verified.breaks {
        print::error(format_args!("{}: {at}", path.display()));
    }
    if let Some(error) = anchor_error {
        print::error(format_args!("the end of the audit log cannot be verified: {error}"));
    }
    if verified.is_good() && anchor_error.is_none() { DONE } else { NO }
}

/// `12 2026-11-21T14:32:00Z root: suspend user ann@acme.example (spam)`, and a line for each change of a file.
fn lines(record: &Record) -> Vec<String> {
    let Record { number, at, by, action, why, .. } = record;
    let by = match by {
        Actor::User { uid, name } if !name.is_empty() => format!("{name} (uid {uid})"),
        by => by.to_string(),
    };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let mut lines = vec![format!("{number} {at} {by}: {action}{why}")];
    lines.extend(action.changes().iter().map(|change| format!("    {change}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, Change};

    #[test]
    fn a_record_is_one_line_and_one_for_each_change() {
        let changes = [("licenses", Some(5.into()), Some(6.into())), ("billing", None, Some("a\nb".into()))];
        let changes = changes.map(|(key, old, new)| Change { key: key.to_owned(), old, new }).into();
        let record = Record {
            number: 12,
            at: "2026-11-21T14:32:00Z".parse().unwrap(),
            by: Actor::User { uid: 0, name: "root".to_owned() },
            action: Action::ConfigurationFile { file: "acme.toml".to_owned(), changes },
            why: "ticket\n13 2026-11-21T14:32:00Z root: forged".to_owned(),
            previous: String::new(),
        };
        assert_eq!(
            lines(&record),
            [
                "12 2026-11-21T14:32:00Z root (uid 0): acme.toml (ticket\n13 2026-11-21T14:32:00Z root: forged)",
                "    licenses: 5 -> 6",
                "    billing: (none) -> \"a\\nb\"",
            ],
            "what stands within a line is escaped where it is printed"
        );
    }
}
