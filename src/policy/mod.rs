//! The decision: facts, directory, ledger state and time in; verdict with reasons out.
//!
//! Nothing here knows a socket, a clock or a runtime. A transaction is first [admitted](admit) or refused by the rules,
//! once; then each recipient passes the [gate](Admission::gate), and what is left to ask goes to the ledger, whose
//! answer [concludes](conclude) the verdict. What is said of [connections](judge_connection) and of a [message's
//! size](Admission::judge_size) comes from here, too. Milter, policy service, `explain` and `simulate` all go this way.

mod decide;
mod facts;
mod reply;
mod rules;
mod trace;
mod verdict;

pub use decide::{Admission, Admitted, Gate, RecipientFacts, admit, conclude, is_exempt_client, is_exempt_recipient};
pub use facts::{Facts, Rules};
pub use reply::{LimitRefusal, LookedUp, Refusal, Via};
pub use rules::{
    ConnectionFacts, ConnectionLimit, ConnectionRefusal, IdentifiedBy, Oversize, Route, SizeRefusal,
    is_exempt_connection, is_generic_helo, judge_connection, judge_generic_helo, route,
};
pub use trace::{Step, Trace};
pub use verdict::{Exemption, Outcome, Verdict};
