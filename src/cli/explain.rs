//! `explain`: what would happen to a transaction, step by step.

mod recorded;

use super::arguments::Explain;
use super::{DONE, NO, USAGE, configuration, print};
use crate::administration::Administration;
use crate::config::{OnOutage, Store};
use crate::envelope::{Address, Envelope};
use crate::ledger::Ledger;
use crate::orders::Orders;
use crate::policy::Step;
use crate::session::{OfflineFacts, Rehearsal, RehearsedStage, Snapshot, Surroundings, Via};
use crate::size::MessageSize;
use serde_json::{Value, json};

/// Stands where a real reply has its reference.
const NO_REFERENCE: &str = "explain";

pub fn run(question: &Explain) -> u8 {
    if let Some(reference) = question.reference {
        return recorded::run(&question.config.config, reference, question.json);
    }
    let Some(snapshot) = configuration(&question.config.config) else { return NO };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        print::error("the system gives no event queue (epoll_create1(2))");
        return NO;
    };
    let (ledger, counts) = runtime.block_on(open_ledger(&snapshot));
    let (orders, counts) = match Administration::read(snapshot.settings.store.path()) {
        Ok(orders) => (orders, counts),
        Err(error) => (Orders::default(), format!("{counts}; suspensions taken as none: {error}")),
    };
    let via = question.via.map_or_else(|| offered(&snapshot), Via::from);
    let recipients: Vec<&str> = question.recipients.iter().map(String::as_str).collect();
    let live = OfflineFacts { ledger: &ledger };
    let surroundings = Surroundings { snapshot: &snapshot, ledger: &ledger, orders: &orders, live: &live };
    let size = MessageSize { bytes: question.size, attachments: None };
    let envelope = envelope(question, via);
    let rehearsal = runtime.block_on(Rehearsal::of(&envelope, &recipients, size, via, surroundings));
    let Some(decisive) = rehearsal.decisive() else { return complain("--recipient: none was given") };
    if question.json {
        print::json(&to_json(&rehearsal, decisive, via, &counts));
    } else {
        print::lines(&to_lines(&rehearsal, decisive, via, &counts));
    }
    if decisive.verdict.passes() { DONE } else { NO }
}

/// By the protocols that the daemon listens for.
fn offered(snapshot: &Snapshot) -> Via {
    let listen = &snapshot.settings.listen;
    match (listen.milter.is_empty(), listen.policy.is_empty()) {
        (false, false) => Via::Both,
        (true, false) => Via::Policy,
        (_, true) => Via::Milter,
    }
}

impl From<super::arguments::Via> for Via {
    fn from(via: super::arguments::Via) -> Via {
        match via {
            super::arguments::Via::Milter => Via::Milter,
            super::arguments::Via::Policy => Via::Policy,
            super::arguments::Via::Both => Via::Both,
        }
    }
}

fn complain(what: &str) -> u8 {
    print::error(what);
    USAGE
}

fn envelope(question: &Explain, via: Via) -> Envelope {
    let Explain { helo, tls, login, sasl_method, sender, size, .. } = question;
    let sender = via.read_sender(sender.as_deref().unwrap_or_default());
    Envelope::new(question.client, helo, tls, login, sender).with_sasl_method(sasl_method).declaring(*size)
}

/// The counts as they are in the store; where they cannot be read, none, and the reason.
async fn open_ledger(snapshot: &Snapshot) -> (Ledger, String) {
    let relay = &snapshot.settings.relay;
    let empty = || {
        let clock = std::sync::Arc::new(crate::clock::SystemClock::start(None));
        Ledger::in_memory(clock, relay.reservation_timeout)
    };
    match &snapshot.settings.store {
        Store::Embedded { path, .. } => match Ledger::open_read_only(path) {
            Ok(ledger) => (ledger, format!("as counted in {}", path.display())),
            Err(error) => (empty(), format!("taken as zero: {error}")),
        },
        Store::Redis { urls, .. } => match open_shared(urls, relay.reservation_timeout).await {
            Ok(ledger) => (ledger, "as counted in the shared store".to_owned()),
            Err(error) => (empty(), format!("taken as zero: {error}")),
        },
    }
}

async fn open_shared(urls: &[String], timeout: std::time::Duration) -> Result<Ledger, Box<dyn std::error::Error>> {
    let ledger = Ledger::open_shared(urls, OnOutage::Defer, timeout)?;
    ledger.ready().await?;
    Ok(ledger)
}

fn reply(stage: &RehearsedStage) -> Option<String> {
    stage.verdict.refusal().map(|refusal| refusal.reply(NO_REFERENCE).to_string())
}

fn to_json(rehearsal: &Rehearsal, decisive: &RehearsedStage, via: Via, counts: &str) -> Value {
    let verdict = &decisive.verdict;
    let recipients: Vec<Value> = rehearsal
        .recipients
        .iter()
        .map(|recipient| {
            json!({
                "recipient": recipient.recipient,
                "verdict": recipient.verdict.word(),
                "reply": reply(recipient),
            })
        })
        .collect();
    let steps: Vec<_> = rehearsal.steps.iter().chain(&decisive.steps).collect();
    json!({
        "verdict": verdict.word(),
        "reply": reply(decisive),
        "customer": verdict.customer,
        "identified_by": verdict.identified_by.map(|by| by.key()),
        "setting": verdict.setting,
        "rewrite_sender_to": verdict.rewrite_sender_to.as_ref().map(Address::as_str),
        "user": verdict.user,
        "steps": steps,
        "recipients": recipients,
        "counts": counts,
        "via": via.key(),
    })
}

fn to_lines(rehearsal: &Rehearsal, decisive: &RehearsedStage, via: Via, counts: &str) -> Vec<String> {
    let verdict = &decisive.verdict;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| lines.push(format!("{name:<10} {value}"));
    line("verdict", verdict.word());
    if let Some(reply) = reply(decisive) {
        line("reply", &reply);
    }
    if let Some(customer) = &verdict.customer {
        match verdict.identified_by {
            Some(by) => line("customer", &format!("{customer}, identified by {}", by.key())),
            None => line("customer", customer),
        }
    }
    for (name, value) in [("setting", verdict.setting.as_deref()), ("user", verdict.user.as_deref())] {
        if let Some(value) = value {
            line(name, value);
        }
    }
    if let Some(sender) = &verdict.rewrite_sender_to {
        line("sender", &format!("rewritten to {sender}"));
    }
    line("via", via.words());
    line("counts", counts);
    lines.push("steps".to_owned());
    lines.extend(steps(&rehearsal.steps));
    for recipient in &rehearsal.recipients {
        if rehearsal.recipients.len() > 1 {
            lines.push(format!("recipient {}: {}", recipient.recipient, recipient.verdict.word()));
        }
        lines.extend(steps(&recipient.steps));
    }
    if let Some(end) = rehearsal.end.as_ref().filter(|end| !end.verdict.passes()) {
        lines.push(format!("end of the message: {}", end.verdict.word()));
        lines.extend(steps(&end.steps));
    }
    lines
}

fn steps(steps: &[Step]) -> impl Iterator<Item = String> {
    steps.iter().map(|step| format!("  {:<10} {:<7} {}", step.step, step.outcome, step.because))
}
