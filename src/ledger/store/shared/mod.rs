//! The shared store: Redis or Valkey, one server, with Sentinel, or as a Cluster, for several daemons.
//!
//! ```text
//!   reserve, commit ──► question: keys, arguments ──► link: deadline, retry ──► part: circuit breaker ──► server
//!                                                        │                        ▲                          │
//!                                                        └─► whole: which part ───┴── keeper: connects       │
//!   answer ◄───────────────────────── answer ◄──────────────────── one script decides, atomically ◄──────────┘
//! ```
//!
//! Everything is decided on the server, by one script a question, on the server's clock; questions that come at once share a
//! call (lane). A customer and its users lie in one slot of a cluster (names). Whatever changes something can be sent twice:
//! a reservation holds a recipient once, and a commit carries a nonce that the server remembers for as long as it may come
//! again.

mod answer;
mod backlog;
mod connection;
mod health;
mod keeper;
mod lane;
mod link;
mod moving;
mod names;
mod nonces;
mod outage;
mod part;
mod question;
mod scripts;
mod secret;
mod server;
mod server_time;
mod shared_store;
mod slots;
mod top;
mod whole;

pub(in crate::ledger) use server_time::ServerTime;
pub(in crate::ledger) use shared_store::SharedStore;
