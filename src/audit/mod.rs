//! The audit log: every change of the configuration and every administrator's action, who, when, why. It is only ever
//! appended to, and each record holds a hash of the one before, so that an edit, a gap or a lost tail shows.
//!
//! ```text
//!   log             appends records, each on disk before the command is answered
//!     ├─ record         what a record says
//!     └─ chain          how records hang together, and where the chain is broken
//!   configuration   what was configured last, and what is different now
//!     └─ keys           a file as keys and values, without secrets
//! ```

mod actor;
mod chain;
mod configuration;
mod digest;
mod keys;
mod log;
mod record;

pub use actor::{Actor, Instruction};
pub use chain::{Anchor, Break, Verified, verify};
pub use configuration::{ComparedFiles, ConfigurationLog};
pub(crate) use digest::sha256_hex;
pub use log::{AuditError, AuditLog, FILE_NAME};
pub use record::{Action, Change, Record};
