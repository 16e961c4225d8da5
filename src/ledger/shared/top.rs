//! `quota top`: looks at every account on every node that responds.

use super::client::batch::Batcher;
use super::client::connection::Connection;
use super::client::error::{RESPONSE_TIMEOUT, RequestError};
use super::client::topology::ManagedNode;
use super::protocol::request::Request;
use super::protocol::{keys, response};
use super::remote::Remote;
use crate::directory::{LimitName, SubjectKind};
use crate::ledger::ranking::Leaders;
use crate::ledger::{MissingNode, StoreError};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// How many keys a server scans at a time.
const SCAN_COUNT: u32 = 1000;

/// Why a node's accounts are missing, or some of them.
enum NodeError {
    Unreachable(StoreError),
    Refused(StoreError),
}

struct Search<'a> {
    remote: &'a Remote,
    limit: LimitName,
}

/// Offers all that have used something of a limit for a ranking. Returns the nodes that are missing.
///
/// # Errors
/// All nodes are unreachable, or one refuses.
pub(super) async fn rank(
    remote: &Remote,
    limit: LimitName,
    leaders: &mut Leaders<'_>,
) -> Result<Vec<MissingNode>, StoreError> {
    let search = Search { remote, limit };
    let (mut missing, mut first_error, mut has_any_responded) = (Vec::new(), None, false);
    for (managed, connected) in remote.client.nodes().await? {
        let searched = match connected {
            Ok((connection, batcher)) => search.node(&managed, connection, &batcher, leaders).await,
            Err(error) => Err(NodeError::Unreachable(error.into())),
        };
        let error = match searched {
            Ok(migrating) => {
                has_any_responded = true;
                migrating
            }
            Err(NodeError::Unreachable(error)) => Some(error),
            Err(NodeError::Refused(error)) => return Err(error),
        };
        if let Some(error) = error {
            missing.push(missing_node(&managed, &error));
            first_error = first_error.or(Some(error));
        }
    }
    match first_error {
        Some(error) if !has_any_responded => Err(error),
        _ => Ok(missing),
    }
}

impl Search<'_> {
    /// Offers all accounts of a node. Returns why some are missing, if slots are migrating.
    async fn node(
        &self,
        managed: &ManagedNode,
        connection: u64,
        batcher: &Batcher,
        leaders: &mut Leaders<'_>,
    ) -> Result<Option<StoreError>, NodeError> {
        let mut migrating = None;
        let pattern = keys::pattern(&self.remote.prefix, SubjectKind::of(self.limit));
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = scan(managed, connection, batcher, &cursor, &pattern).await?;
            // A script's keys must be in one slot of a Cluster.
            let mut by_customer: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for key in keys {
                let tag = key.split(['{', '}']).nth(1).unwrap_or_default().to_owned();
                by_customer.entry(tag).or_default().push(key);
            }
            for keys in by_customer.into_values() {
                match self.offer(&keys, leaders).await {
                    Err(NodeError::Unreachable(error)) if managed.node.is_up() => migrating = Some(error),
                    offered => offered?,
                }
            }
            cursor = next;
            if cursor == "0" {
                return Ok(migrating);
            }
        }
    }

    /// Offers a customer's accounts.
    async fn offer(&self, keys: &[String], leaders: &mut Leaders<'_>) -> Result<(), NodeError> {
        let value = self.remote.client.send(Request::top(keys, self.limit)).await.map_err(|error| {
            match self.remote.client.is_up(&keys[0]) {
                true => NodeError::Refused(error),
                false => NodeError::Unreachable(error),
            }
        })?;
        for (key, used) in keys.iter().zip(response::used(value).unwrap_or_default()) {
            if let Some(subject) = keys::subject_of(&self.remote.prefix, key) {
                leaders.offer(subject, used);
            }
        }
        Ok(())
    }
}

async fn scan(
    managed: &ManagedNode,
    connection: u64,
    batcher: &Batcher,
    cursor: &str,
    pattern: &str,
) -> Result<(String, Vec<String>), NodeError> {
    scan_on(batcher.connection(), cursor, pattern).await.map_err(|error| {
        if error.node_is_unusable() {
            managed.node.connection_failed(connection, None);
            return NodeError::Unreachable(error.into());
        }
        NodeError::Refused(error.into())
    })
}

/// Some of the first keys that a server has, and the cursor for the next ones; the last one is "0".
///
/// # Errors
/// The server does not respond, or not to that.
pub(super) async fn scan_on(
    connection: &Connection,
    cursor: &str,
    pattern: &str,
) -> Result<(String, Vec<String>), RequestError> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
    let value = RequestError::within(Instant::now() + RESPONSE_TIMEOUT, connection.query(&scan)).await?;
    redis::from_redis_value(value).map_err(|error| RequestError::Redis(error.into()))
}

fn missing_node(managed: &ManagedNode, error: &StoreError) -> MissingNode {
    let address = managed.address.as_ref().map_or_else(String::new, |(host, port)| format!("{host}:{port}"));
    let why = error.to_string();
    let why = why.strip_prefix(&format!("{address}: ")).unwrap_or(&why).to_owned();
    MissingNode { address, why }
}
