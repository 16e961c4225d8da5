//! The order of the rules for one recipient.

use super::ledger::{CountedBy, Pending};
use super::mail::bad_sender;
use super::{Admission, Evaluation, Stage};
use crate::envelope::{Address, BadAddress, Read};
use crate::ledger::{LedgerAnswer, LedgerError, RecipientKey};
use crate::policy::facts::Context;
use crate::policy::reply::Refusal;
use crate::policy::rules::{abuse, exempt, local_mail, recipients, rewrite, size, suspension};
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome, Verdict};

/// What was decided about a recipient.
#[derive(Debug)]
pub struct RecipientDecision {
    pub verdict: Verdict,
    pub recipient: Read<Address>,
    /// It was accepted before in the same transaction: Postfix asks at each restriction stage, clients name recipients twice.
    pub is_repeated: bool,
}

/// A recipient that the rules pass, while the ledger is asked.
#[derive(Debug)]
pub struct PendingRecipient {
    recipient: Address,
    pub(super) key: RecipientKey,
    pub(super) counted_by: CountedBy,
    pub(super) common: Pending,
}

type RecipientStage = Stage<RecipientDecision, PendingRecipient>;

impl Evaluation {
    /// Decides about a recipient.
    pub fn recipient(
        &mut self,
        recipient: Read<Address>,
        counted_by: CountedBy,
        cx: &Context,
        trace: &mut Trace,
    ) -> RecipientStage {
        let key = cx.live.recipient_key(recipient.as_ref().map_or_else(|bad| bad.written(), Address::as_str));
        let suspended = self.client_suspended(cx, trace);
        let recipient = match recipient {
            Ok(recipient) => recipient,
            Err(bad) => {
                let verdict = suspended.unwrap_or_else(|| self.malformed(&bad, trace));
                return Stage::Decided(self.accept_or_not(verdict, Err(bad), key));
            }
        };
        let passed = match suspended {
            Some(verdict) => Err(verdict),
            None => self.rules(&recipient, key, cx, trace),
        };
        match passed {
            Ok(common) => Stage::AskLedger(PendingRecipient { recipient, key, counted_by, common }),
            Err(verdict) => Stage::Decided(self.accept_or_not(verdict, Ok(recipient), key)),
        }
    }

    /// A recipient that is no address: only exempt clients may say what they like.
    fn malformed(&self, bad: &BadAddress, trace: &mut Trace) -> Verdict {
        if let Admission::Exempt(exemption) = self.admission {
            return exempt(exemption);
        }
        let refusal = Refusal::BadRecipient(bad.error().clone());
        trace.note("recipient", "refuse", || refusal.to_string());
        Verdict::of(Outcome::Refuse(Box::new(refusal)))
    }

    /// The order of the rules: the first that refuses or exempts is final, and the ledger is asked last.
    #[allow(clippy::result_large_err, reason = "made and taken apart at once, for each recipient")]
    fn rules(
        &mut self,
        recipient: &Address,
        key: RecipientKey,
        cx: &Context,
        trace: &mut Trace,
    ) -> Result<Pending, Verdict> {
        if exempt::is_own_mail(recipient, cx, trace) {
            self.is_own_mail = true;
            return Err(exempt(Exemption::OwnMail));
        }
        if let Admission::Exempt(exemption) = self.admission {
            return Err(exempt(exemption));
        }
        let Ok(sender) = &cx.envelope.sender else { return Err(self.refused(bad_sender(cx), cx)) };
        if exempt::is_exempt_recipient(recipient, &cx.rules, trace) {
            return Err(exempt(Exemption::RecipientDomain));
        }
        let admitted = match &self.admission {
            Admission::Admitted(admitted) => admitted,
            Admission::Refused { refusal, .. } => return Err(self.refused(refusal.clone(), cx)),
            Admission::Exempt(exemption) => return Err(exempt(*exemption)),
        };
        if let Some(refusal) = suspension::suspended(admitted, cx, trace) {
            return Err(self.refused(refusal, cx));
        }
        if self.counted.contains(&key) {
            trace.note("recipients", "pass", || "a recipient named twice in one message is one recipient".to_owned());
            return Err(self.admission.verdict(Outcome::Accept, cx.front_end));
        }
        if let Some(refusal) = recipients::empty_sender_has_one(sender, self.counted.len(), trace) {
            return Err(self.refused(refusal, cx));
        }
        let limits = &admitted.customer.limits;
        let mut shadow = Vec::new();
        let too_large = size::declared_too_large(cx.envelope.declared_size, limits, trace);
        enforce(too_large, &mut shadow).map_err(|refusal| self.refused(refusal, cx))?;
        let too_many = recipients::too_many(limits.transaction_recipients, self.counted.len(), trace);
        enforce(too_many, &mut shadow).map_err(|refusal| self.refused(refusal, cx))?;
        let refusal = abuse::held_back(admitted, cx, trace);
        if let Some(refusal) = refusal.or_else(|| rewrite::cannot_rewrite(admitted, cx, trace)) {
            return Err(self.refused(refusal, cx));
        }
        Ok(Pending::new(admitted, shadow, cx, trace))
    }

    /// Decides about a recipient with what the ledger answered.
    pub fn recipient_answered(
        &mut self,
        pending: PendingRecipient,
        answer: &Result<LedgerAnswer, LedgerError>,
        cx: &Context,
        trace: &mut Trace,
    ) -> RecipientDecision {
        let verdict = pending.common.conclude(answer, !self.is_local, cx, trace);
        self.accept_or_not(verdict, Ok(pending.recipient), pending.key)
    }

    fn accept_or_not(&mut self, verdict: Verdict, recipient: Read<Address>, key: RecipientKey) -> RecipientDecision {
        let accepted = match &verdict.outcome {
            // Whether it fits could not be told; the end of the message asks again.
            Outcome::Accept | Outcome::Exempt(Exemption::OnFailure) => &mut self.counted,
            Outcome::Exempt(_) => &mut self.uncounted,
            Outcome::Refuse(refusal) => {
                if self.is_local {
                    let refusal = local_mail::of_whole_message((**refusal).clone());
                    self.refused_local = Some(local_mail::graver(self.refused_local.take(), refusal));
                }
                return RecipientDecision { verdict, recipient, is_repeated: false };
            }
        };
        let is_repeated = accepted.contains(&key);
        if !is_repeated {
            accepted.push(key);
        }
        RecipientDecision { verdict, recipient, is_repeated }
    }

    pub(super) fn refused(&self, refusal: Refusal, cx: &Context) -> Verdict {
        self.admission.refused(refusal, cx.front_end)
    }
}

fn exempt(exemption: Exemption) -> Verdict {
    Verdict::of(Outcome::Exempt(exemption))
}

/// A refusal of a rule in shadow is only remembered.
pub(super) fn enforce(refusal: Option<(Refusal, bool)>, shadow: &mut Vec<Refusal>) -> Result<(), Refusal> {
    match refusal {
        Some((refusal, true)) => shadow.push(refusal),
        Some((refusal, false)) => return Err(refusal),
        None => {}
    }
    Ok(())
}
