//! Sockets: where relaykeeper listens, and the connections that come in there.
//!
//! A [`ListenAddress`] is parsed from the configuration, [`bind()`] makes a [`Listener`] of it, and that gives
//! [`Stream`]s, for every protocol in the same way.

pub mod accept;
pub mod address;
pub mod bind;
pub mod patience;
mod stream;
mod unix_socket;

pub use accept::Listener;
pub use address::{InvalidAddress, ListenAddress};
pub use bind::{BindError, SocketOptions, bind};
pub use patience::{Impatience, Patience, write_in_time};
pub use stream::{Peer, Stream};
