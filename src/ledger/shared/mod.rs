//! The shared store: Redis or Valkey, one server, with Sentinel, or as a Cluster, for several daemons.
//!
//! ```text
//!   reserve, commit ──► request: keys, arguments ──► client: deadline, retry ──► part: circuit breaker ──► server
//!                                                        │                        ▲                          │
//!                                                        └─► topology: which part ───┴── manager: connects       │
//!   answer ◄───────────────────────── answer ◄──────────────────── one script decides, atomically ◄──────────┘
//! ```
//!
//! Everything is decided on the server, by one script a request, on the server's clock; requests that come at once share a
//! call (batcher). A customer and its users lie in one slot of a cluster (names). Whatever changes something can be sent twice:
//! a reservation holds a recipient once, and a commit carries a nonce that the server remembers for as long as it may come
//! again.

mod client;
mod fallback;
mod health;
mod protocol;
mod store;
mod top;

pub(in crate::ledger) use protocol::ServerTime;
pub(in crate::ledger) use store::SharedStore;
