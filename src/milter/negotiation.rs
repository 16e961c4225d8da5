//! What is agreed upon with an MTA: only the steps and actions that the configuration needs.

use super::command::Offer;
use super::error::MilterError;
use super::macros;
use indymilter::message::PROTOCOL_VERSION;
use indymilter::message::reply::Reply;
use indymilter::{Actions, ProtoOpts};
use std::collections::HashMap;

/// What the configuration in force needs to hear and to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// CONNECT may be refused, or must be known here before anybody else asks about the session: it is answered.
    pub connect_answered: bool,
    pub headers: bool,
    pub remove_headers: bool,
    pub body: bool,
}

/// What an MTA can do of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    actions: Actions,
    steps: ProtoOpts,
}

impl Agreed {
    /// Whether the MTA takes such a change at the end of a message.
    pub fn can(&self, action: Actions) -> bool {
        self.actions.contains(action)
    }

    /// Whether the MTA waits for no answer to a step: one of `ProtoOpts::NOREPLY_…`.
    pub fn is_silent(&self, step: ProtoOpts) -> bool {
        self.steps.contains(step)
    }
}

/// # Errors
/// The MTA is too old.
pub(super) fn negotiate(offer: Offer, needs: Needs) -> Result<(Agreed, Reply), MilterError> {
    if offer.version < 2 {
        return Err(MilterError::TooOld(offer.version));
    }
    let offered = Actions::from_bits_truncate(offer.actions);
    // Protocol versions before 6 know fewer steps to leave out: such an MTA sends the rest, and is answered.
    let agreed =
        Agreed { actions: actions(needs) & offered, steps: steps(needs) & ProtoOpts::from_bits_truncate(offer.steps) };
    // Older MTAs expect no list of macros, and send what they are configured to send.
    let macros = if offered.contains(Actions::REQUEST_MACROS) { macros::wanted() } else { HashMap::new() };
    let version = offer.version.min(PROTOCOL_VERSION);
    Ok((agreed, Reply::OptNeg { version, actions: agreed.actions, opts: agreed.steps, macros }))
}

/// Whether or not a customer has its mail archived now: a session may go on after a reload that begins with it.
const ACTIONS: Actions = Actions::CHANGE_SENDER.union(Actions::ADD_RCPT).union(Actions::ADD_RCPT_EXT);

fn actions(needs: Needs) -> Actions {
    let mut actions = ACTIONS;
    actions.set(Actions::CHANGE_HEADER, needs.remove_headers);
    actions
}

/// HELO and MAIL are answered although nothing may be decided there. Without an answer to MAIL Sendmail never sends ABORT,
/// and without one to HELO Postfix keeps the packet back: a transaction that is over would go unnoticed.
fn steps(needs: Needs) -> ProtoOpts {
    let mut steps = ProtoOpts::NO_DATA | ProtoOpts::NO_UNKNOWN;
    steps.set(ProtoOpts::NOREPLY_CONNECT, !needs.connect_answered);
    // Nothing is decided before the end: MTAs need not wait for an answer to each header and chunk.
    steps.set(ProtoOpts::NO_HEADER, !needs.headers);
    steps.set(ProtoOpts::NOREPLY_HEADER, needs.headers);
    steps.set(ProtoOpts::NO_EOH, !needs.headers && !needs.body);
    steps.set(ProtoOpts::NOREPLY_EOH, needs.headers || needs.body);
    steps.set(ProtoOpts::NO_BODY, !needs.body);
    steps.set(ProtoOpts::NOREPLY_BODY, needs.body);
    steps
}
