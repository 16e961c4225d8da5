//! Sends requests to the store: deadline, retries, redirections.
//!
//! A request has [`DEADLINE`] in all and [`RESPONSE_TIMEOUT`](super::error::RESPONSE_TIMEOUT) for each attempt. Once a node
//! cannot be reached, requests to it fail at once, and other nodes' customers notice nothing. The same holds for a customer
//! whose keys stay divided between two nodes (see [`slot_migration`](super::slot_migration)). Whatever a request changes may be
//! requested twice (see the module above), so it is retried whenever its fate is unknown.

use super::batch::Batcher;
use super::clock_acceptance::UnbelievedNode;
use super::error::RequestError;
use super::manager::{ConnectionManager, run};
use super::migration_watch::unblock_when_moved;
use super::node::{Connected, NoConnection};
use super::servers::Servers;
use super::slots::slot_of;
use super::store_clock::StoreClock;
use super::topology::ManagedNode;
use crate::ledger::shared::protocol::request::Request;
use crate::ledger::{Outage, StoreError};
use redis::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// How long a request may take in all.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long a request waits while its keys are divided between two nodes: the first one in a slot, and further ones while that
/// has not changed.
const DIVIDED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));
/// Between two attempts: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// How many redirections are followed before a pause.
const MAX_REDIRECTS: u32 = 5;

/// A client of the store. Connects with its first request.
pub(in crate::ledger::shared) struct Client {
    manager: Arc<ConnectionManager>,
    task: OnceLock<AbortHandle>,
}

/// How many nodes there are, and how many cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::shared) struct NodeCounts {
    pub nodes: usize,
    pub unreachable: usize,
    /// Customers that cannot be served because their slots are migrating.
    pub blocked_customers: usize,
}

impl Client {
    pub fn new(servers: Servers, prefix: &str, clock: Arc<StoreClock>, hash_key: [u8; 16]) -> Client {
        Client { manager: ConnectionManager::new(servers, prefix, clock, hash_key), task: OnceLock::new() }
    }

    /// Has a script serve a request.
    ///
    /// # Errors
    /// The node is unreachable, or refuses. Whether the script ran is unknown then.
    pub async fn send(&self, request: Request) -> Result<Value, StoreError> {
        self.send_with_retries(&Arc::new(request)).await
    }

