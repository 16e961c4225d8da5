//! A decision as it is recorded for `explain REFERENCE`. Its words are those of the verdict; its steps are those of the evaluation,
//! which is gone through once more with the same facts, on the thread that writes the record.

use super::engine::Snapshot;
use super::replay::Replay;
use crate::envelope::{Address, Envelope};
use crate::policy::{MtaProtocol, Outcome, Verdict};
use crate::report::Reference;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A decision on its way to the record: what it was made from, and what came of it.
#[derive(Debug)]
pub struct DecisionToRecord {
    pub at: Timestamp,
    pub protocol: MtaProtocol,
    pub envelope: Envelope,
    pub snapshot: Arc<Snapshot>,
    pub verdict: Verdict,
    pub recipient: Option<Address>,
    pub queue_id: Option<Box<str>>,
    /// At the end of a message: how many it went to.
    pub recipients: Option<u64>,
    /// `None` for a connection: no rule but its limits was asked.
    pub replay: Option<Replay>,
}

/// The record. The keys that `explain --json` has too mean the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedDecision {
    pub reference: String,
    pub at: Timestamp,
    /// `milter` or `policy`
    pub proto: String,
    pub queue_id: Option<String>,
    pub client: Option<String>,
    pub helo: String,
    pub tls: String,
    pub login: String,
    /// The login came by XCLIENT.
    #[serde(default)]
    pub proxied_login: bool,
    pub sender: Option<String>,
    /// The recipient that was decided; at the end of a message there is none.
    pub recipient: Option<String>,
    pub recipients: Option<u64>,
    pub verdict: String,
    pub reason: Option<String>,
    pub reply: Option<String>,
    pub customer: Option<String>,
    pub identified_by: Option<String>,
    pub setting: Option<String>,
    pub user: Option<String>,
    pub rewrite_sender_to: Option<String>,
    /// What limits and settings in shadow would have said.
    pub shadow: Vec<String>,
    pub steps: Vec<RecordedStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedStep {
    pub step: String,
    pub outcome: String,
    pub because: String,
}

impl RecordedDecision {
    pub fn of(reference: Reference, decided: &DecisionToRecord) -> RecordedDecision {
        let DecisionToRecord { envelope, verdict, .. } = decided;
        let owned = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let reason = match &verdict.outcome {
            Outcome::Accept => None,
            Outcome::Exempt(exemption) => Some(exemption.key()),
            Outcome::Refuse(refusal) => Some(refusal.key()),
        };
        RecordedDecision {
            reference: reference.to_string(),
            at: decided.at,
            proto: decided.protocol.key().to_owned(),
            queue_id: decided.queue_id.as_deref().map(str::to_owned),
            client: envelope.client.map(|client| client.to_string()),
            helo: envelope.helo.to_string(),
            tls: envelope.tls.to_string(),
            login: envelope.login.to_string(),
            proxied_login: envelope.proxied_login,
            sender: envelope.written_sender().map(|sender| sender.to_string()),
            recipient: decided.recipient.as_ref().map(ToString::to_string),
            recipients: decided.recipients,
            verdict: verdict.word().to_owned(),
            reason: reason.map(str::to_owned),
            reply: verdict.refusal().map(|refusal| refusal.reply(reference).to_string()),
            customer: owned(&verdict.customer),
            identified_by: verdict.identified_by.map(|by| by.key().to_owned()),
            setting: owned(&verdict.setting),
            user: owned(&verdict.user),
            rewrite_sender_to: verdict.rewrite_sender_to.as_ref().map(ToString::to_string),
            shadow: verdict.shadow.iter().map(|refusal| format!("{}: {refusal}", refusal.key())).collect(),
            steps: steps(decided, reason),
        }
    }
}

fn steps(decided: &DecisionToRecord, reason: Option<&str>) -> Vec<RecordedStep> {
    let step =
        |step: &str, outcome: &str, because| RecordedStep { step: step.into(), outcome: outcome.into(), because };
    if let Some(replay) = &decided.replay {
        let steps = replay.steps(decided).into_iter();
        return steps.map(|found| step(found.step, found.outcome, found.because)).collect();
    }
    let in_shadow = decided.verdict.shadow.iter().map(|refusal| step(refusal.key(), "shadow", refusal.to_string()));
    let refusal = decided.verdict.refusal();
    in_shadow.chain(refusal.map(|refusal| step(reason.unwrap_or("verdict"), "refuse", refusal.to_string()))).collect()
}
