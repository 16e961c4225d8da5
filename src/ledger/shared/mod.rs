//! The shared store: Redis or Valkey, one server, with Sentinel, or as a Cluster, for several daemons.
//!
//! ```text
//!   store ──► remote: builds requests, reads responses (protocol) ──► client: finds and asks the servers
//!     │
//!     ├─► fallback: what happens while they are unreachable
//!     └─► rebase: moves what is counted to another time, after a jump of a server's clock
//! ```
//!
//! Everything is decided on the server, atomically, by one Lua script for each request, on the server's clock. A customer and
//! its users are in one slot of a Cluster. Whatever changes something can be sent twice: a reservation reserves a recipient
//! once, and a commit carries a nonce that the server remembers for as long as the commit may be sent again.

mod client;
mod fallback;
mod health;
mod protocol;
mod rebase;
mod remote;
mod store;
mod top;

#[cfg(feature = "test-clock")]
pub(in crate::ledger) use protocol::ServerTime;
pub(in crate::ledger) use store::{SharedStore, SharedStoreOptions};
