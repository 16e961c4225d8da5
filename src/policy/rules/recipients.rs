//! How many recipients one transaction may have (relay service, sections 4 and 5).

use crate::directory::Limit;
use crate::envelope::Sender;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;

/// The empty sender may have one recipient per transaction.
pub fn empty_sender_has_one(sender: &Sender, accepted_before: usize, trace: &mut Trace) -> Option<Refusal> {
    if *sender != Sender::Empty || accepted_before == 0 {
        return None;
    }
    trace.note("recipients", "refuse", || "the empty sender may have one recipient per transaction".to_owned());
    Some(Refusal::EmptySenderRecipients)
}

/// `transaction.recipients`: the refusal, and whether it is in shadow.
pub fn too_many(limit: Limit, accepted_before: usize, trace: &mut Trace) -> Option<(Refusal, bool)> {
    let Some(max) = limit.max.filter(|&max| accepted_before as u64 >= max) else {
        trace.note("recipients", "pass", || format!("recipient {} of the transaction", accepted_before + 1));
        return None;
    };
    let outcome = if limit.shadow { "shadow" } else { "refuse" };
    trace.note("recipients", outcome, || format!("the transaction has {max} recipients already"));
    Some((Refusal::TooManyRecipients { max }, limit.shadow))
}
