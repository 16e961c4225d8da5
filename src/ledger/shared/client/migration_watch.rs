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

/// Whether one node has all of some keys, or would get those that do not exist: it would run a script about them.
async fn are_on_one_node(manager: &ConnectionManager, key: &str, keys: &[String]) -> bool {
    let mut probe = redis::cmd("MGET");
    probe.arg(keys);
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let Some(node) = manager.topology().node_for(key) else { return false };
    let Ok((_, batcher)) = node.connection(deadline).await else { return false };
    let mut response = RequestError::within(deadline, batcher.connection().query(&probe)).await;
    if let Err(error) = &response
        && let Some((address, for_once)) = error.redirect()
    {
        let Some(node) = manager.redirected(slot_of(key), address, for_once) else { return false };
        let Ok((_, batcher)) = node.connection(deadline).await else { return false };
        let redirected = async {
            match for_once {
                true => batcher.connection().send_asking(&probe).await?.extract_error(),
                false => batcher.connection().query(&probe).await,
            }
        };
        response = RequestError::within(deadline, redirected).await;
    }
    // Whatever else is wrong with the server, the requests themselves will find out.
    response.map_or_else(|error| !error.is_transient(), |_| true)
}
