//! `status` and `reload`, answered by the running daemon.

use super::{DONE, NO, ask, settings};
use crate::control::{Answer, Command, Status};
use std::fmt::Write;
use std::path::Path;

pub fn run(config: &Path, json: bool) -> u8 {
    let Some(settings) = settings(config) else { return NO };
    match ask(&settings, &Command::Status) {
        Ok(Answer::Status { status }) => {
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

pub fn reload(config: &Path) -> u8 {
    let Some(settings) = settings(config) else { return NO };
    super::done(ask(&settings, &Command::Reload))
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
    let _ = writeln!(text, "milter sessions   {}", status.milter_sessions);
    let _ = writeln!(text, "open transactions {}", status.open_transactions);
    let decisions = &status.decisions;
    let _ = writeln!(text, "recipients passed {}", decisions.recipients);
    let _ = writeln!(text, "messages counted  {}", decisions.messages);
    let _ = writeln!(text, "exempt            {}", decisions.exempt);
    for (reason, number) in &decisions.refused {
        let _ = writeln!(text, "refused           {number} {reason}");
    }
    text
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    if days > 0 { format!("{days} d {hours} h") } else { format!("{hours} h {minutes} min {} s", seconds % 60) }
}
