//! The rules, one file each: what it looks at and what it says. No rule knows which one comes before or after it; the order is that
//! of [`decide`](super::decide).

pub(super) mod abuse;
pub(super) mod archive;
mod connection;
mod encryption;
pub(super) mod exempt;
pub(super) mod identify;
pub(super) mod limits;
pub(super) mod local_mail;
pub(super) mod recipients;
pub(super) mod rewrite;
pub(super) mod route;
pub(super) mod sender;
mod sender_form;
pub(super) mod setting;
pub(super) mod size;
pub(super) mod suspension;

pub use connection::{
    ConnectionFacts, ConnectionLimit, ConnectionRefusal, is_exempt_connection, is_generic_helo, judge_connection,
    judge_generic_helo,
};
pub use encryption::way_out as tls_way_out;
pub use identify::IdentifiedBy;
pub use route::{Route, route};
pub use size::{Oversize, SizeRefusal};
