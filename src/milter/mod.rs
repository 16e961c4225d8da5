//! The milter protocol, for Postfix and Sendmail alike.
//!
//! ```text
//!   service        sockets, time limits
//!     ├─ frames         bytes → frames, bounded
//!     ├─ command        a frame → what the MTA says
//!     └─ conversation   what it says → answers
//!          ├─ negotiation   which steps and actions
//!          ├─ macros        what else it tells
//!          └─ session       the SMTP session and its transaction
//! ```
//!
//! Packets, flags and stages are indymilter's. Its sessions are not used: they know no Sendmail spelling of IPv6 addresses
//! and no time limit for a frame, and pass each packet between two tasks, which costs more than the decision.

mod command;
mod conversation;
mod frames;
mod macros;
mod negotiation;
mod service;
mod session;
mod trouble;

pub use service::MilterService;
