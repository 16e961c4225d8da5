//! Counting on this machine: the books in memory, and the SQLite file that makes them durable.

pub(super) mod book;
pub(super) mod sqlite;
