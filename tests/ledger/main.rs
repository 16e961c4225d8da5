//! The ledger from outside, over every store.

mod contract;
mod crash;
mod disk;
#[cfg(feature = "test-clock")]
mod failover;
mod interleavings;
#[cfg(feature = "test-clock")]
mod late;
#[cfg(feature = "test-clock")]
mod load;
mod loading;
mod model;
#[cfg(feature = "test-clock")]
mod moving;
#[cfg(feature = "test-clock")]
mod network;
#[cfg(feature = "test-clock")]
mod outage;
#[cfg(feature = "test-clock")]
mod outage_disk;
#[cfg(feature = "test-clock")]
mod partition;
#[cfg(feature = "test-clock")]
mod parts;
#[cfg(feature = "test-clock")]
#[path = "../common/redis.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod redis;
#[cfg(feature = "test-clock")]
mod replicas;
#[cfg(feature = "test-clock")]
mod secret;
#[cfg(feature = "test-clock")]
mod shared_memory;
#[cfg(feature = "test-clock")]
mod shared_servers;
mod stores;
#[cfg(feature = "test-clock")]
mod together;
mod trouble;
