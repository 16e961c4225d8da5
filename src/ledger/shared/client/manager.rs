//! The connection manager: keeps the nodes connected, and knows the topology.

use super::batch::Batcher;
use super::clock_check::broken_or_jumped;
use super::connection::Connection;
use super::error::{ConnectError, RESPONSE_TIMEOUT, is_unknown_command};
use super::hash_key::{HashKey, KeyReading, query_if_owned};
use super::node::{Backoff, Node, with_connect_timeout};
use super::servers::{Deployment, NodeConnector, Servers, slots_known_to};
use super::slot_migration::BlockedCustomers;
use super::slots::{Address, SlotMap, parse_address, slot_of};
use super::status::Status;
use super::store_clock::{NodeClock, StoreClock};
use super::topology::{ManagedNode, Topology};
use crate::ledger::StoreError;
use crate::ledger::shared::protocol::keys;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// How long the optional preparation of a new connection may take.
const PREPARE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the topology is fetched at most, while a node is unreachable or a slot has moved.
pub(super) const REFRESH: Duration = Duration::from_millis(500);

pub(super) struct ConnectionManager {
    own: Weak<ConnectionManager>,
    servers: Servers,
    hash_key: Arc<HashKey>,
    prefix: String,
    clock: Arc<StoreClock>,
    topology: ArcSwap<Topology>,
    /// Held by whoever replaces the topology.
    replacing: Mutex<()>,
    /// How a Cluster's nodes are connected to.
    connector: Mutex<Option<NodeConnector>>,
    /// The topology may be outdated.
    outdated: Notify,
    status: Status,
    blocked: BlockedCustomers,
}

/// What the store turned out to be.
enum Established {
    Single(Arc<Node>),
    Cluster,
}

/// Keeps everything connected, until it is aborted.
pub(super) async fn run(manager: Arc<ConnectionManager>) {
    let mut backoff = Backoff::default();
    loop {
        match with_connect_timeout(manager.establish()).await {
            Ok(established) => {
                backoff = Backoff::default();
                match established {
                    Established::Single(node) => broken_or_jumped(&Arc::downgrade(&manager), &node, None).await,
                    Established::Cluster => manager.watch_cluster().await,
                }
            }
            Err(error) => {
                // The nodes of a Cluster have tasks of their own.
                let topology = manager.topology();
                if !topology.is_cluster() {
                    topology.nodes[0].node.set_unreachable(error.into());
                    manager.publish();
                }
                backoff.wait().await;
            }
        }
    }
}

/// Keeps one node of a Cluster connected, until it is aborted or the manager is gone.
async fn maintain_node(manager: Weak<ConnectionManager>, connector: NodeConnector, address: Address, node: Arc<Node>) {
    let mut backoff = Backoff::default();
    while let Some(manager) = manager.upgrade() {
        let connected = with_connect_timeout(manager.connect_node(&connector, &address, &node)).await;
        let is_up = connected.is_ok();
        match connected {
            Ok(connection) => node.set_up(Arc::new(Batcher::new(connection, true, manager.clocks_of(&node)))),
            Err(error) => node.set_unreachable(error.at(format_args!("{}:{}", address.0, address.1)).into()),
        }
        manager.publish();
        let weak = Arc::downgrade(&manager);
        drop(manager);
        if is_up {
            backoff = Backoff::default();
            broken_or_jumped(&weak, &node, Some(&address)).await;
        } else {
            backoff.wait().await;
        }
    }
}

impl ConnectionManager {
    pub fn new(servers: Servers, prefix: &str, clock: Arc<StoreClock>, hash_key: [u8; 16]) -> Arc<ConnectionManager> {
        Arc::new_cyclic(|own| ConnectionManager {
            own: own.clone(),
            servers,
            hash_key: Arc::new(HashKey::new(prefix, hash_key)),
            prefix: prefix.to_owned(),
            clock,
            topology: ArcSwap::from_pointee(Topology::single()),
            replacing: Mutex::default(),
            connector: Mutex::default(),
            outdated: Notify::new(),
            status: Status::new(),
            blocked: BlockedCustomers::default(),
        })
    }

    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn clock(&self) -> &StoreClock {
        &self.clock
    }

    pub fn shared_clock(&self) -> Arc<StoreClock> {
        self.clock.clone()
    }

