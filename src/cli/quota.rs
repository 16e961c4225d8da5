//! `quota show` and `quota reset`, answered by the running daemon.

use super::arguments::Quota;
use super::{DONE, NO, ask, settings};
use crate::control::{Command, Response, Top, Usage, UsageOfLimit};
use crate::directory::LimitName;
use crate::ledger::MissingNode;
use serde_json::json;
use std::fmt::Write;

pub fn run(command: &Quota) -> u8 {
    match command {
        Quota::Show { config, names, json } => {
            let Some(settings) = settings(&config.config) else { return NO };
            match ask(&settings, &Command::QuotaShow { names: names.clone() }) {
                Ok(Response::Usage { usage }) => show(&usage, *json),
                Ok(other) => super::unexpected(&other),
                Err(code) => code,
            }
        }
        Quota::Top { config, limits, most, json } => {
            let Some(settings) = settings(&config.config) else { return NO };
            let limits = if limits.is_empty() { LimitName::ALL.to_vec() } else { limits.clone() };
            match ask(&settings, &Command::QuotaTop { limits, most: usize::from(*most) }) {
                Ok(Response::Top { top, missing }) => show_top(&top, &missing, *json),
                Ok(other) => super::unexpected(&other),
                Err(code) => code,
            }
        }
        Quota::Reset { config, name, why, json } => {
            let Some(settings) = settings(&config.config) else { return NO };
            super::done(ask(&settings, &Command::QuotaReset { name: name.clone(), why: why.clone() }), *json)
        }
    }
}

fn show(usage: &[Usage], json: bool) -> u8 {
    if json {
        match serde_json::to_string_pretty(usage) {
            Ok(text) => println!("{text}"),
            Err(_) => return NO,
        }
    } else {
        print!("{}", to_text(usage));
    }
    DONE
}

/// What is there is shown, and what is missing said: then the answer is not the whole one.
fn show_top(top: &[Top], missing: &[MissingNode], json: bool) -> u8 {
    if json {
        println!("{:#}", json!({ "top": top, "missing": missing }));
    } else {
        show_lines(top);
    }
    for MissingNode { address, why } in missing {
        eprintln!("relaykeeper: a part of the store is away, and whoever lies there is missing: {address}: {why}");
    }
    if missing.is_empty() { DONE } else { NO }
}

fn show_lines(top: &[Top]) {
    let mut last = None;
    for Top { limit, subject, used, max } in top {
        if last.replace(*limit) != Some(*limit) {
            println!("{limit}");
        }
        let max = max.map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
        let of = if subject.name == subject.customer { String::new() } else { format!(" ({})", subject.customer) };
        println!("  {used:>9} of {max:<9} {} {}{of}", subject.kind.key(), subject.name);
    }
}

fn to_text(usage: &[Usage]) -> String {
    let mut text = String::new();
    for subject in usage {
        let _ = writeln!(text, "{} {}", subject.kind, subject.name);
        if let Some(suspension) = &subject.suspended {
            let _ = writeln!(text, "  suspended: {}", super::status::words_of(suspension));
        }
        for limit in &subject.limits {
            let _ = writeln!(text, "  {}", line(limit));
        }
    }
    text
}

fn line(limit: &UsageOfLimit) -> String {
    let max = limit.max.map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
    let mut line = format!("{:<34} {:>9} of {max}", limit.limit, limit.used);
    if limit.granted > 0 {
        let _ = write!(line, " ({} of it granted)", limit.granted);
    }
    if limit.reserved > 0 {
        let _ = write!(line, ", {} reserved", limit.reserved);
    }
    if let Some(at) = &limit.resets_at {
        let _ = write!(line, "; one more fits after {at}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reads_like_a_sentence() {
        let limit = UsageOfLimit {
            limit: "user.messages_per_day".into(),
            used: 3,
            reserved: 1,
            max: Some(4),
            granted: 1,
            window_seconds: 86_400,
            resets_at: Some("2026-11-21T14:32:00Z".into()),
        };
        assert_eq!(
            line(&limit),
            "user.messages_per_day                      3 of 4 (1 of it granted), 1 reserved; one more fits after 2026-11-21T14:32:00Z"
        );
    }
}
