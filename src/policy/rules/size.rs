//! The limits on the size of messages and attachments (relay service, section 7).

use crate::directory::Limit;
use crate::policy::decide::{Admission, Admitted};
use crate::policy::facts::{Facts, Rules};
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
use crate::policy::verdict::{Outcome, Verdict};
use crate::size::MessageSize;

/// Too large. Always of class 5, whatever the limit's action: waiting makes nothing smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRefusal {
    pub what: Oversize,
    pub bytes: u64,
    pub max: u64,
}

/// What is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversize {
    /// The message, by its `SIZE=` (RFC 1870).
    Declared,
    Message,
    /// One attachment alone.
    Attachment,
    /// All of so many together.
    Attachments {
        count: u64,
    },
}

impl Admission {
    /// What is to be said to MAIL already: a message that declares itself too large, whomever it is for.
    pub fn at_mail(&self, facts: &Facts, rules: &Rules) -> Option<Verdict> {
        let Admission::Admitted(admitted) = self else { return None };
        // Mail to those would pass.
        if !rules.relay.exempt_recipient_domains.is_empty() {
            return None;
        }
        let (refusal, is_shadow) = declared_too_large(facts, admitted, &mut Trace::off())?;
        (!is_shadow).then(|| self.verdict(Outcome::Refuse(Box::new(refusal))))
    }

    /// What is to be said to a message of this size, and what limits in shadow would say.
    pub fn judge_size(&self, size: &MessageSize) -> (Option<Refusal>, Vec<Refusal>) {
        let Admission::Admitted(admitted) = self else { return (None, Vec::new()) };
        let limits = &admitted.customer.limits;
        let message = size.bytes.and_then(|bytes| too_large(Oversize::Message, bytes, limits.message_bytes));
        let attachments = size.attachments.and_then(|attachments| {
            let limit = limits.attachments_bytes;
            too_large(Oversize::Attachment, attachments.largest, limit)
                .or_else(|| too_large(Oversize::Attachments { count: attachments.count }, attachments.total, limit))
        });
        let both = [attachments, message].into_iter().flatten();
        let (shadow, enforced): (Vec<_>, Vec<_>) = both.partition(|(_, is_shadow)| *is_shadow);
        let first = enforced.into_iter().next().map(|(refusal, _)| refusal);
        (first, shadow.into_iter().map(|(refusal, _)| refusal).collect())
    }
}

/// The refusal of a message by its declared size, and whether it is in shadow.
pub(in crate::policy) fn declared_too_large(
    facts: &Facts,
    admitted: &Admitted,
    trace: &mut Trace,
) -> Option<(Refusal, bool)> {
    let limit = admitted.customer.limits.message_bytes;
    let (refusal, is_shadow) = too_large(Oversize::Declared, facts.declared_size?, limit)?;
    trace.note("size", if is_shadow { "shadow" } else { "refuse" }, || refusal.to_string());
    Some((refusal, is_shadow))
}

fn too_large(what: Oversize, bytes: u64, limit: Limit) -> Option<(Refusal, bool)> {
    let max = limit.max.filter(|&max| bytes > max)?;
    Some((Refusal::Size(SizeRefusal { what, bytes, max }), limit.shadow))
}

impl Oversize {
    /// As `reason=` in logs.
    pub fn key(self) -> &'static str {
        match self {
            Oversize::Declared | Oversize::Message => "message-size",
            Oversize::Attachment | Oversize::Attachments { .. } => "attachments-size",
        }
    }
}
