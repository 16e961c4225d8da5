//! The response: an action of access(5).

use crate::envelope::Reply;
use crate::policy::{Exemption, Outcome};
use crate::session::Decision;
use std::io::Write;

/// What Postfix must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// No objection; the next restriction decides.
    Dunno,
    /// Permission to relay.
    Ok,
    Refuse(Reply),
}

impl Action {
    /// `relay_context`: the question was whether the client may relay (`policy_context=relay`).
    pub fn to_recipient(decision: Decision, relay_context: bool) -> Action {
        match (decision.reply, &decision.verdict.outcome) {
            (Some(reply), _) => Action::Refuse(reply),
            // Inbound mail is no relaying: Postfix knows its own destinations.
            (None, Outcome::Exempt(Exemption::RecipientDomain)) => Action::Dunno,
            (None, _) if relay_context => Action::Ok,
            (None, _) => Action::Dunno,
        }
    }

    pub fn to_message(decision: Decision) -> Action {
        decision.reply.map_or(Action::Dunno, Action::Refuse)
    }

    /// Appends the whole response.
    pub fn write(&self, output: &mut Vec<u8>) {
        match self {
            Action::Dunno => output.extend_from_slice(b"action=DUNNO\n\n"),
            Action::Ok => output.extend_from_slice(b"action=OK\n\n"),
            Action::Refuse(reply) => {
                let _ = write!(output, "action={reply}\n\n");
            }
        }
    }
}
