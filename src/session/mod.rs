//! A transaction's life, the same for both protocols: begun with MAIL, asked at each RCPT, ended by acceptance or given
//! back.

mod correlation;
mod engine;
mod envelope;
mod log;
mod transaction;

pub use correlation::{OpenSession, OpenSessions, SmtpSession};
pub use engine::{Engine, Snapshot};
pub use envelope::Envelope;
pub use transaction::{Accepted, Decision, FrontEnd, Rewriting, Transaction};
