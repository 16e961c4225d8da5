//! What daemons and servers say to each other: keys, requests, the Lua scripts that serve them, responses.
//!
//! All daemons that share a store must agree on it, those of other versions too.

pub(super) mod call;
pub(super) mod keys;
pub(super) mod nonces;
pub(super) mod request;
pub(super) mod response;
pub(super) mod scripts;
mod server_time;

pub(in crate::ledger) use server_time::ServerTime;
