//! Postfix's socketmap protocol (socketmap_table(5)): look-ups of `NAME KEY`, as netstrings. Who may relay, through
//! which gateway a sender's mail goes out, and the login there.

mod maps;
mod netstring;
mod reply;
mod service;

pub use maps::MAP_NAMES;
pub use netstring::MAX_REQUEST;
pub use reply::LookupReply;
pub use service::SocketmapService;
