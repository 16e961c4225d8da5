//! Talks to the servers: connections, topology, deadlines, retries.

pub(super) mod batch;
#[expect(clippy::module_inception, reason = "the file that holds the client")]
pub(super) mod client;
pub(super) mod connection;
mod hash_key;
mod manager;
mod node;
pub(super) mod servers;
mod slot_migration;
mod slots;
pub(super) mod topology;

pub(super) use client::Client;
