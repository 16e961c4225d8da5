//! `doctor`: finds the silent faults of an installation. It reads, tries to connect, and changes no file.
//!
//! ```text
//!   examine    everything, in order
//!     ├─ sendmail/   sendmail.cf and the maps
//!     ├─ postfix     what the host checks and the canary need to know of Postfix
//!     ├─ host/       the daemon, its sockets, its store, what it has seen of the MTAs
//!     └─ canary/     an SMTP session up to RCPT that the daemon is told to watch for
//!   finding    what is said, and in which order
//!   program    runs the MTAs' own programs
//! ```

mod canary;
mod examine;
mod finding;
mod host;
mod postfix;
mod program;
mod sendmail;

pub use examine::{Examination, Report, examine};
pub use finding::{Finding, IDS, Severity, lines};
pub use host::probe;
