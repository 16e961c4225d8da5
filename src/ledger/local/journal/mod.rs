//! Makes things durable: a bounded queue, and one thread that writes everything queued in one SQLite transaction.
//!
//! ```text
//!   caller ──► queue ──► writer: one transaction for all that came while the last one was being synced
//!     ▲                    │
//!     └──── told ◄─────────┴──► records: what the rows are, and what follows once they are written
//! ```
//!
//! The embedded store and the local counts of the shared store each have a journal, with [`Records`] and a [`Database`] of
//! their own.

mod database;
#[expect(clippy::module_inception, reason = "the file that holds the journal")]
mod journal;
mod queue;
mod sqlite_error;
mod sync;
mod writer;

pub(in crate::ledger) use database::{BUSY_TIMEOUT, Database, lock, random_key, read_anchor};
pub(in crate::ledger) use journal::{Journal, LoadProgress, Options, Outcome, Start, await_outcome};
pub(in crate::ledger) use sqlite_error::{explain, store_error};
pub(in crate::ledger) use writer::{Job, Records, Transaction};
