//! The milter protocol, for Postfix and Sendmail alike.
//!
//! ```text
//!   service        connections, as `listen` serves them
//!     ├─ frames         bytes → packets, bounded
//!     ├─ command        a packet → a command of the MTA
//!     └─ conversation   commands → responses
//!          ├─ negotiation   which steps and actions
//!          ├─ macros        what else the MTA says
//!          ├─ addresses     what the client typed → addresses
//!          └─ session       the SMTP session and its transaction
//! ```
//!
//! Packets, flags and stages are indymilter's. Its sessions are not used: they know no Sendmail spelling of IPv6 addresses
//! and no time limit for a frame, and pass each packet between two tasks, which costs more than the decision.

mod addresses;
mod command;
mod conversation;
mod error;
mod frames;
mod macros;
mod negotiation;
mod service;
mod session;

pub use service::MilterService;
