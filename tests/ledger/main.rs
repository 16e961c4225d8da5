//! The ledger from outside, over every store.

mod contract;
mod crash;
#[cfg(feature = "test-clock")]
mod failover;
#[cfg(feature = "test-clock")]
mod load;
mod model;
#[cfg(feature = "test-clock")]
#[path = "../common/redis.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod redis;
#[cfg(feature = "test-clock")]
mod shared_servers;
mod stores;
mod trouble;
