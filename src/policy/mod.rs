//! The decision: facts, directory, ledger state and time in; verdict with reasons out.
//!
//! Nothing here knows a socket, a clock or a runtime. A transaction is first [admitted](admit) or refused by the rules,
//! once; then each recipient passes the [gate](Admission::gate), and what is left to ask goes to the ledger, whose
//! answer [concludes](conclude) the verdict. What is said of [connections](judge_connection) and of a [message's
//! size](Admission::judge_size) comes from here, too. Milter, policy service, `explain` and `simulate` all go this way.

mod admit;
mod connection;
mod facts;
mod grant;
mod identify;
mod recipient;
mod refusal;
mod route;
mod sender;
mod sender_form;
mod setting;
mod size;
mod suspension;
mod trace;
mod verdict;
mod words;

pub use admit::{Admission, Admitted, admit, is_exempt_client};
pub use connection::{
    ConnectionFacts, ConnectionLimit, ConnectionRefusal, is_exempt_connection, is_generic_helo, judge_connection,
    judge_generic_helo,
};
pub use facts::{Facts, Rules};
pub use identify::IdentifiedBy;
pub use recipient::{Gate, RecipientFacts, conclude, is_exempt_recipient};
pub use refusal::{LimitRefusal, LookedUp, Refusal, Via};
pub use route::{Route, route};
pub use size::{Oversize, SizeRefusal};
pub use trace::{Step, Trace};
pub use verdict::{Exemption, Outcome, Verdict};
