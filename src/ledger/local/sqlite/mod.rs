//! The embedded store: SQLite in WAL mode, one writer that groups commits.
//!
//! ```text
//!   commit ──► queue ──► writer: one transaction for all that came while the last one was being synced
//!     ▲                    │
//!     └── counted in the books, and the caller wakes
//! ```

mod file;
mod job;
mod journal;
mod load;
mod queue;
mod sync;
mod writer;

pub(in crate::ledger) use file::{StoreFile, connect, explain, in_words, open_alone, random_key};
pub(in crate::ledger) use journal::{Journal, Recorded, outcome, unavailable};
pub(in crate::ledger) use writer::write_anchor;
