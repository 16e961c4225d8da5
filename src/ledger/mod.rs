//! The ledger: what was sent, what is being sent, and whether one more fits.
//!
//! A transaction *reserves* each recipient at RCPT, against all limits in one step, all or nothing. When the message is
//! accepted the reservation is *committed*: on disk before the caller goes on. Otherwise it is *released*. A reservation that
//! stays open longer than `relay.reservation_timeout` expires, and its commit is then checked against the limits again.
//!
//! ```text
//!   ledger    what other modules call (open: how it is opened; api, error, ranking: what it takes and returns)
//!     ▼
//!   store     what every store does; which ones there are:
//!     ├─ local/     counts on this machine: memory, embedded
//!     │    ├─ book/      usage and reservations, in memory: decides
//!     │    ├─ journal/   makes accepted messages durable
//!     │    └─ sqlite/    what the embedded store's journal writes
//!     └─ shared/    counts in Redis or Valkey, for several daemons
//!          ├─ client/    connections, topology, batches, deadlines, retries
//!          ├─ protocol/  keys, requests, Lua scripts, responses
//!          └─ fallback/  what happens while the servers are unreachable
//! ```

mod api;
mod error;
#[expect(clippy::module_inception, reason = "the file that holds the ledger")]
mod ledger;
mod local;
mod open;
mod ranking;
mod shared;
mod store;

pub use api::{
    AcceptedRecipients, Foreseen, Gauges, LedgerAnswer, LedgerSize, LimitStanding, LimitUsage, MissingNode, NearLimit,
    Outage, Ranking, RecipientKey, ReservationId,
};
pub use error::{LedgerError, OpenError, StoreError};
pub use ledger::{Health, Ledger, Readiness};
pub use ranking::RankBy;

use std::path::Path;

/// Keeps every daemon away from the store in a folder, until it is dropped.
///
/// # Errors
/// A daemon runs there, or the folder cannot be written.
pub fn lock_store(folder: &Path) -> Result<impl Drop + use<>, OpenError> {
    local::journal::lock(folder)
}

/// Whether this version can read the embedded store in a folder.
///
/// # Errors
/// Why not.
pub fn check_store(folder: &Path) -> Result<(), OpenError> {
    local::sqlite::StoreFile::open_read_only(folder).map(drop)
}
