//! The milter protocol, for Postfix and Sendmail alike.
//!
//! indymilter speaks it; [`frames`] stands between it and the socket, for what it cannot take: Sendmail's spelling of
//! IPv6 addresses, frames of any length, clients that never finish one.

mod callbacks;
mod frames;
mod service;
mod session;

pub use service::MilterService;
