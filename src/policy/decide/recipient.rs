//! The rules for one recipient, and what the ledger's answer makes of it (relay service, sections 4 and 5).

use super::mail::{Admission, Admitted};
use crate::clock::Moment;
use crate::directory::{LimitName, Parties};
use crate::envelope::{Address, Sender};
use crate::ledger::{LedgerAnswer, LimitStanding};
use crate::orders::Orders;
use crate::policy::facts::{Facts, Rules};
use crate::policy::reply::{LimitRefusal, Refusal};
use crate::policy::rules::size::declared_too_large;
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome, Verdict};

/// What is known of a recipient and of those before it in the same transaction.
#[derive(Clone, Copy, Debug)]
pub struct RecipientFacts<'a> {
    pub recipient: &'a Address,
    /// Different recipients accepted before, exempt ones left out.
    pub accepted_before: u64,
    /// It is one of those.
    pub repeated: bool,
}

/// What remains to be done for a recipient once the rules have been asked.
// Made and taken apart at once, never stored.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Gate<'a> {
    /// Decided.
    Verdict(Verdict),
    /// The rules pass it; whether it fits is for the ledger to say. `shadow`: a rule in shadow would have refused it.
    AskLedger { admitted: &'a Admitted, shadow: Option<Refusal> },
}

impl Admission {
    pub fn gate(
        &self,
        facts: &Facts,
        recipient: &RecipientFacts,
        rules: &Rules,
        orders: &Orders,
        trace: &mut Trace,
    ) -> Gate<'_> {
        if let Admission::Exempt(exemption) = self {
            return Gate::Verdict(self.verdict(Outcome::Exempt(*exemption)));
        }
        if is_exempt_recipient(recipient.recipient, rules) {
            let domain = recipient.recipient.domain();
            trace.note("exempt", "pass", || format!("the recipient's domain {domain} is in exempt_recipient_domains"));
            return Gate::Verdict(Verdict::of(Outcome::Exempt(Exemption::RecipientDomain)));
        }
        let admitted = match self {
            Admission::Admitted(admitted) => admitted,
            Admission::Refused { refusal, .. } => return Gate::Verdict(self.refused(refusal.clone())),
            Admission::Exempt(_) => unreachable!("returned above"),
        };
        if let Some(refusal) = self.suspended(facts, orders, trace) {
            return Gate::Verdict(self.refused(refusal));
        }
        if recipient.repeated {
            trace.note("recipients", "pass", || "a recipient named twice in one message is one recipient".to_owned());
            return Gate::Verdict(self.verdict(Outcome::Accept));
        }
        if *facts.sender == Sender::Empty && recipient.accepted_before >= 1 {
            trace.note("recipients", "refuse", || "the empty sender takes one recipient per transaction".to_owned());
            return Gate::Verdict(self.refused(Refusal::EmptySenderRecipients));
        }
        let mut shadow = None;
        if let Some((refusal, is_shadow)) = declared_too_large(facts, admitted, trace) {
            if !is_shadow {
                return Gate::Verdict(self.refused(refusal));
            }
            shadow = Some(refusal);
        }
        let limit = admitted.customer.limits.transaction_recipients;
        if let Some(max) = limit.max.filter(|&max| recipient.accepted_before >= max) {
            let outcome = if limit.shadow { "shadow" } else { "refuse" };
            trace.note("recipients", outcome, || format!("the transaction has its {max} recipients already"));
            let refusal = Refusal::TooManyRecipients { max };
            if !limit.shadow {
                return Gate::Verdict(self.refused(refusal));
            }
            shadow = Some(refusal);
        } else {
            let number = recipient.accepted_before + 1;
            trace.note("recipients", "pass", || format!("recipient {number} of the transaction"));
        }
        Gate::AskLedger { admitted, shadow }
    }

    fn refused(&self, refusal: Refusal) -> Verdict {
        self.verdict(Outcome::Refuse(Box::new(refusal)))
    }
}

/// Whether mail to the recipient is not ours to judge, whoever sends it (`exempt_recipient_domains`).
pub fn is_exempt_recipient(recipient: &Address, rules: &Rules) -> bool {
    let domain = recipient.domain();
    rules.relay.exempt_recipient_domains.iter().any(|exempt| exempt == domain)
}

/// What the ledger's answer makes of an admitted recipient or message. `wall` tells what the wall clock shows
/// at a moment of the ledger's time line, in milliseconds since 1970.
pub fn conclude(
    admission: &Admission,
    answer: &LedgerAnswer,
    wall: impl Fn(Moment) -> i64,
    trace: &mut Trace,
) -> Verdict {
    let Admission::Admitted(admitted) = admission else {
        return admission.verdict(Outcome::Accept);
    };
    let refusal = |standing: &LimitStanding| limit_refusal(admitted, standing, &wall);
    for standing in &answer.over {
        trace.note("limit", "refuse", || refusal(standing).to_string());
    }
    for standing in &answer.shadow_over {
        trace.note("limit", "shadow", || refusal(standing).to_string());
    }
    if answer.fits() {
        trace.note("limit", "pass", || "every limit leaves room for it".to_owned());
    }
    let outcome = match worst(&answer.over) {
        Some(standing) => Outcome::Refuse(Box::new(refusal(standing))),
        None => Outcome::Accept,
    };
    let mut verdict = admission.verdict(outcome);
    verdict.shadow.extend(answer.shadow_over.iter().map(refusal));
    verdict
}

/// Of several limits that refuse, the one that says most: what can never fit before what would fit later, and of those
/// the one that takes longest.
fn worst(over: &[LimitStanding]) -> Option<&LimitStanding> {
    over.iter().rev().max_by_key(|standing| (standing.never_fits(), !standing.only_reservations(), standing.fits_at))
}

fn limit_refusal(admitted: &Admitted, standing: &LimitStanding, wall: impl Fn(Moment) -> i64) -> Refusal {
    let Parties { customer, user, login } = &admitted.parties;
    let whose = match standing.limit {
        LimitName::CustomerDay | LimitName::CustomerPeak => customer,
        LimitName::UserMessages | LimitName::UserUniques => user.as_ref().unwrap_or(customer),
        LimitName::LoginMessages | LimitName::LoginUniques => login.as_ref().unwrap_or(customer),
    };
    Refusal::Limit(LimitRefusal {
        limit: standing.limit,
        max: standing.max,
        action: admitted.customer.limits.counted(standing.limit).action,
        whose: whose.clone(),
        never_fits: standing.never_fits(),
        only_reservations: standing.only_reservations(),
        retry_at_ms: standing.fits_at.map(wall),
    })
}
