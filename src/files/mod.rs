//! Files on disk: those that others wrote are read with care, and our own are created private.

pub mod denied;
mod own;
mod regular;

pub use own::{Access, append, ensure_private, open, replace, sync_folder};
pub use regular::{open_regular, read_regular};
