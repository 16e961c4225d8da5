//! What is done about a user with signs of abuse. Who is notified of it is up to [`notify`](crate::notify).

use super::sign::describe;
use super::watch::Suspect;
use crate::administration::Administration;
use crate::audit::{Actor, Instruction};
use crate::config::OnAbuse;
use crate::directory::SubjectKind;
use crate::report::{Level, LogLine, Logger};
use jiff::Timestamp;
use std::time::Duration;

/// What was done about signs of abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Countermeasure {
    /// Nothing but the letter.
    None,
    /// The user's mail is deferred until the signs are gone.
    Deferred,
    Suspended,
}

impl Countermeasure {
    /// `done=` in logs.
    pub const fn key(self) -> &'static str {
        match self {
            Countermeasure::None => "told",
            Countermeasure::Deferred => "deferred",
            Countermeasure::Suspended => "suspended",
        }
    }
}

/// Responds to signs of abuse as `on_abuse` says; customers are never deferred or suspended because of them. `None` if the
/// user was suspended before: that suspension keeps its reason, and there is nothing new to say.
pub async fn respond(
    suspect: &Suspect,
    window: Duration,
    on_abuse: OnAbuse,
    administration: &Administration,
    at: Timestamp,
    log: &Logger,
) -> Option<Countermeasure> {
    match (suspect.subject.kind, on_abuse) {
        (SubjectKind::User, OnAbuse::Suspend) => suspend(suspect, window, administration, at, log).await,
        (SubjectKind::User, OnAbuse::Defer) => Some(Countermeasure::Deferred),
        _ => Some(Countermeasure::None),
    }
}

async fn suspend(
    suspect: &Suspect,
    window: Duration,
    administration: &Administration,
    at: Timestamp,
    log: &Logger,
) -> Option<Countermeasure> {
    let subject = &suspect.subject;
    if administration.orders().suspended_user(&subject.name, at).is_some() {
        return None;
    }
    let why = format!("signs of abuse: {}", describe(&suspect.signs, window));
    let instruction = Instruction { by: Actor::Daemon, at, why };
    match administration.suspend(subject.clone().into(), None, instruction.clone()).await {
        Ok(completed) => {
            // The same line as for an administrator's order.
            let line = LogLine::event("suspend")
                .field("kind", subject.kind.key())
                .field("name", &subject.name)
                .field("customer", &subject.customer)
                .field("by", &instruction.by)
                .field("audit", &completed.receipt)
                .field("why", &instruction.why);
            log.write(Level::Info, line);
            completed.outcome.is_none().then_some(Countermeasure::Suspended)
        }
        Err(error) => {
            log.error(format_args!("{} cannot be suspended for signs of abuse: {error}", subject.name));
            Some(Countermeasure::None)
        }
    }
}
