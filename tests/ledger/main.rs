//! The ledger from outside, over every store.

mod contract;
mod model;
mod stores;
