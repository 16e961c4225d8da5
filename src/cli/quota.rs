//! `quota show` and `quota reset`, answered by the running daemon.

use super::arguments::{Quota, TopBy};
use super::{DONE, NO, ask, print, status};
use crate::control::{Command, RankBy, Response, Top, Usage, UsageOfLimit};
use crate::directory::LimitName;
use crate::ledger::MissingNode;
use serde_json::json;
use std::fmt::Write;

pub fn run(command: &Quota) -> u8 {
    match command {
        Quota::Show { config, names, json } => {
            match ask(&config.config, &Command::QuotaShow { names: names.clone() }) {
                Ok(Response::Usage { usage }) => show(&usage, *json),
                Ok(other) => super::unexpected(&other),
                Err(code) => code,
            }
        }
        Quota::Top { config, limits, by, most, json } => {
            let by = match by {
                TopBy::Share => RankBy::Share,
                TopBy::Used => RankBy::Used,
            };
            let limits = if limits.is_empty() { LimitName::ALL.to_vec() } else { limits.clone() };
            match ask(&config.config, &Command::QuotaTop { limits, most: usize::from(*most), by }) {
                Ok(Response::Top { top, missing }) => show_top(&top, &missing, *json),
                Ok(other) => super::unexpected(&other),
                Err(code) => code,
            }
        }
        Quota::Reset { config, name, clock: _, why, json } => {
            let why = why.clone();
            let command = match name.clone() {
                Some(name) => Command::QuotaReset { name, why },
                None => Command::ClockReset { why },
            };
            super::done(ask(&config.config, &command), *json)
        }
    }
}

fn show(usage: &[Usage], json: bool) -> u8 {
    if json {
        return if print::json(&usage) { DONE } else { NO };
    }
    print::lines(&lines(usage));
    DONE
}

/// Shows what there is. If nodes are missing, it says so, and the exit code is that of a no.
fn show_top(top: &[Top], missing: &[MissingNode], json: bool) -> u8 {
    if json {
        print::json(&json!({ "top": top, "missing": missing }));
    } else {
        print::lines(&top_lines(top));
    }
    for MissingNode { address, why } in missing {
        print::error(format_args!("part of the store is unreachable, and its customers are missing: {address}: {why}"));
    }
    if missing.is_empty() { DONE } else { NO }
}

fn top_lines(top: &[Top]) -> Vec<String> {
    let (mut lines, mut last) = (Vec::new(), None);
    for Top { limit, subject, used, max } in top {
        if last.replace(*limit) != Some(*limit) {
            lines.push(limit.to_string());
        }
        let share = max.map_or_else(String::new, |max| format!("({}%)", percent(*used, max)));
        let max = max.map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
        let of = if subject.name == subject.customer { String::new() } else { format!(" ({})", subject.customer) };
        lines.push(format!("  {used:>9} of {max:<9} {share:<6} {} {}{of}", subject.kind.key(), subject.name));
    }
    lines
}

/// A limit of 0 is always full.
fn percent(used: u64, max: u64) -> u64 {
    used.saturating_mul(100).checked_div(max).unwrap_or(100)
}

fn lines(usage: &[Usage]) -> Vec<String> {
    let mut lines = Vec::new();
    for subject in usage {
        lines.push(format!("{} {}", subject.kind, subject.name));
        if let Some(suspension) = &subject.suspended {
            lines.push(format!("  suspended: {}", status::words_of(suspension)));
        }
        lines.extend(subject.limits.iter().map(|limit| format!("  {}", line(limit))));
    }
    lines
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
