//! A message at its end that the rules pass and the ledger is not asked about: it is counted elsewhere, or cannot be decided here.

use super::{EndDecision, Evaluation, PendingEnd};
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome};

const NO_MILTER: &str = "the MTA asks both protocols, but the milter session of this message is not open";

impl Evaluation {
    /// Another report of the end of this message has counted it: the one over the other protocol, or (`by_twin`) that of another
    /// connection of the same milter, which has also seen to the archive.
    pub fn already_counted(&self, pending: PendingEnd, by_twin: bool, cx: &Context, trace: &mut Trace) -> EndDecision {
        trace.note("count", "pass", || "the message is counted already, by its queue ID".to_owned());
        let mut verdict = pending.common.conclude_with(Outcome::Exempt(Exemption::AlreadyCounted), cx);
        if by_twin {
            verdict.archive_to = None;
        }
        self.end_decision(verdict, pending.counted, cx)
    }

    /// The MTA asks both protocols, and the milter session that would decide about this message is not open: relaykeeper was
    /// restarted meanwhile, and the MTA refuses the message itself in a moment.
    pub fn without_milter(&self, pending: PendingEnd, cx: &Context, trace: &mut Trace) -> EndDecision {
        trace.note("count", "refuse", || NO_MILTER.to_owned());
        let refusal = Refusal::CannotDecide { why: NO_MILTER.into() };
        let verdict = pending.common.conclude_with(Outcome::Refuse(Box::new(refusal)), cx);
        self.end_decision(verdict, pending.counted, cx)
    }
}
