//! What is on disk, so that a count outlives the daemon.

pub(super) mod sqlite;
