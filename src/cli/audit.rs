//! `audit`: who changed what, when and why, and whether the log was touched. Reads the files; needs no daemon.

use super::when::{self, Side};
use super::{DONE, NO, USAGE, store_folder};
use crate::administration::read_anchor;
use crate::audit::Actor;
use crate::audit::{Anchor, FILE_NAME, Record, Verified, verify};
use jiff::Timestamp;
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;

pub fn run(config: &Path, since: Option<&str>, json: bool) -> u8 {
    let since = match since.map(|text| when::read(text, Side::Past, &when::now())).transpose() {
        Ok(since) => since.unwrap_or(Timestamp::MIN),
        Err(error) => {
            eprintln!("relaykeeper: --since: {error}");
            return USAGE;
        }
    };
    let Some(folder) = store_folder(config) else { return NO };
    // Before the log: what is written meanwhile is more than the anchor knows, and never less.
    let (anchor, trouble) = match read_anchor(&folder) {
        Ok(anchor) => (anchor, None),
        Err(error) => (Anchor::default(), Some(error.to_string())),
    };
    let path = folder.join(FILE_NAME);
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("relaykeeper: {}: {error}; it is made when the daemon first starts", path.display());
            return NO;
        }
    };
    let mut out = std::io::stdout().lock();
    let mut records = Vec::new();
    let verified = verify(BufReader::new(log), &anchor, |record| match json {
        _ if record.at < since => {}
        true => records.push(record),
        false => drop(writeln!(out, "{}", line(&record))),
    });
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => {
            eprintln!("relaykeeper: {}: {error}", path.display());
            return NO;
        }
    };
    if json {
        let chain = json!({ "good": verified.is_good() && trouble.is_none(), "breaks": verified.breaks });
        let _ = writeln!(out, "{:#}", json!({ "records": records, "chain": chain }));
    }
    conclude(&path, &verified, trouble.as_deref())
}

fn conclude(path: &Path, verified: &Verified, trouble: Option<&str>) -> u8 {
    for at in &verified.breaks {
        eprintln!("relaykeeper: {}: {at}", path.display());
    }
    if let Some(trouble) = trouble {
        eprintln!("relaykeeper: whether the end of the audit log is missing cannot be told: {trouble}");
    }
    if verified.is_good() && trouble.is_none() { DONE } else { NO }
}

/// `12 2026-11-21T14:32:00Z root: suspend user ann@acme.example (spam)`
fn line(record: &Record) -> String {
    let Record { number, at, by, action, why, .. } = record;
    let by = match by {
        Actor::User { uid, name } if !name.is_empty() => format!("{name} (uid {uid})"),
        by => by.to_string(),
    };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    // What an administrator typed or a file says is shown as it is, but for what a terminal would obey.
    let text = format!("{number} {at} {by}: {action}{why}");
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