    fn clocks_of(&self, node: &Node) -> (Arc<StoreClock>, Arc<NodeClock>) {
        (self.clock.clone(), node.clock.clone())
    }

    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.hash_key.bytes()
    }

    /// Customers that cannot be served while their slots migrate.
    pub fn blocked(&self) -> &BlockedCustomers {
        &self.blocked
    }

    pub fn request_succeeded(&self) {
        if self.status.request_succeeded() {
            self.publish();
        }
    }

    /// A node that is up refused a request.
    pub fn request_refused(&self, error: StoreError) {
        self.status.request_refused(error);
        self.publish();
    }

    /// The slot of a key has been migrating for longer than a request can wait. Whether its customer was not blocked before.
    pub fn block(&self, key: &str) -> (StoreError, bool) {
        let (error, is_new) = self.blocked.add(key, slot_of(key));
        if is_new {
            self.publish();
        }
        (error, is_new)
    }

    /// The customer that a key belongs to can be served again.
    pub fn unblock(&self, key: &str) {
        self.blocked.remove(key);
        self.publish();
        self.status.changed();
    }

    /// A node redirected a request: for once, because the slot is migrating (ASK), or from now on (MOVED).
    pub fn redirected(&self, slot: u16, address: &str, for_once: bool) -> Option<Arc<Node>> {
        let connector = self.connector.lock().clone()?;
        let address = parse_address(address, connector.host())?;
        let node = {
            let _replacing = self.replacing.lock();
            let slot = (!for_once).then_some(slot);
            let (topology, node) =
                self.topology().with_node(&address, slot, |address| self.manage(address, &connector));
            self.topology.store(Arc::new(topology));
            node
        };
        if !for_once {
            self.outdated.notify_one();
        }
        Some(node)
    }

    /// Another connection to a node, whether its clock is believed or not.
    pub(super) async fn connect_again(&self, managed: &ManagedNode) -> Result<Connection, ConnectError> {
        match &managed.address {
            Some(address) => {
                let connector = self.connector.lock().clone().ok_or(ConnectError::NoSlots)?;
                connector.connect(address).await
            }
            None => match self.servers.connect().await? {
                Deployment::Single(connection) => Ok(connection),
                Deployment::Cluster(..) => Err(ConnectError::NoSlots),
            },
        }
    }

    /// Finds the servers, and reads the hash key or creates it.
    async fn establish(&self) -> Result<Established, ConnectError> {
        match self.servers.connect().await? {
            Deployment::Single(connection) => {
                if self.topology().is_cluster() {
                    self.set_topology(Topology::single());
                }
                let node = self.topology().nodes[0].node.clone();
                self.check(&connection, &node, None).await?;
                self.prepare(&connection, &node).await;
                node.set_up(Arc::new(Batcher::new(connection, false, self.clocks_of(&node))));
                self.publish();
                Ok(Established::Single(node))
            }
            Deployment::Cluster(slots, connector) => {
                let topology =
                    Topology::of_cluster(&self.topology(), &slots, |address| self.manage(address, &connector));
                self.learn_hash_key(&topology).await?;
                let _ = timeout(PREPARE_TIMEOUT, async {
                    for managed in &topology.nodes {
                        let _ = managed.node.connection(Instant::now() + PREPARE_TIMEOUT).await;
                    }
                })
                .await;
                *self.connector.lock() = Some(connector);
                self.set_topology(topology);
                Ok(Established::Cluster)
            }
        }
    }

    /// The node that has the hash key reads it when it is connected; if it is unreachable, a copy on another node does. Without
    /// it nothing can be counted anywhere: recipients would be hashed differently than by other daemons.
    async fn learn_hash_key(&self, topology: &Topology) -> Result<(), ConnectError> {
        let (hash_key, began) = (&self.hash_key, Instant::now());
        let key = hash_key.key();
        let missing = |reason| ConnectError::NoHashKey { key: key.to_owned(), reason };
        let no_owner = || StoreError::transient("no node of the cluster serves its slot");
        let node = topology.node_for(key).ok_or_else(|| missing(no_owner()))?;
        let mut reason = StoreError::transient("its slot is migrating");
        for wait in [RESPONSE_TIMEOUT, 3 * RESPONSE_TIMEOUT] {
            let connected = node.connection(began + wait).await;
            if hash_key.is_known() || hash_key.read_from_copies(topology).await {
                return Ok(());
            }
            if let Err(error) = connected {
                reason = error.into();
            }
        }
        Err(missing(reason))
    }

    /// Refreshes the topology of a Cluster whenever that may help. Returns when none of its nodes knows any slots.
    async fn watch_cluster(&self) {
        let (mut changes, mut tick) = (self.status.changes().subscribe(), interval(REFRESH));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.copy_hash_key();
        loop {
            let are_all_up = self.topology().nodes.iter().all(|managed| managed.node.is_up());
            tokio::select! {
                () = self.outdated.notified() => self.copy_hash_key(),
                _ = tick.tick(), if !are_all_up => {}
                _ = changes.changed() => {
                    self.copy_hash_key();
                    continue;
                }
            }
            if !self.refresh_topology().await {
                return;
            }
            sleep(REFRESH).await;
        }
    }

    /// Nobody waits for it: the copies of an unreachable node are written later.
    fn copy_hash_key(&self) {
        let Some(manager) = self.own.upgrade() else { return };
        tokio::spawn(async move {
            if manager.hash_key.write_copies(&manager.topology()).await {
                manager.store_was_emptied();
            }
        });
    }

    /// Reads the hash key, or puts it back, if it is on this server. It may be another one after the server was emptied.
    ///
    /// # Errors
    /// The server's error, or the key is not ours.
    pub(super) async fn read_hash_key(&self, connection: &Connection) -> Result<KeyReading, ConnectError> {
        let reading = self.hash_key.read_or_create(connection).await?;
        if let KeyReading::Found { is_news, is_emptied } = reading {
            if is_news {
                self.outdated.notify_one();
                self.status.changed();
            }
            if is_emptied {
                self.store_was_emptied();
            }
        }
        Ok(reading)
    }

    /// As [`read_hash_key`](Self::read_hash_key), every few seconds.
    pub(super) async fn read_hash_key_again(&self, connection: &Connection) {
        // Whatever else is wrong, requests find out.
        if let Ok(KeyReading::Found { .. }) = self.read_hash_key(connection).await {
            if self.topology().is_cluster() {
                self.copy_hash_key();
            }
            // An old loss is no longer reported.
            self.publish();
        }
    }

    fn store_was_emptied(&self) {
        let time = &self.clock.time;
        self.status.store_emptied(time.elapsed(), time.wall());
        self.publish();
    }

    /// Asks all reachable nodes, or else the servers of `store.urls`, who owns which slots. False: it is no Cluster any more.
    async fn refresh_topology(&self) -> bool {
        let Some(connector) = self.connector.lock().clone() else { return false };
        let mut asked = JoinSet::new();
        for managed in &self.topology().nodes {
            let (node, host) = (managed.node.clone(), managed.address.clone().map(|(host, _)| host));
            if node.is_up() {
                asked.spawn(timeout(RESPONSE_TIMEOUT, async move {
                    let (_, batcher) = node.connection(Instant::now()).await.ok()?;
                    slots_known_to(batcher.connection(), host.as_deref().unwrap_or_default()).await
                }));
            }
        }
        let reported = asked.join_all().await.into_iter().filter_map(|slots| slots.ok().flatten()).collect();
        let slots = match SlotMap::of_majority(reported) {
            Some(slots) => slots,
            None => match with_connect_timeout(self.servers.connect()).await {
                Ok(Deployment::Cluster(slots, _)) => slots,
                Ok(Deployment::Single(_)) => return false,
                Err(_) => return true,
            },
        };
        self.set_topology(Topology::of_cluster(&self.topology(), &slots, |address| self.manage(address, &connector)));
        true
    }

    fn set_topology(&self, topology: Topology) {
        let replacing = self.replacing.lock();
        if self.topology().is_same_as(&topology) {
            return;
        }
        let topology = Arc::new(topology);
        let before = self.topology.swap(topology.clone());
        drop(replacing);
        before.nodes_not_in(&topology).for_each(|managed| managed.remove());
        self.publish();
    }

    fn manage(&self, address: &Address, connector: &NodeConnector) -> ManagedNode {
        let node = Arc::new(Node::new());
        let task = tokio::spawn(maintain_node(self.own.clone(), connector.clone(), address.clone(), node.clone()));
        ManagedNode { node, address: Some(address.clone()), task: Some(task.abort_handle()) }
    }

    async fn connect_node(
        &self,
        connector: &NodeConnector,
        address: &Address,
        node: &Node,
    ) -> Result<Connection, ConnectError> {
        let connection = connector.connect(address).await?;
        self.check(&connection, node, Some(address)).await?;
        if let Some(key) = node.failed_key() {
            // Changes nothing, but a server that rejects writes rejects this, too.
            query_if_owned(&connection, redis::cmd("HDEL").arg(keys::second(&key)).arg("")).await?;
        }
        self.prepare(&connection, node).await;
        Ok(connection)
    }

    /// Reads or creates the hash key, if it is on this server, and finds out whether the server runs scripts and what time it
    /// has.
    async fn check(&self, connection: &Connection, node: &Node, address: Option<&Address>) -> Result<(), ConnectError> {
        self.read_hash_key(connection).await?;
        // The digest of no script: a server that runs scripts says that it does not know this one.
        let none = redis::cmd("EVALSHA").arg("0".repeat(40)).arg(1).arg(self.hash_key.key()).to_owned();
        match connection.query(&none).await {
            Err(error) if is_unknown_command(&error) => Err(ConnectError::NoScripts),
            _ => self.check_clock(connection, node, address).await,
        }
    }

    /// What a connection also works without.
    async fn prepare(&self, connection: &Connection, node: &Node) {
        let _ = timeout(PREPARE_TIMEOUT, async {
            connection.load_scripts().await;
            *node.advice.lock() = connection.eviction_policy().await.map(|policy| {
                format!(
                    "the store may forget counts when its memory is full (maxmemory-policy {policy}): set noeviction"
                )
            });
        })
        .await;
    }

    fn publish(&self) {
        self.status.publish(&self.topology(), &self.blocked, self.clock.time.elapsed());
    }
}
