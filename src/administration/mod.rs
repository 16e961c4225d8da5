//! What administrators order while the daemon runs: suspensions, and more for a while. These are facts of the decision, apply at once, and
//! survive a restart. An order is carried out if, and only if, the [audit log](crate::audit) has it.
//!
//! ```text
//!   changes     one change after the other, on disk before anybody is told
//!     ├─ carry_out     what it changes among the orders, which decisions read
//!     └─ state_file    what is on disk, and where the audit log ended
//! ```

mod carry_out;
mod changes;
mod configuration;
mod state_file;

pub use changes::{Administration, Completed, OrderError, Receipt};
pub use configuration::AppliedConfiguration;
pub use state_file::{StateError, read_anchor};

/// The longest reason that is kept, in characters.
pub const MAX_REASON: usize = 500;

/// The most grants at once.
pub const MAX_GRANTS: usize = 10_000;

/// A grant lasts so many days at most: what is to last stands in the configuration.
pub const MAX_GRANT_DAYS: i64 = 366;

/// The most that a grant can give.
pub const MAX_GRANT: u64 = 1_000_000_000_000;

/// The most suspensions at once.
pub const MAX_SUSPENSIONS: usize = 10_000;
