//! The answer: an action of access(5).

use crate::envelope::Reply;
use crate::policy::{Exemption, Outcome};
use crate::session::Decision;
use std::fmt::Write;

/// What Postfix is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// No objection; the next restriction decides.
    Dunno,
    /// Permission to relay.
    Ok,
    Refuse(Reply),
}

impl Answer {
    /// `relay_context`: the question was whether the client may relay (`policy_context=relay`).
    pub fn to_recipient(decision: Decision, relay_context: bool) -> Answer {
        match (decision.reply, &decision.verdict.outcome) {
            (Some(reply), _) => Answer::Refuse(reply),
            // Inbound mail is no relaying: Postfix knows its own destinations.
            (None, Outcome::Exempt(Exemption::RecipientDomain)) => Answer::Dunno,
            (None, _) if relay_context => Answer::Ok,
            (None, _) => Answer::Dunno,
        }
    }

    pub fn to_message(decision: Decision) -> Answer {
        decision.reply.map_or(Answer::Dunno, Answer::Refuse)
    }

    pub fn write(&self, out: &mut String) {
        match self {
            Answer::Dunno => out.push_str("action=DUNNO\n\n"),
            Answer::Ok => out.push_str("action=OK\n\n"),
            Answer::Refuse(reply) => {
                let _ = write!(out, "action={reply}\n\n");
            }
        }
    }
}
