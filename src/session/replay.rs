//! Goes through a decision once more, with the facts that it was made from, to tell its steps.

use super::recorded::DecisionToRecord;
use super::transaction::context;
use crate::clock::Moment;
use crate::directory;
use crate::envelope::{Address, Read};
use crate::ledger::{LedgerAnswer, LedgerError, RecipientKey};
use crate::orders::Orders;
use crate::policy::{
    CountedBy, Evaluation, Exemption, FrontEnd, LiveFacts, Outcome, Refusal, ReportedRecipients, Stage, Step, Trace,
    Verdict,
};
use crate::size::MessageSize;
use jiff::Timestamp;
use std::sync::Arc;

/// What a decision was made from, beside the envelope and the configuration.
#[derive(Debug)]
pub struct Replay {
    pub stage: ReplayedStage,
    pub front_end: FrontEnd,
    pub orders: Arc<Orders>,
    /// Accepted recipients after the decision: those that count, and those that do not.
    pub counted: Vec<RecipientKey>,
    pub uncounted: Vec<RecipientKey>,
    /// Of mail from sendmail(1): why a recipient cannot have it.
    pub refused_local: Option<Refusal>,
    /// What the ledger answered, if it was asked.
    pub answer: Option<Result<LedgerAnswer, LedgerError>>,
    /// What must be added to the ledger's time line for the wall clock, in milliseconds.
    pub clock_offset: i64,
}

/// What was decided about.
#[derive(Debug)]
pub enum ReplayedStage {
    Mail,
    Recipient { recipient: Read<Address>, counted_by: CountedBy },
    End { reported: ReportedAtEnd, size: MessageSize, milter_is_missing: bool },
    Unended,
}

/// [`ReportedRecipients`], owned.
#[derive(Debug)]
pub enum ReportedAtEnd {
    All,
    Number { recipients: u64, lone: Option<Address> },
}

impl ReportedAtEnd {
    pub fn of(reported: ReportedRecipients) -> ReportedAtEnd {
        match reported {
            ReportedRecipients::All => ReportedAtEnd::All,
            ReportedRecipients::Number { recipients, lone } => {
                ReportedAtEnd::Number { recipients, lone: lone.cloned() }
            }
        }
    }

    fn as_reported(&self) -> ReportedRecipients<'_> {
        match self {
            ReportedAtEnd::All => ReportedRecipients::All,
            ReportedAtEnd::Number { recipients, lone } => {
                ReportedRecipients::Number { recipients: *recipients, lone: lone.as_ref() }
            }
        }
    }
}

impl Replay {
    /// The steps that led to the verdict.
    pub(super) fn steps(&self, decided: &DecisionToRecord) -> Vec<Step> {
        let live = RecordedFacts { replay: self, decided };
        let cx = context(&decided.envelope, &decided.snapshot, self.front_end, &self.orders, &live);
        let mut trace = Trace::on();
        let mut counted = self.counted.clone();
        if matches!(self.stage, ReplayedStage::Recipient { .. }) && decided.verdict.passes() {
            // As it was before this one was accepted.
            counted.pop();
        }
        let mut evaluation = Evaluation::begin(&cx, &mut trace).after_recipients(
            counted,
            self.uncounted.clone(),
            self.refused_local.clone(),
        );
        match &self.stage {
            ReplayedStage::Mail => {
                evaluation.mail(&cx, &mut trace);
            }
            ReplayedStage::Recipient { recipient, counted_by } => {
                if let Stage::AskLedger(pending) = evaluation.recipient(recipient.clone(), *counted_by, &cx, &mut trace)
                    && let Some(answer) = &self.answer
                {
                    evaluation.recipient_answered(pending, answer, &cx, &mut trace);
                }
            }
            ReplayedStage::End { reported, size, milter_is_missing } => {
                if let Stage::AskLedger(pending) = evaluation.end(reported.as_reported(), size, &cx, &mut trace) {
                    match &self.answer {
                        _ if *milter_is_missing => _ = evaluation.without_milter(pending, &cx, &mut trace),
                        Some(answer) => _ = evaluation.end_answered(pending, answer, &cx, &mut trace),
                        None => {}
                    }
                }
            }
            ReplayedStage::Unended => {
                if let (Some(pending), Some(answer)) = (evaluation.count_unended(&cx, &mut trace), &self.answer) {
                    evaluation.end_answered(pending, answer, &cx, &mut trace);
                }
            }
        }
        trace.into_steps()
    }
}

/// What was known when the decision was made.
struct RecordedFacts<'a> {
    replay: &'a Replay,
    decided: &'a DecisionToRecord,
}

impl LiveFacts for RecordedFacts<'_> {
    fn now(&self) -> Timestamp {
        self.decided.at
    }

    fn wall_clock(&self, moment: Moment) -> i64 {
        moment.0 as i64 + self.replay.clock_offset
    }

    /// One that was not accepted before: whatever is recorded is new.
    fn recipient_key(&self, _: &str) -> RecipientKey {
        let known = |key: &RecipientKey| self.replay.counted.contains(key) || self.replay.uncounted.contains(key);
        (0..).map(RecipientKey).find(|key| !known(key)).unwrap_or(RecipientKey(0))
    }

    fn signs_of_abuse(&self, asked: &directory::Subject) -> Option<Box<str>> {
        match self.decided.verdict.refusal() {
            Some(Refusal::HeldBack { user, why }) if *user == asked.name => Some(why.clone()),
            _ => None,
        }
    }

    fn has_own_mail_for(&self, _: &Address) -> bool {
        matches!(self.decided.verdict, Verdict { outcome: Outcome::Exempt(Exemption::OwnMail), .. })
    }
}
