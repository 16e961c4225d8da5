//! What administrators order while the daemon runs: suspensions, and higher limits for a while. Orders apply at once and
//! survive a restart. An order is carried out if, and only if, the [audit log](crate::audit) has it.
//!
//! ```text
//!   changes     one order after the other, on disk before the command is answered
//!     ├─ carry_out     what an order changes in the snapshot that decisions read
//!     └─ state_file    what is on disk, and where the audit log ended
//! ```

mod carry_out;
mod changes;
mod configuration;
mod state_file;

pub use changes::{Administration, Completed, OrderError, Receipt};
pub use configuration::AppliedConfiguration;
pub use state_file::{StateError, read_anchor};

/// The longest reason, in characters.
pub const MAX_REASON: usize = 500;

/// The most grants at once.
pub const MAX_GRANTS: usize = 10_000;

/// The longest time of a grant, in days: what lasts belongs in the configuration.
pub const MAX_GRANT_DAYS: i64 = 366;

/// The most that a grant can add to a limit.
pub const MAX_GRANT: u64 = 1_000_000_000_000;

/// The most suspensions at once.
pub const MAX_SUSPENSIONS: usize = 10_000;
