//! `explain REFERENCE`: what was decided, as the daemon recorded it. Reads the files; needs no daemon.

use crate::cli::{DONE, NO, print, store_folder};
use crate::envelope::XCLIENT;
use crate::report::{Reference, decisions};
use crate::session::RecordedDecision;
use std::path::Path;

pub(super) fn run(config: &Path, reference: Reference, json: bool) -> u8 {
    let Some(folder) = store_folder(config) else { return NO };
    let found = match decisions::find(&folder, reference) {
        Ok(found) => found,
        Err(error) => {
            print::error(error);
            return NO;
        }
    };
    let Some(text) = found else {
        print::error(format_args!(
            "no decision is recorded under {reference} in {}: only refusals and shadow hits are recorded, the oldest are \
             overwritten, and some are left out when there are too many; the log may still have it",
            folder.display()
        ));
        return NO;
    };
    match serde_json::from_str::<RecordedDecision>(&text) {
        Ok(recorded) if json && !print::json(&recorded) => return NO,
        Ok(_) if json => {}
        Ok(recorded) => print::lines(&to_lines(&recorded)),
        Err(error) => {
            print::error(format_args!("the record of {reference} cannot be read: {error}"));
            return NO;
        }
    }
    DONE
}

fn to_lines(recorded: &RecordedDecision) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            lines.push(format!("{name:<10} {value}"));
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
    line("method", recorded.proxied_login.then_some(XCLIENT));
    line("sender", recorded.sender.as_deref());
    line("recipient", recorded.recipient.as_deref());
    line("recipients", recorded.recipients.map(|number| number.to_string()).as_deref());
    line("queue ID", recorded.queue_id.as_deref());
    line("customer", recorded.customer.as_deref());
    line("found by", recorded.identified_by.as_deref());
    line("setting", recorded.setting.as_deref());
    line("user", recorded.user.as_deref());
    line("rewritten", recorded.rewrite_sender_to.as_deref());
    lines.push("steps".to_owned());
    let steps = recorded.steps.iter();
    lines.extend(steps.map(|step| format!("  {:<10} {:<7} {}", step.step, step.outcome, step.because)));
    lines
}
