//! What `explain` says of a transaction, with what the running daemon knows, to compare with what the daemon then does.

use super::installation::Running;
use relaykeeper::envelope::Envelope;
use relaykeeper::policy::Verdict;
use relaykeeper::report::Reference;
use relaykeeper::session::{Live, Rehearsal, Surroundings, Via};
use relaykeeper::size::MessageSize;

pub async fn rehearse(
    running: &Running,
    envelope: &Envelope,
    recipients: &[String],
    size: MessageSize,
    via: Via,
) -> Rehearsal {
    let (engine, orders) = (&running.engine, running.engine.administration.orders());
    let snapshot = engine.snapshot();
    let live = Live { engine, snapshot: &snapshot };
    let surroundings = Surroundings { snapshot: &snapshot, ledger: &engine.ledger, orders: &orders, live: &live };
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    Rehearsal::of(envelope, &recipients, size, via, surroundings).await
}

/// The reply that refuses, if one does, as it is compared.
pub fn reply_of(verdict: &Verdict) -> Option<String> {
    verdict.refusal().map(|refusal| without_reference(&refusal.reply(Reference::generate()).to_string()).to_owned())
}

/// References differ.
pub fn without_reference(reply: &str) -> &str {
    reply.rsplit_once(" [").expect("a reference at the end").0
}
