//! The embedded store's database: accepted messages, resets, and the accounts they belong to.

mod load;
mod records;
mod store_file;

pub(super) use load::load;
pub(super) use records::{Job, LedgerRecords, Work};
pub(in crate::ledger) use store_file::StoreFile;
