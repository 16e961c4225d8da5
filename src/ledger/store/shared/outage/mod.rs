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
//! A customer is decided here from the first question that the store does not answer until all that was counted here for
//! it is merged: the store does not know that before. Then what was counted here is known, and forgotten in one step.

mod file;
mod journal;
mod known;
mod local;
mod merge;

pub(super) use local::{Attempt, Local, Opened};
pub(super) use merge::{Merger, merge};
