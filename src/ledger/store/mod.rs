//! Where counts are kept, so that they outlive the daemon.

pub(super) mod shared;
pub(super) mod sqlite;
