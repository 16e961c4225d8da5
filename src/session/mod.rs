//! A transaction's life, the same for both protocols: begun with MAIL, asked at each RCPT, ended by acceptance or given
//! back.

mod connection;
mod correlation;
mod engine;
mod envelope;
mod log;
mod observer;
mod open_count;
mod recorded;
mod rehearsal;
mod tally;
mod transaction;

pub use connection::Connection;
pub use correlation::{OpenSession, OpenSessions, SmtpSession};
pub use engine::{Engine, Snapshot};
pub use envelope::{Envelope, FrontEnd, bounded};
pub use observer::Observer;
pub use open_count::{OpenCount, UnderWay};
pub use recorded::{Decided, Recorded, RecordedStep};
pub use rehearsal::{Rehearsal, RehearsedRecipient};
pub use tally::Tally;
pub use transaction::{Accepted, Decision, Rewriting, Transaction};
