//! Talks to the servers.
//!
//! ```text
//!   client: deadline, retries ──► batch: requests share calls ──► connection ──► a server
//!      │                             ▲
//!      └─► topology: which node ── node: circuit breaker ◄── manager: connects (servers), refreshes the topology (slots)
//! ```
//!
//! Beside these: error (what can go wrong), status (what is published about the servers), hash_key (how recipients are
//! hashed), clock_check (whether a server's clock jumped: clock_line compares, store_clock remembers), slot_migration (customers blocked by it) and migration_watch (until when).

pub(super) mod batch;
#[expect(clippy::module_inception, reason = "the file that holds the client")]
mod client;
pub(super) mod clock_acceptance;
mod clock_check;
mod clock_line;
pub(super) mod connection;
pub(super) mod error;
mod hash_key;
mod manager;
mod migration_watch;
mod node;
pub(super) mod servers;
mod slot_migration;
mod slots;
mod status;
pub(super) mod store_clock;
pub(super) mod topology;

pub(super) use client::Client;
