//! What relaykeeper tells its operator: log lines, and the references by which a decision is found again.
//!
//! A [`LogLine`] is built where something happens, handed to the [`Logger`], and written by a thread of its own
//! to the [`sink`] that the configuration chose. Nothing here ever makes a decision wait.

pub mod decisions;
pub mod level;
pub mod line;
pub mod log;
pub mod once_per;
pub mod rate_limit;
pub mod reference;
pub mod sink;

pub use decisions::DecisionLog;
pub use level::Level;
pub use line::LogLine;
pub use log::Logger;
pub use once_per::{OncePer, and_more};
pub use rate_limit::RateLimit;
pub use reference::Reference;
pub use sink::Destination;
