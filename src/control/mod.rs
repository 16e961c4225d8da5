//! The control socket: how the commands of an administrator reach the running daemon. One request and one response a
//! line, in JSON; the protocol is between one relaykeeper and itself, and may change with any version.

mod client;
mod grant;
mod mta_status;
mod protocol;
mod quota;
mod service;
mod status;
mod suspend;

pub use client::{ControlError, ask};
pub use mta_status::MtaStatus;
pub use protocol::{Command, MAX_LINE, Response};
pub use quota::{QuotaError, RankBy, Top, Usage, UsageOfLimit, find_subject, top, usage};
pub use service::{ControlService, Reload};
pub use status::Status;
