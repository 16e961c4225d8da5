//! `status` and `reload`, answered by the running daemon.

use super::{DONE, NO, ask, print};
use crate::control::{Command, Response, Status};
use crate::orders::Suspension;
use std::path::Path;

/// How many suspensions `status` shows to people.
const MAX_SUSPENDED: usize = 20;

pub fn run(config: &Path, json: bool) -> u8 {
    match ask(config, &Command::Status) {
        Ok(Response::Status { status }) => {
            match json {
                true => return if print::json(&status) { DONE } else { NO },
                false => print::lines(&lines(&status)),
            }
            DONE
        }
        Ok(other) => super::unexpected(&other),
        Err(code) => code,
    }
}

pub fn reload(config: &Path, why: String, allow_no_customers: bool) -> u8 {
    super::done(ask(config, &Command::Reload { why, allow_no_customers }), false)
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![format!(
        "relaykeeper {}, up {} (since {})",
        status.version,
        duration(status.uptime_seconds),
        status.since
    )];
    let mut line = |what: &str, value: &dyn std::fmt::Display| lines.push(format!("{what:<17} {value}"));
    line("store", &status.store);
    if let Some(advice) = &status.store_advice {
        line("store warning", advice);
    }
    line("customers", &status.customers);
    line("configured", &status.configured_at);
    for difference in &status.differs_on_disk {
        line("not reloaded", difference);
    }
    for bad in &status.bad_files {
        line("bad file", bad);
    }
    for problem in &status.administration {
        line("administration", problem);
    }
    if let Some(problem) = &status.mail {
        line("own mail", &format_args!("cannot be sent: {problem}"));
    }
    line("milter sessions", &status.milter_sessions);
    line("open transactions", &status.open_transactions);
    for mta in &status.mta {
        line("asked at", &format_args!("{}: {}", mta.name(), mta.numbers()));
    }
    for mta in status.mta.iter().filter(|mta| mta.has_one_address()) {
        let client = mta.only_client.map(|client| client.to_string()).unwrap_or_default();
        let words = format!(
            "all clients of {} come from {client} under {} HELO names: NAT, a proxy or a container network hides their \
             addresses, so ranges and connection limits mean nothing there",
            mta.server(),
            mta.helo_names
        );
        line("one address", &words);
    }
    for suspension in status.suspended.iter().take(MAX_SUSPENDED) {
        line("suspended", &words_of(suspension));
    }
    if let Some(more) = status.suspended.len().checked_sub(MAX_SUSPENDED).filter(|&more| more > 0) {
        line("suspended", &format_args!("{more} more, see --json"));
    }
    let decisions = &status.decisions;
    line("recipients passed", &decisions.recipients);
    line("messages counted", &decisions.messages);
    line("exempt", &decisions.exempt);
    for (reason, number) in &decisions.refused {
        line("refused", &format_args!("{number} {reason}"));
    }
    for (reason, number) in &decisions.would_have_refused {
        line("would have refused", &format_args!("{number} {reason} (shadow)"));
    }
    lines
}

/// `user ann@acme.example since 2026-11-21T14:32:00Z by root: spam`
pub(super) fn words_of(suspension: &Suspension) -> String {
    let Suspension { target, why, by, since, until } = suspension;
    let until = until.map_or_else(String::new, |until| format!(" until {until}"));
    format!("{} {} since {since}{until} by {by}: {why}", target.kind.key(), target.name)
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    if days > 0 { format!("{days} d {hours} h") } else { format!("{hours} h {minutes} min {} s", seconds % 60) }
}
