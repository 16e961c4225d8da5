//! The ledger from outside, over every store.

mod contract;
mod crash;
mod model;
mod stores;
mod trouble;
