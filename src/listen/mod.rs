//! Sockets: where relaykeeper listens, and the connections that come in there.

pub mod address;

pub use address::{InvalidAddress, ListenAddress};
