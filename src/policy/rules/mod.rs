//! The rules, one file for each: what each looks at and what it says. None of them knows which comes before or after it; the
//! order is that of [`decide`](super::decide).

mod connection;
pub(super) mod identify;
mod limits;
mod route;
pub(super) mod sender;
mod sender_form;
pub(super) mod setting;
pub(super) mod size;
mod suspension;

pub use connection::{
    ConnectionFacts, ConnectionLimit, ConnectionRefusal, is_exempt_connection, is_generic_helo, judge_connection,
    judge_generic_helo,
};
pub use identify::IdentifiedBy;
pub use route::{Route, route};
pub use size::{Oversize, SizeRefusal};
