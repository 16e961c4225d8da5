//! The limits on the size of messages and attachments (relay service, section 7).

use crate::directory::{CustomerLimits, Limit};
use crate::policy::reply::Refusal;
use crate::policy::trace::Trace;
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

/// The refusal of a message of this size, if there is one, and whether it is in shadow: first of its attachments, then of the whole.
pub(in crate::policy) fn too_large_at_end(
    size: &MessageSize,
    limits: &CustomerLimits,
    trace: &mut Trace,
) -> [Option<(Refusal, bool)>; 2] {
    let message = size.bytes.and_then(|bytes| too_large(Oversize::Message, bytes, limits.message_bytes, trace));
    let attachments = size.attachments.and_then(|attachments| {
        let limit = limits.attachments_bytes;
        too_large(Oversize::Attachment, attachments.largest, limit, trace)
            .or_else(|| too_large(Oversize::Attachments { count: attachments.count }, attachments.total, limit, trace))
    });
    [attachments, message]
}

/// The refusal of a message by its declared size, and whether it is in shadow.
pub(in crate::policy) fn declared_too_large(
    declared: Option<u64>,
    limits: &CustomerLimits,
    trace: &mut Trace,
) -> Option<(Refusal, bool)> {
    too_large(Oversize::Declared, declared?, limits.message_bytes, trace)
}

fn too_large(what: Oversize, bytes: u64, limit: Limit, trace: &mut Trace) -> Option<(Refusal, bool)> {
    let max = limit.max.filter(|&max| bytes > max)?;
    let refusal = Refusal::Size(SizeRefusal { what, bytes, max });
    trace.note("size", if limit.shadow { "shadow" } else { "refuse" }, || refusal.to_string());
    Some((refusal, limit.shadow))
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
