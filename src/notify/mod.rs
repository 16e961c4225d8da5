//! What people are told by mail, and that they are told it once.

mod abuse;
mod event;
mod limits;
mod service;
mod told;
mod words;

pub use event::Event;
pub use service::{Notices, serve};
pub(crate) use words::{command_word, number};
