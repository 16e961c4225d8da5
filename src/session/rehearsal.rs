//! A transaction that does not happen, for `explain`: the same way through the same decision, and nothing is counted.

use super::engine::Snapshot;
use super::envelope::Envelope;
use crate::envelope::Address;
use crate::ledger::{Ledger, LedgerError, RecipientKey};
use crate::orders::Orders;
use crate::policy::{Admission, Gate, Outcome, RecipientFacts, Refusal, Step, Trace, Verdict, admit, conclude};

/// What would happen to a transaction.
#[derive(Debug)]
pub struct Rehearsal {
    /// The steps that concern the transaction as a whole.
    pub steps: Vec<Step>,
    /// One for each recipient, in the order given.
    pub recipients: Vec<RehearsedRecipient>,
}

#[derive(Debug)]
pub struct RehearsedRecipient {
    pub recipient: Address,
    pub verdict: Verdict,
    pub steps: Vec<Step>,
}

impl Rehearsal {
    /// Goes through the whole transaction. `None` when the sender cannot be read.
    pub async fn of(
        envelope: &Envelope,
        recipients: &[Address],
        snapshot: &Snapshot,
        ledger: &Ledger,
        orders: &Orders,
    ) -> Option<Rehearsal> {
        let facts = envelope.facts()?;
        let rules = snapshot.rules();
        let mut trace = Trace::on();
        let admission = admit(&facts, &rules, &mut trace);
        let mut rehearsal = Rehearsal { steps: trace.into_steps(), recipients: Vec::new() };
        let mut accepted: Vec<RecipientKey> = Vec::new();
        for recipient in recipients {
            let mut trace = Trace::on();
            let key = ledger.recipient_key(recipient.as_str());
            let repeated = accepted.contains(&key);
            let about = RecipientFacts { recipient, accepted_before: accepted.len() as u64, repeated };
            let verdict = match admission.gate(&facts, &about, &rules, orders, &mut trace) {
                Gate::Verdict(verdict) => verdict,
                Gate::AskLedger { admitted, shadow } => {
                    accepted.push(key);
                    let now = || jiff::Timestamp::from_millisecond(ledger.wall(ledger.now())).unwrap_or_default();
                    let limits = admitted.limits(orders, now, &mut trace);
                    let answer = ledger.look(None, &admitted.parties, &limits, &accepted).await;
                    let mut verdict = match answer {
                        Ok(answer) => conclude(&admission, &answer, |moment| ledger.wall(moment), &mut trace),
                        Err(error) => undecided(&admission, &error),
                    };
                    verdict.shadow.extend(shadow);
                    if !verdict.passes() {
                        accepted.pop();
                    }
                    verdict
                }
            };
            rehearsal.recipients.push(RehearsedRecipient {
                recipient: recipient.clone(),
                verdict,
                steps: trace.into_steps(),
            });
        }
        Some(rehearsal)
    }

    /// The recipient whose fate stands for the transaction: the first that is refused, else the first.
    pub fn decisive(&self) -> Option<&RehearsedRecipient> {
        self.recipients.iter().find(|recipient| !recipient.verdict.passes()).or(self.recipients.first())
    }
}

fn undecided(admission: &Admission, error: &LedgerError) -> Verdict {
    let refusal = Refusal::CannotDecide { why: error.to_string().into() };
    admission.verdict(Outcome::Refuse(Box::new(refusal)))
}
