//! Rewriting a sender outside the customer's domains to postmaster@ (relay service, section 3), and what happens where the
//! front end cannot.

use super::identify::Identified;
use super::sender::SenderRelation;
use crate::directory::{AllowedSenders, Setting};
use crate::envelope::Address;
use crate::policy::decide::Admitted;
use crate::policy::facts::{Context, Facts};
use crate::policy::front_end::Rewriting;
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;

/// The new sender, if the setting that admits the transaction asks for one.
pub fn new_sender(
    facts: &Facts,
    identified: &Identified,
    sender: &SenderRelation,
    setting: &Setting,
) -> Option<Address> {
    let is_foreign = facts.sender.address().is_some() && !sender.own_domain && sender.user.is_none();
    // Any other setting lets a foreign one in only because it is in shadow, and shadow changes nothing.
    let rewrites = is_foreign && setting.allowed_senders == AllowedSenders::Any;
    if rewrites { Address::from_internal(&format!("postmaster@{}", identified.domain)).ok() } else { None }
}

pub fn note(new: Option<&Address>, facts: &Facts, rewriting: Rewriting, trace: &mut Trace) {
    let sender = facts.sender;
    match (new, rewriting) {
        (Some(new), Rewriting::Possible) => {
            trace.note("rewrite", "change", || format!("{sender} is outside the customer's domains: it becomes {new}"));
        }
        (Some(new), Rewriting::Waived) => trace.note("rewrite", "waive", || {
            format!(
                "{sender} would become {new}, which the policy protocol cannot do; on_rewrite lets it pass as it is"
            )
        }),
        (Some(new), Rewriting::Impossible { .. }) => trace
            .note("rewrite", "cannot", || format!("{sender} would have to become {new}, which cannot be done here")),
        (None, _) => trace.note("rewrite", "keep", || format!("the sender {sender} stays as it is")),
    }
}

/// The refusal, if the sender must be rewritten and cannot be.
pub fn cannot_rewrite(admitted: &Admitted, cx: &Context, trace: &mut Trace) -> Option<Refusal> {
    admitted.rewrite_sender_to.as_ref()?;
    let reject = match cx.front_end.rewriting {
        Rewriting::Impossible { reject } => reject,
        Rewriting::Waived if admitted.must_be_rewritten => false,
        Rewriting::Waived | Rewriting::Possible => return None,
    };
    let refusal = Refusal::CannotRewrite { sender: cx.envelope.sender.clone().ok()?, reject };
    trace.note("rewrite", "refuse", || refusal.to_string());
    Some(refusal)
}
