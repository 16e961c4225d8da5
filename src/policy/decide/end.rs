//! The order of the rules at the end of a message, which everybody before us has accepted.

use super::ledger::Pending;
use super::recipient::enforce;
use super::{Admission, Evaluation, Stage};
use crate::envelope::Address;
use crate::ledger::{AcceptedRecipients, LedgerAnswer, LedgerError, RecipientKey};
use crate::policy::facts::Context;
use crate::policy::rules::{abuse, exempt, rewrite, size, suspension};
use crate::policy::trace::Trace;
use crate::policy::verdict::{Exemption, Outcome, Verdict};
use crate::size::MessageSize;

/// The recipients of a message at its end, as the MTA reports them.
#[derive(Clone, Copy, Debug)]
pub enum ReportedRecipients<'a> {
    /// All that were accepted here.
    All,
    /// Only their number; where it is one, the MTA names it. Fewer than were accepted here count as that number; of a message
    /// whose recipients were never seen (the daemon was restarted meanwhile) the number is all that counts.
    Number { recipients: u64, lone: Option<&'a Address> },
}

/// The recipients of a message that count.
#[derive(Clone, Copy, Debug)]
pub(super) enum CountedAtEnd {
    /// The first so many of those accepted here.
    Accepted(usize),
    /// This one alone.
    Lone([RecipientKey; 1]),
    /// So many that were never seen here.
    Number(u32),
}

/// What was decided about a message.
#[derive(Debug)]
pub struct EndDecision {
    pub verdict: Verdict,
    /// All recipients, those that do not count too.
    pub recipients: u64,
    counted: CountedAtEnd,
}

/// A message that the rules pass, while the ledger is asked.
#[derive(Debug)]
pub struct PendingEnd {
    pub(super) counted: CountedAtEnd,
    pub(super) common: Pending,
}

impl Evaluation {
    /// Decides about the message.
    pub fn end(
        &self,
        reported: ReportedRecipients,
        size: &MessageSize,
        cx: &Context,
        trace: &mut Trace,
    ) -> Stage<EndDecision, PendingEnd> {
        let counted = self.counted_at_end(reported, cx);
        match self.rules_at_end(&counted, reported, size, cx, trace) {
            Ok(common) => Stage::AskLedger(PendingEnd { counted, common }),
            Err(verdict) => Stage::Decided(self.end_decision(verdict, counted, cx)),
        }
    }

    /// The order of the rules: the first that refuses or exempts is final, and the ledger is asked last.
    #[allow(clippy::result_large_err, reason = "made and taken apart at once")]
    fn rules_at_end(
        &self,
        counted: &CountedAtEnd,
        reported: ReportedRecipients,
        size: &MessageSize,
        cx: &Context,
        trace: &mut Trace,
    ) -> Result<Pending, Verdict> {
        if let Some(verdict) = self.client_suspended(cx, trace) {
            return Err(verdict);
        }
        let exempt = |exemption| Err(self.admission.verdict(Outcome::Exempt(exemption), cx.front_end));
        if let Some(refusal) = &self.refused_local {
            trace.note("recipients", "refuse", || format!("a recipient was refused, so all are: {refusal}"));
            return Err(self.refused(refusal.clone(), cx));
        }
        let unjudged = if self.is_own_mail { Exemption::OwnMail } else { Exemption::RecipientDomain };
        let admitted = match &self.admission {
            Admission::Exempt(exemption) => return exempt(*exemption),
            _ if self.recipients_of(counted).is_empty() => {
                return Err(Verdict::of(Outcome::Exempt(unjudged)));
            }
            Admission::Refused { refusal, .. } if self.may_refuse_unseen(reported, cx) => {
                return Err(self.refused(refusal.clone(), cx));
            }
            Admission::Refused { .. } => return Err(Verdict::of(Outcome::Exempt(unjudged))),
            Admission::Admitted(admitted) => admitted,
        };
        if let Some(refusal) = suspension::suspended(admitted, cx, trace) {
            return Err(self.refused(refusal, cx));
        }
        // What was said to each recipient is said now, if none was ever seen.
        let held_back = if self.has_recipients() { None } else { abuse::held_back(admitted, cx, trace) };
        // Behind smtpd_proxy_filter, what the milter would have rewritten is at its end the policy service's to judge.
        if let Some(refusal) = held_back.or_else(|| rewrite::cannot_rewrite(admitted, cx, trace)) {
            return Err(self.refused(refusal, cx));
        }
        let mut shadow = Vec::new();
        for too_large in size::too_large_at_end(size, &admitted.customer.limits, trace) {
            enforce(too_large, &mut shadow).map_err(|refusal| self.refused(refusal, cx))?;
        }
        Ok(Pending::new(admitted, shadow, cx, trace))
    }

