//! The log lines of transactions: one at the end of each, one for each refusal.

use super::engine::{Engine, Snapshot};
use super::recorded::DecisionToRecord;
use super::replay::Replay;
use crate::envelope::{Address, Envelope};
use crate::policy::{MtaProtocol, Outcome, Refusal, Verdict, tls_way_out};
use crate::report::decisions::Source;
use crate::report::{Level, LogLine, Logger, Reference};
use std::sync::Arc;

/// A verdict with all that its line says.
pub(super) struct LoggedDecision<'a> {
    pub protocol: MtaProtocol,
    pub envelope: &'a Envelope,
    pub verdict: &'a Verdict,
    pub recipient: Option<&'a Address>,
    pub queue_id: Option<&'a str>,
    /// At the end of a message: how many it went to.
    pub recipients: Option<u64>,
    pub reference: Reference,
}

/// Logs a verdict, and records the decision behind its reference where it refuses, or would refuse but for shadow. `replay`: what
/// the decision was made from, where it is more than the envelope.
pub(super) fn decided(
    engine: &Engine,
    snapshot: &Arc<Snapshot>,
    decision: &LoggedDecision,
    replay: impl FnOnce() -> Option<Replay>,
) {
    write(&engine.log, decision);
    let is_worth_it = !decision.verdict.passes() || !decision.verdict.shadow.is_empty();
    if let Some(decisions) = engine.decisions().filter(|_| is_worth_it) {
        let source = if decision.verdict.identified_by.is_some() { Source::Customer } else { Source::Unknown };
        decisions.record(decision.reference, source, || DecisionToRecord {
            at: engine.wall_time(),
            protocol: decision.protocol,
            envelope: decision.envelope.clone(),
            snapshot: snapshot.clone(),
            verdict: decision.verdict.clone(),
            recipient: decision.recipient.cloned(),
            queue_id: decision.queue_id.map(Box::from),
            recipients: decision.recipients,
            replay: replay(),
        });
    }
}

/// The line of a decision. A further field belongs here.
fn write(log: &Logger, decision: &LoggedDecision) {
    let verdict = decision.verdict;
    let level = if verdict.refusal().is_some_and(Refusal::is_failure) { Level::Warn } else { Level::Info };
    if !log.enabled(level) {
        return;
    }
    let reason = match &verdict.outcome {
        Outcome::Accept => None,
        Outcome::Exempt(exemption) => Some(exemption.key()),
        Outcome::Refuse(refusal) => Some(refusal.key()),
    };
    let mut line = LogLine::transaction(decision.queue_id)
        .word("verdict", verdict.word())
        .optional("reason", reason)
        .optional("customer", verdict.customer.as_deref())
        .optional("user", verdict.user.as_deref())
        .optional("by", verdict.identified_by.map(|by| by.key()))
        .optional("setting", verdict.setting.as_deref());
    line = who(line, decision.envelope);
    if log.enabled(Level::Debug) {
        line = line.optional("recipient", decision.recipient);
    }
    let hint = match verdict.refusal() {
        Some(Refusal::TlsRequired { .. }) => tls_way_out(decision.envelope.client, decision.envelope.proxied_login),
        _ => None,
    };
    let archived = verdict.archive_to.as_ref().filter(|_| decision.recipients.is_some() && verdict.passes());
    line = line
        .optional("recipients", decision.recipients)
        .optional("rewritten", verdict.rewrite_sender_to.as_ref().filter(|_| verdict.passes()))
        .optional("shadow", (!verdict.shadow.is_empty()).then(|| verdict.shadow_keys().join(",")))
        .optional("archived", archived)
        .word("proto", decision.protocol.key())
        .field("ref", decision.reference)
        .optional("text", verdict.refusal())
        .optional("hint", hint);
    log.write(level, line);
}

/// A transaction that ended without a message: its reservation is released.
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
    line.optional("client", envelope.client)
        .optional("helo", Some(&*envelope.helo).filter(|helo| !helo.is_empty()))
        .optional("login", Some(&*envelope.login).filter(|login| !login.is_empty()))
        .optional("tls", Some(&*envelope.tls).filter(|tls| !tls.is_empty()))
        .optional("sender", envelope.written_sender())
}
