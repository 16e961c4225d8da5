//! The ledger from outside, over every store.

#[cfg(feature = "test-clock")]
mod backlog;
#[cfg(feature = "test-clock")]
mod batches;
#[cfg(feature = "test-clock")]
mod clock_jumps;
mod contract;
mod crash;
mod disk;
#[cfg(feature = "test-clock")]
mod failover;
#[cfg(feature = "test-clock")]
mod hash_key;
mod interleavings;
#[cfg(feature = "test-clock")]
mod late_requests;
#[cfg(feature = "test-clock")]
mod load;
mod loading;
mod model;
#[cfg(feature = "test-clock")]
mod moved_counts;
#[cfg(feature = "test-clock")]
mod network;
#[cfg(feature = "test-clock")]
mod outage;
#[cfg(feature = "test-clock")]
mod outage_disk;
#[cfg(feature = "test-clock")]
mod partition;
#[cfg(feature = "test-clock")]
#[path = "../common/redis.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod redis;
#[cfg(feature = "test-clock")]
mod replicas;
#[cfg(feature = "test-clock")]
mod shared_memory;
#[cfg(feature = "test-clock")]
mod shared_servers;
#[cfg(feature = "test-clock")]
mod slot_migration;
mod store_errors;
mod stores;
#[cfg(feature = "test-clock")]
mod unreachable_node;
