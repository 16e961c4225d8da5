//! `explain REFERENCE`: what was decided, as the daemon recorded it. Reads the files; needs no daemon.

use crate::cli::{DONE, NO, store_folder};
use crate::report::{Reference, decisions};
use crate::session::RecordedDecision;
use std::fmt::Write;
use std::path::Path;

pub(super) fn run(config: &Path, reference: Reference, json: bool) -> u8 {
    let Some(folder) = store_folder(config) else { return NO };
    let found = match decisions::find(&folder, reference) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("relaykeeper: {error}");
            return NO;
        }
    };
    let Some(text) = found else {
        eprintln!(
            "relaykeeper: nothing is recorded under {reference} in {}: only refusals and what shadow let pass are, and \
             old ones make room; the log may still have it",
            folder.display()
        );
        return NO;
    };
    match serde_json::from_str::<RecordedDecision>(&text) {
        Ok(recorded) if json => match serde_json::to_string_pretty(&recorded) {
            Ok(text) => println!("{text}"),
            Err(_) => return NO,
        },
        Ok(recorded) => print!("{}", to_text(&recorded)),
        Err(error) => {
            eprintln!("relaykeeper: the record of {reference} cannot be read: {error}");
            return NO;
        }
    }
    DONE
}

fn to_text(recorded: &RecordedDecision) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{name:<10} {}", visible(value));
        }
    };
    line("reference", Some(&recorded.reference));
    line("at", Some(&recorded.at.to_string()));
    line("verdict", Some(&recorded.verdict));
    line("reason", recorded.reason.as_deref());
    line("reply", recorded.reply.as_deref());
    for words in &recorded.shadow {
        line("shadow", Some(words));
    }
    line("client", recorded.client.as_deref());
    line("helo", Some(&recorded.helo));
    line("tls", Some(&recorded.tls));
    line("login", Some(&recorded.login));
    line("sender", recorded.sender.as_deref());
    line("recipient", recorded.recipient.as_deref());
    line("recipients", recorded.recipients.map(|number| number.to_string()).as_deref());
    line("queue ID", recorded.queue_id.as_deref());
    line("customer", recorded.customer.as_deref());
    line("found by", recorded.identified_by.as_deref());
    line("setting", recorded.setting.as_deref());
    line("user", recorded.user.as_deref());
    line("rewritten", recorded.rewrite_sender_to.as_deref());
    let _ = writeln!(text, "steps");
    for step in &recorded.steps {
        let _ = writeln!(text, "  {:<10} {:<7} {}", step.step, step.outcome, visible(&step.because));
    }
    text
}

/// A client said some of it: nothing that a terminal would obey.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
