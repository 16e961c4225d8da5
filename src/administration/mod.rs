//! What administrators order while the daemon runs: suspensions. They are facts of the decision, apply at once, and
//! survive a restart.
//!
//! ```text
//!   changes     one change after the other, on disk before anybody is told
//!     ├─ orders        what is ordered now: an immutable snapshot, which decisions read
//!     └─ state_file    what is on disk
//! ```

mod actor;
mod changes;
mod orders;
mod state_file;

pub use actor::{Actor, Instruction};
pub use changes::{Administration, OrderError};
pub use orders::{Orders, Suspension};
pub use state_file::StateError;

/// The longest reason that is kept, in characters.
pub const MAX_REASON: usize = 500;

/// The most suspensions at once.
pub const MAX_SUSPENSIONS: usize = 10_000;