    /// Decides about the message with what the ledger answered.
    pub fn end_answered(
        &self,
        pending: PendingEnd,
        answer: &Result<LedgerAnswer, LedgerError>,
        cx: &Context,
        trace: &mut Trace,
    ) -> EndDecision {
        let can_be_split = !self.is_local && !matches!(pending.counted, CountedAtEnd::Number(_));
        let verdict = pending.common.conclude(answer, can_be_split, cx, trace);
        self.end_decision(verdict, pending.counted, cx)
    }

    /// A message that nobody reports the end of, to be counted as if it had been accepted; `None` if nothing counts.
    pub fn count_unended(&self, cx: &Context, trace: &mut Trace) -> Option<PendingEnd> {
        let admitted = self.admitted().filter(|_| !self.counted.is_empty())?;
        let counted = CountedAtEnd::Accepted(self.counted.len());
        Some(PendingEnd { counted, common: Pending::new(admitted, Vec::new(), cx, trace) })
    }

    /// The recipients of a message that count.
    pub fn counted_of<'a>(&'a self, decision: &'a EndDecision) -> AcceptedRecipients<'a> {
        self.recipients_of(&decision.counted)
    }

    pub(super) fn recipients_of<'a>(&'a self, counted: &'a CountedAtEnd) -> AcceptedRecipients<'a> {
        match counted {
            CountedAtEnd::Accepted(number) => AcceptedRecipients { named: &self.counted[..*number], unnamed: 0 },
            CountedAtEnd::Lone(lone) => AcceptedRecipients { named: lone, unnamed: 0 },
            CountedAtEnd::Number(number) => AcceptedRecipients { named: &[], unnamed: *number },
        }
    }

    pub(super) fn end_decision(&self, mut verdict: Verdict, counted: CountedAtEnd, cx: &Context) -> EndDecision {
        // A copy that goes there anyway is none.
        verdict.archive_to = verdict.archive_to.filter(|address| {
            let key = cx.live.recipient_key(address.as_str());
            !self.counted.contains(&key) && !self.uncounted.contains(&key)
        });
        let recipients = self.recipients_of(&counted).len() + self.uncounted.len() as u64;
        EndDecision { verdict, recipients, counted }
    }

    /// The recipients that the MTA accepted, as far as they are known and count.
    fn counted_at_end(&self, reported: ReportedRecipients, cx: &Context) -> CountedAtEnd {
        let number = match reported {
            ReportedRecipients::All => return CountedAtEnd::Accepted(self.counted.len()),
            ReportedRecipients::Number { recipients, lone } => match lone {
                Some(lone) if exempt::is_exempt_recipient(lone, &cx.rules, &mut Trace::off()) => 0,
                Some(lone) => {
                    let key = cx.live.recipient_key(lone.as_str());
                    if !self.has_recipients() || self.counted.contains(&key) {
                        return CountedAtEnd::Lone([key]);
                    }
                    1
                }
                _ if !self.has_recipients() => {
                    return CountedAtEnd::Number(u32::try_from(recipients).unwrap_or(u32::MAX));
                }
                _ => usize::try_from(recipients).unwrap_or(usize::MAX),
            },
        };
        // The MTA counts a recipient that was named twice as two, so more than were accepted here are never meant.
        CountedAtEnd::Accepted(number.min(self.counted.len()))
    }

    /// Whether a message whose recipients were never seen here can be judged by its sender alone.
    fn may_refuse_unseen(&self, reported: ReportedRecipients, cx: &Context) -> bool {
        let is_known = match reported {
            ReportedRecipients::All => true,
            ReportedRecipients::Number { lone, .. } => lone.is_some(),
        };
        !self.has_recipients() && (is_known || cx.rules.relay.exempt_recipient_domains.is_empty())
    }
}
