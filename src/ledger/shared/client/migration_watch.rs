//! Finds out when a customer whose slot was migrating can be served again.

use super::error::{RESPONSE_TIMEOUT, RequestError};
use super::manager::{ConnectionManager, REFRESH};
use super::slots::slot_of;
use std::sync::Weak;
use tokio::time::{Instant, sleep};

/// Probes with the keys of the request that failed, until one node has all of them.
pub(super) async fn unblock_when_moved(manager: Weak<ConnectionManager>, keys: Vec<String>) {
    let Some(key) = keys.first() else { return };
    loop {
        sleep(REFRESH).await;
        let Some(manager) = manager.upgrade() else { return };
        if are_on_one_node(&manager, key, &keys).await {
            return manager.unblock(key);
        }
    }
}

/// Whether one node has all of some keys, or none of them is left where their slot is migrating from: requests about them are
/// served.
async fn are_on_one_node(manager: &ConnectionManager, key: &str, keys: &[String]) -> bool {
    let mut probe = redis::cmd("MGET");
    probe.arg(keys);
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let Some(node) = manager.topology().node_for(key) else { return false };
    let Ok((_, batcher)) = node.connection(deadline).await else { return false };
    let response = RequestError::within(deadline, batcher.connection().query(&probe)).await;
    let Err(error) = response else { return true };
    match error.redirect() {
        Some((_, true)) => true,
        Some((address, false)) => {
            // The next probe goes there.
            manager.redirected(slot_of(key), address, false);
            false
        }
        // Whatever else is wrong with the server, the requests themselves will find out.
        None => !error.is_transient(),
    }
}
