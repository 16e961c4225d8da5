//! Going on while the shared store is away (`on_outage = "local"`).
//!
//! ```text
//!   the store's answers ──► known: what was last told, of many subjects ──┐
//!                                                                         ├──► local: decides ──► journal: on disk
//!   what is open and what was counted here ──► a book ────────────────────┘                          │
//!                                                                                                     ▼
//!   the shared store ◄──────────────────── merge: each message once, when the store is back ◄─────── file
//! ```
//!
//! A customer is decided here from the first request that the store does not answer until all that was counted here for
//! it is merged: the store does not know that before. Then what was counted here is known, and forgotten in one step.

pub(super) mod backlog;
mod file;
mod journal;
mod last_known;
mod local_counts;
mod merge;

pub(super) use local_counts::{Attempt, LocalCounts, OpenedCounts};
pub(super) use merge::{Merger, merge};
