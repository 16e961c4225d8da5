//! What the ledger is asked in the course of an evaluation, and what its answer means.

use super::{Admitted, Evaluation, PendingEnd, PendingRecipient};
use crate::config::OnFailure;
use crate::directory::{CustomerLimits, Parties};
use crate::ledger::{AcceptedRecipients, LedgerAnswer, LedgerError, RecipientKey, ReservationId};
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::rules::limits;
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome, Verdict};
use std::sync::Arc;

/// A question to the ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerQuestion<'a> {
    pub parties: &'a Parties,
    pub limits: &'a CustomerLimits,
    pub request: LedgerRequest<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum LedgerRequest<'a> {
    /// One more recipient, on top of those accepted before: to be reserved, or looked at where another session counts.
    Recipient { accepted: &'a [RecipientKey], new: RecipientKey, counted_by: CountedBy },
    /// The message is accepted: to be counted.
    Message(AcceptedRecipients<'a>),
}

/// Who counts the recipients of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// The transaction itself.
    Itself,
    /// The milter session that is open for the same SMTP session, with the reservation of its transaction, if it has one.
    Milter(Option<ReservationId>),
}

/// What every stage keeps while the ledger is asked.
#[derive(Debug)]
pub(super) struct Pending {
    admitted: Arc<Admitted>,
    /// Raised by grants; `None`: as configured.
    limits: Option<Box<CustomerLimits>>,
    /// What rules in shadow would have refused so far.
    shadow: Vec<Refusal>,
}

impl Pending {
    pub fn new(admitted: &Arc<Admitted>, shadow: Vec<Refusal>, cx: &Context, trace: &mut Trace) -> Pending {
        Pending { admitted: admitted.clone(), limits: limits::raised(admitted, cx, trace).map(Box::new), shadow }
    }

    fn question<'a>(&'a self, request: LedgerRequest<'a>) -> LedgerQuestion<'a> {
        let limits = self.limits.as_deref().unwrap_or(&self.admitted.customer.limits);
        LedgerQuestion { parties: &self.admitted.parties, limits, request }
    }

    /// The verdict of what the ledger is not asked about.
    pub fn conclude_with(self, outcome: Outcome, cx: &Context) -> Verdict {
        let Pending { admitted, mut shadow, .. } = self;
        let mut verdict = admitted.verdict(outcome, cx.front_end);
        verdict.shadow.append(&mut shadow);
        verdict
    }

    /// What the ledger's answer makes of an admitted recipient or message.
    /// `can_be_split`: the client can send to some of its recipients now, and to the others later.
    pub fn conclude(
        self,
        answer: &Result<LedgerAnswer, LedgerError>,
        can_be_split: bool,
        cx: &Context,
        trace: &mut Trace,
    ) -> Verdict {
        let Pending { admitted, mut shadow, .. } = self;
        let outcome = match answer {
            Ok(answer) => match limits::exceeded(&admitted, answer, can_be_split, &mut shadow, cx, trace) {
                Some(refusal) => Outcome::Refuse(Box::new(refusal)),
                None => Outcome::Accept,
            },
            Err(error) => on_failure(error, cx, trace),
        };
        Pending { admitted, limits: None, shadow }.conclude_with(outcome, cx)
    }
}

impl Evaluation {
    /// What a pending recipient asks the ledger.
    pub fn recipient_question<'a>(&'a self, pending: &'a PendingRecipient) -> LedgerQuestion<'a> {
        let (new, counted_by) = (pending.key, pending.counted_by);
        pending.common.question(LedgerRequest::Recipient { accepted: &self.counted, new, counted_by })
    }

    /// What a message at its end asks the ledger.
    pub fn end_question<'a>(&'a self, pending: &'a PendingEnd) -> LedgerQuestion<'a> {
        pending.common.question(LedgerRequest::Message(self.recipients_of(&pending.counted)))
    }
}

/// The store cannot answer: `on_failure` decides.
fn on_failure(error: &LedgerError, cx: &Context, trace: &mut Trace) -> Outcome {
    match cx.rules.relay.on_failure {
        OnFailure::Accept => {
            trace.note("store", "pass", || format!("{error}; on_failure is \"accept\""));
            Outcome::Exempt(Exemption::OnFailure)
        }
        OnFailure::Defer => {
            trace.note("store", "refuse", || format!("{error}; on_failure is \"defer\""));
            Outcome::Refuse(Box::new(Refusal::CannotDecide { why: error.to_string().into() }))
        }
    }
}
