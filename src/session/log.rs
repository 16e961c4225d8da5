//! The log lines of transactions: one at the end of each, one for each refusal.

use super::engine::{Engine, Snapshot};
use super::envelope::{Envelope, FrontEnd};
use super::recorded::Decided;
use crate::envelope::Address;
use crate::policy::{Outcome, Refusal, Verdict};
use crate::report::{Level, LogLine, Logger, Reference};
use std::fmt::Display;
use std::sync::Arc;

/// A verdict that somebody is told.
pub(super) struct Told<'a> {
    pub front_end: FrontEnd,
    pub envelope: &'a Envelope,
    pub verdict: &'a Verdict,
    pub recipient: Option<&'a Address>,
    pub queue_id: Option<&'a str>,
    /// At the end of a message: how many it went to.
    pub recipients: Option<u64>,
    pub reference: Reference,
}

/// Logs a verdict, and records the decision behind its reference where it refuses, or would refuse.
pub(super) fn decided(engine: &Engine, snapshot: &Arc<Snapshot>, told: &Told) {
    write(&engine.log, told);
    let is_worth_it = !told.verdict.passes() || !told.verdict.shadow.is_empty();
    if let Some(decisions) = engine.decisions().filter(|_| is_worth_it) {
        decisions.record(
            told.reference,
            Decided {
                at: engine.wall_time(),
                front_end: told.front_end,
                envelope: told.envelope.clone(),
                snapshot: snapshot.clone(),
                verdict: told.verdict.clone(),
                recipient: told.recipient.cloned(),
                queue_id: told.queue_id.map(Box::from),
                recipients: told.recipients,
            },
        );
    }
}

fn write(log: &Logger, told: &Told) {
    let verdict = told.verdict;
    let level = if verdict.refusal().is_some_and(Refusal::is_failure) { Level::Warn } else { Level::Info };
    if !log.enabled(level) {
        return;
    }
    let reason = match &verdict.outcome {
        Outcome::Accept => None,
        Outcome::Exempt(exemption) => Some(exemption.key()),
        Outcome::Refuse(refusal) => Some(refusal.key()),
    };
    let mut line = LogLine::transaction(told.queue_id)
        .word("verdict", verdict.word())
        .optional("reason", reason)
        .optional("customer", verdict.customer.as_deref())
        .optional("user", verdict.user.as_deref())
        .optional("by", verdict.identified_by.map(|by| by.key()))
        .optional("setting", verdict.setting.as_deref());
    line = who(line, told.envelope);
    if log.enabled(Level::Debug) {
        line = line.optional("recipient", told.recipient);
    }
    let has_copy = told.recipients.is_some() && told.front_end == FrontEnd::Milter && verdict.passes();
    let archived = verdict.archive_to.as_ref().filter(|_| has_copy);
    line = line
        .optional("recipients", told.recipients)
        .optional("rewritten", verdict.rewrite_sender_to.as_ref().filter(|_| verdict.passes()))
        .optional("shadow", verdict.shadow.first().map(Refusal::key))
        .optional("archived", archived)
        .word("proto", told.front_end.key())
        .field("ref", told.reference)
        .optional("text", verdict.refusal());
    log.write(level, line);
}

/// A transaction that ended without a message: what it had reserved is given back.
pub(super) fn abandoned(
    log: &Logger,
    envelope: &Envelope,
    customer: &str,
    recipients: usize,
    why: &'static str,
    queue_id: Option<&str>,
) {
    if !log.enabled(Level::Info) {
        return;
    }
    let line = LogLine::transaction(queue_id).field("verdict", "none").field("reason", why).field("customer", customer);
    log.write(Level::Info, who(line, envelope).field("recipients", recipients));
}

fn who(line: LogLine, envelope: &Envelope) -> LogLine {
    let sender: Option<&dyn Display> = envelope.sender.as_ref().ok().map(|sender| sender as &dyn Display);
    line.optional("client", envelope.client)
        .optional("helo", Some(&*envelope.helo).filter(|helo| !helo.is_empty()))
        .optional("login", Some(&*envelope.login).filter(|login| !login.is_empty()))
        .optional("tls", Some(&*envelope.tls).filter(|tls| !tls.is_empty()))
        .optional("sender", sender)
}