    /// Waits until the store, or some node of it, is connected.
    ///
    /// # Errors
    /// All of it is unreachable.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.start();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (topology, mut first_error) = (self.manager.topology(), None);
            for managed in &topology.nodes {
                match managed.node.connection(deadline).await {
                    Ok(_) => return Ok(()),
                    Err(NoConnection::Unreachable(error)) => first_error = first_error.or(Some(error)),
                    Err(NoConnection::Removed) => {}
                }
            }
            if let Some(error) = first_error {
                return Err(error);
            }
        }
    }

    /// As [`Client::ready`], however long that takes.
    pub async fn reachable(&self) {
        let mut changes = self.changes();
        while !self.manager.topology().nodes.iter().any(|managed| managed.node.is_up()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes whenever something becomes reachable or unreachable.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.start();
        self.manager.status().changes().subscribe()
    }

    /// Whether the node of a key is known to be unreachable, or the key's customer to be blocked by a migration: requests would
    /// fail at once.
    pub fn is_unreachable(&self, key: impl FnOnce() -> String) -> bool {
        self.start();
        if !self.manager.status().is_any_unreachable() {
            return false;
        }
        let key = key();
        let node = self.manager.topology().node_for(&key);
        node.is_none_or(|node| node.unreachable().is_some()) || self.manager.blocked().error(&key).is_some()
    }

    /// Whether any node or customer is known to be unreachable.
    pub fn is_any_unreachable(&self) -> bool {
        self.manager.status().is_any_unreachable()
    }

    /// Whether all nodes are known to be unreachable.
    pub fn are_all_unreachable(&self) -> bool {
        let topology = self.manager.topology();
        self.is_any_unreachable() && topology.nodes.iter().all(|managed| managed.node.unreachable().is_some())
    }

    /// Whether the node of a key is connected.
    pub fn is_up(&self, key: &str) -> bool {
        self.manager.topology().node_for(key).is_some_and(|node| node.is_up())
            && self.manager.blocked().error(key).is_none()
    }

    /// All nodes, each with its connection or why it has none, for commands other than scripts.
    ///
    /// # Errors
    /// All of them are unreachable.
    pub async fn nodes(&self) -> Result<Vec<(Arc<ManagedNode>, Connected)>, StoreError> {
        self.ready().await?;
        let deadline = Instant::now() + DEADLINE;
        let mut nodes = Vec::new();
        for managed in &self.manager.topology().nodes {
            nodes.push((managed.clone(), managed.node.connection(deadline).await));
        }
        Ok(nodes)
    }

    pub fn node_counts(&self) -> NodeCounts {
        let topology = self.manager.topology();
        let unreachable = topology.nodes.iter().filter(|managed| managed.node.unreachable().is_some()).count();
        NodeCounts { nodes: topology.nodes.len(), unreachable, blocked_customers: self.manager.blocked().len() }
    }

    /// What is unreachable and why, and changes of it.
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.manager.status().outage().subscribe()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.manager.status().advice().subscribe()
    }

    /// How often the store, or a node of it, was found emptied since the start.
    pub fn times_emptied(&self) -> u64 {
        self.manager.status().times_emptied()
    }

    pub fn is_connecting(&self) -> bool {
        self.manager.topology().nodes.iter().all(|managed| managed.node.is_connecting())
    }

    /// Nodes whose clocks are not believed. Looks at all that are connected, too.
    ///
    /// # Errors
    /// One of them cannot be reached.
    pub async fn unbelieved_nodes(&self) -> Result<Vec<UnbelievedNode>, StoreError> {
        self.start();
        let mut unbelieved = Vec::new();
        for managed in &self.manager.topology().nodes {
            unbelieved.extend(UnbelievedNode::look_at(&self.manager, managed).await?);
        }
        Ok(unbelieved)
    }

    /// What recipients' addresses are hashed with.
    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.manager.hash_key()
    }

    async fn send_with_retries(&self, request: &Arc<Request>) -> Result<Value, StoreError> {
        self.start();
        let key = request.keys.first().map_or("", String::as_str);
        if let Some(error) = self.manager.blocked().error(key) {
            return Err(error);
        }
        let (began, deadline) = (Instant::now(), Instant::now() + DEADLINE);
        let (mut pause, mut redirects, mut asking_node) = (RETRY.0, 0, None);
        loop {
            let asking = asking_node.is_some();
            let node = match asking_node.take() {
                Some(node) => node,
                None => self.manager.topology().node_for(key).ok_or_else(no_owner)?,
            };
            let (connection, batcher) = match node.connection(deadline).await {
                Ok(connected) => connected,
                Err(NoConnection::Unreachable(error)) => return Err(error),
                Err(NoConnection::Removed) => continue,
            };
            let error = match attempt(&batcher, request, asking, deadline).await {
                Ok(value) => {
                    self.manager.request_succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            if let Some((address, for_once)) = error.redirect()
                && redirects < MAX_REDIRECTS
            {
                redirects += 1;
                let target = self.manager.redirected(slot_of(key), address, for_once);
                asking_node = target.filter(|_| for_once);
                continue;
            }
            // The other node has none of the keys any more, so those that are missing here are missing everywhere.
            if asking && error.slot_is_migrating() && redirects < MAX_REDIRECTS {
                redirects += 1;
                let held = RequestError::within(deadline, batcher.hold_places(&request.keys)).await;
                asking_node = held.ok().map(|_| node);
                continue;
            }
            let node_is_unusable = error.node_is_unusable();
            if node_is_unusable {
                node.connection_failed(connection, Some(key));
            }
            if error.slot_is_migrating() && Instant::now() + pause >= began + self.patience_with_slot_of(key) {
                return Err(self.block(request));
            }
            if !error.is_transient() || Instant::now() + pause >= deadline {
                let error = StoreError::from(error);
                if !node_is_unusable {
                    self.manager.request_refused(error.clone());
                }
                return Err(error);
            }
            sleep(pause).await;
            (pause, redirects) = ((pause * 2).min(RETRY.1), 0);
        }
    }

    fn patience_with_slot_of(&self, key: &str) -> Duration {
        if self.manager.blocked().has_any_in(slot_of(key)) { DIVIDED.1 } else { DIVIDED.0 }
    }

    fn block(&self, request: &Request) -> StoreError {
        let (error, is_new) = self.manager.block(request.keys.first().map_or("", String::as_str));
        if is_new {
            tokio::spawn(unblock_when_moved(Arc::downgrade(&self.manager), request.keys.clone()));
        }
        error
    }

    fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(run(self.manager.clone())).abort_handle());
    }
}

fn no_owner() -> StoreError {
    StoreError::transient("no node of the cluster serves the slot")
}

async fn attempt(
    batcher: &Arc<Batcher>,
    request: &Arc<Request>,
    asking: bool,
    deadline: Instant,
) -> Result<Value, RequestError> {
    match asking {
        true => RequestError::within(deadline, batcher.send_asking(request)).await,
        false => RequestError::within(deadline, batcher.send(request)).await,
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("outage", &*self.manager.status().outage().borrow()).finish_non_exhaustive()
    }
}
