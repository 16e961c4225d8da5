//! `status` and `reload`, answered by the running daemon.

use super::{DONE, NO, ask, settings};
use crate::control::{Command, Response, Status};
use crate::orders::Suspension;
use std::fmt::Write;
use std::path::Path;

/// How many suspensions `status` shows to people.
const MAX_SUSPENDED: usize = 20;

pub fn run(config: &Path, json: bool) -> u8 {
    let Some(settings) = settings(config) else { return NO };
    match ask(&settings, &Command::Status) {
        Ok(Response::Status { status }) => {
            match serde_json::to_string_pretty(&status) {
                Ok(text) if json => println!("{text}"),
                _ => print!("{}", to_text(&status)),
            }
            DONE
        }
        Ok(other) => super::unexpected(&other),
        Err(code) => code,
    }
}

pub fn reload(config: &Path, why: &str) -> u8 {
    let Some(settings) = settings(config) else { return NO };
    super::done(ask(&settings, &Command::Reload { why: why.to_owned() }), false)
}

fn to_text(status: &Status) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "relaykeeper {}, up {} (since {})",
        status.version,
        duration(status.uptime_seconds),
        status.since
    );
    let _ = writeln!(text, "store             {}", status.store);
    let _ = writeln!(text, "customers         {}", status.customers);
    for bad in &status.bad_files {
        let _ = writeln!(text, "bad file          {bad}");
    }
    for trouble in &status.administration {
        let _ = writeln!(text, "administration    {trouble}");
    }
    if let Some(trouble) = &status.mail {
        let _ = writeln!(text, "own mail          cannot be sent: {trouble}");
    }
    let _ = writeln!(text, "milter sessions   {}", status.milter_sessions);
    let _ = writeln!(text, "open transactions {}", status.open_transactions);
    for suspension in status.suspended.iter().take(MAX_SUSPENDED) {
        let _ = writeln!(text, "suspended         {}", words_of(suspension));
    }
    if let Some(more) = status.suspended.len().checked_sub(MAX_SUSPENDED).filter(|&more| more > 0) {
        let _ = writeln!(text, "suspended         {more} more, see --json");
    }
    let decisions = &status.decisions;
    let _ = writeln!(text, "recipients passed {}", decisions.recipients);
    let _ = writeln!(text, "messages counted  {}", decisions.messages);
    let _ = writeln!(text, "exempt            {}", decisions.exempt);
    for (reason, number) in &decisions.refused {
        let _ = writeln!(text, "refused           {number} {reason}");
    }
    for (reason, number) in &decisions.would_have_refused {
        let _ = writeln!(text, "would have refused {number} {reason} (shadow)");
    }
    text
}

/// `user ann@acme.example since 2026-11-21T14:32:00Z by root: spam`
pub(super) fn words_of(suspension: &Suspension) -> String {
    let Suspension { subject, why, by, since } = suspension;
    format!("{} {} since {since} by {by}: {why}", subject.kind.key(), subject.name)
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    if days > 0 { format!("{days} d {hours} h") } else { format!("{hours} h {minutes} min {} s", seconds % 60) }
}
