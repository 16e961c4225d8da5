//! Sockets: where relaykeeper listens, and the connections that come in there.
//!
//! ```text
//!   address     the spelling of an address
//!   bind        an address → a listener           unix_socket: its file
//!   kept        sockets that systemd keeps during a restart
//!   accept      a listener → streams              stream: one connection, TCP or unix
//!   server      accepts for a service, until a stop
//!     ├─ seats      how many connections, in all and for one peer
//!     └─ framed     one connection: requests in, responses out
//!          ├─ input      what was received
//!          ├─ deadlines  how long it may take
//!          └─ fault      why it was closed
//! ```
//!
//! A [`Service`] gives each connection a [`Protocol`], which finds requests and answers them; all the rest is done here, in
//! the same way for every protocol.

pub mod accept;
pub mod address;
pub mod bind;
mod deadlines;
mod fault;
mod framed;
mod input;
pub mod kept;
mod seats;
mod server;
mod stream;
mod unix_socket;

pub use accept::Listener;
pub use address::{InvalidAddress, ListenAddress};
pub use bind::{BindError, SocketOptions, bind, bind_or_take};
pub use fault::FaultLog;
pub use framed::{Bounds, Frame, Next, Protocol};
pub use kept::KeptSockets;
pub use seats::Shares;
pub use server::{Phase, Service, serve, serve_stream};
pub use stream::{Origin, Peer, Process, Stream};
pub use unix_socket::check_folder;
