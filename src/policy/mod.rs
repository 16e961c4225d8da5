//! The decision: facts, configuration, orders and ledger state in; verdict with reasons out.
//!
//! Nothing here knows a socket, a clock or a runtime.
//!
//! ```text
//! facts, front_end   what a transaction is evaluated by
//! decide/            the order of the rules: a state machine for MAIL, each recipient, the end of a message
//! rules/             the rules themselves, one file each; limits on connections, too
//! verdict, trace     what comes out: for the client, the log, `explain`
//! reply/             the reason of a refusal, its codes, its words
//! ```
//!
//! Milter, policy service and `explain` all drive the same [`Evaluation`].

mod decide;
mod facts;
mod front_end;
mod reply;
mod rules;
mod trace;
mod verdict;

pub use decide::{
    Admission, Admitted, CountedBy, EndDecision, Evaluation, LedgerQuestion, LedgerRequest, PendingEnd,
    PendingRecipient, RecipientDecision, ReportedRecipients, Stage,
};
pub use facts::{Context, Facts, LiveFacts, Rules};
pub use front_end::{FrontEnd, MtaProtocol, Rewriting};
pub use reply::{LimitCause, LimitRefusal, LookedUp, NameSource, RangeGap, Refusal};
pub use rules::{
    ConnectionFacts, ConnectionLimit, ConnectionRefusal, IdentifiedBy, Oversize, Route, SizeRefusal,
    is_exempt_connection, is_generic_helo, judge_connection, judge_generic_helo, route, tls_way_out,
};
pub use trace::{Step, Trace};
pub use verdict::{Exemption, Outcome, Verdict};
