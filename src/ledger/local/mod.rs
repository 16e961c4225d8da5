//! Counting on this machine.
//!
//! ```text
//!   memory, embedded: the stores
//!     ├─ book/      usage and reservations, in memory: decides
//!     └─ journal/   makes accepted messages durable, in a database (sqlite/)
//! ```

pub(super) mod book;
mod embedded;
pub(super) mod journal;
mod memory;
pub(super) mod sqlite;

pub(super) use embedded::EmbeddedStore;
pub(super) use memory::MemoryStore;
