//! What is said to the servers: keys, requests, the scripts that run there, and their responses.

pub(super) mod keys;
pub(super) mod nonces;
pub(super) mod request;
pub(super) mod response;
pub(super) mod scripts;
mod server_time;

pub(in crate::ledger) use server_time::ServerTime;
