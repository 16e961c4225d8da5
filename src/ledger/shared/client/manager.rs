//! Keeping the store's nodes connected, and knowing which there are.

use super::batch::Batcher;
use super::client::Trouble;
use super::connection::{Connection, TRY, is_unknown_command};
use super::hash_key::{HashKey, takes};
use super::node::{Node, Pause, within_limit};
use super::servers::{Deployment, NodeConnector, Servers};
use super::slot_migration::{SlotMigrations, retry_until_moved};
use super::slots::{Address, Slots, read_address, slot_of};
use super::topology::{ManagedNode, Topology};
use crate::ledger::Outage;
use crate::ledger::shared::protocol::ServerTime;
use crate::ledger::shared::protocol::keys;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// What of a new connection can be done without, and how long it may take.
const PREPARE: Duration = Duration::from_millis(500);
/// A Cluster of which a node is away, or that has changed, is looked at afresh; so long between two looks.
pub(in crate::ledger::shared) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// So many nodes that are away are named.
const NAMED: usize = 3;

pub(in crate::ledger::shared) struct ConnectionManager {
    own: Weak<ConnectionManager>,
    servers: Servers,
    secret: Arc<HashKey>,
    time: ServerTime,
    topology: ArcSwap<Topology>,
    changing: Mutex<()>,
    /// How a Cluster's connector are connected to.
    connector: Mutex<Option<NodeConnector>>,
    doubted: Notify,
    changes: watch::Sender<u64>,
    /// The nodes, and whether they are up.
    told: Mutex<Vec<(usize, bool)>>,
    is_any_away: AtomicBool,
    /// What was wrong with the last request, if it was not that a node is away.
    failed: Mutex<Option<Trouble>>,
    has_failed: AtomicBool,
    migrations: SlotMigrations,
    outage: watch::Sender<Option<Outage>>,
    advice: watch::Sender<Option<Arc<str>>>,
}

/// What the store turned out to be.
enum Kind {
    Single(Arc<Node>),
    Cluster,
}

/// Keeps all connected, until it is aborted.
pub(in crate::ledger::shared) async fn keep(manager: Arc<ConnectionManager>) {
    let mut pause = Pause::default();
    loop {
        match within_limit(manager.establish()).await {
            Ok(kind) => {
                pause = Pause::default();
                match kind {
                    Kind::Single(node) => node.broken().await,
                    Kind::Cluster => manager.watch().await,
                }
            }
            Err(why) => {
                // The connector of a Cluster see for themselves.
                let topology = manager.topology();
                if !topology.is_cluster() {
                    topology.nodes[0].node.away(why);
                    manager.note();
                }
                pause.wait().await;
            }
        }
    }
}

/// Keeps a node connected, until it is aborted or the manager has ended.
async fn maintain_node(manager: Weak<ConnectionManager>, connector: NodeConnector, address: Address, node: Arc<Node>) {
    let mut pause = Pause::default();
    while let Some(manager) = manager.upgrade() {
        let connected = within_limit(manager.connect_to(&connector, &address, &node)).await;
        let is_up = connected.is_ok();
        match connected {
            Ok(connection) => node.up(Arc::new(Batcher::new(connection, true, manager.time.clone()))),
            Err(why) => node.away(why),
        }
        manager.note();
        drop(manager);
        if is_up {
            pause = Pause::default();
            node.broken().await;
        } else {
            pause.wait().await;
        }
    }
}

impl ConnectionManager {
    pub fn new(servers: Servers, prefix: &str, time: ServerTime, hash_key: [u8; 16]) -> Arc<ConnectionManager> {
        Arc::new_cyclic(|own| ConnectionManager {
            own: own.clone(),
            servers,
            secret: Arc::new(HashKey::new(prefix, hash_key)),
            time,
            topology: ArcSwap::from_pointee(Topology::single()),
            changing: Mutex::default(),
            connector: Mutex::default(),
            doubted: Notify::new(),
            changes: watch::Sender::new(0),
            told: Mutex::default(),
            is_any_away: AtomicBool::new(false),
            failed: Mutex::default(),
            has_failed: AtomicBool::new(false),
            migrations: SlotMigrations::default(),
            outage: watch::Sender::new(None),
            advice: watch::Sender::new(None),
        })
    }

    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn is_any_away(&self) -> bool {
        self.is_any_away.load(Ordering::Acquire)
    }

    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.outage.subscribe()
    }

    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.advice.subscribe()
    }

    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.secret.bytes()
    }

    /// A request was answered.
    pub fn request_succeeded(&self) {
        if self.has_failed.load(Ordering::Relaxed) {
            *self.failed.lock() = None;
            self.has_failed.store(false, Ordering::Relaxed);
            self.note();
        }
    }

    /// A server that is there refused a request.
    pub fn request_refused(&self, why: Trouble) {
        *self.failed.lock() = Some(why);
        self.has_failed.store(true, Ordering::Relaxed);
        self.note();
    }

    /// Customers that cannot be asked about while their slots move.
    pub fn migrations(&self) -> &SlotMigrations {
        &self.migrations
    }

    /// Some keys of a customer, this one among them, cannot be asked about because their slot moves, for longer than a request
    /// can wait.
    pub fn is_held_up(&self, key: &str, keys: &[String]) -> Trouble {
        let slot = slot_of(key);
        let why: Trouble =
            format!("slot {slot} is on its way to another server, and not all of it can be asked about").into();
        if self.migrations.add(key, why.clone()) {
            tokio::spawn(retry_until_moved(self.own.clone(), keys.to_vec()));
            self.note();
        }
        why
    }

    /// The customer that has a key can be asked about again.
    pub fn has_moved(&self, key: &str) {
        self.migrations.remove(key);
        self.note();
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A node said that a slot is elsewhere: for one request (it is on its way there), or from now on.
    pub fn redirected(&self, slot: u16, address: &str, for_once: bool) -> Option<Arc<Node>> {
        let connector = self.connector.lock().clone()?;
        let address = read_address(address, connector.host())?;
        let node = {
            let _changing = self.changing.lock();
            let slot = (!for_once).then_some(slot);
            let (topology, node) = self.topology().with(&address, slot, |address| self.make(address, &connector));
            self.topology.store(Arc::new(topology));
            node
        };
        if !for_once {
            self.doubted.notify_one();
        }
        Some(node)
    }

    /// Finds the servers, and learns or decides what the store's secret is.
    async fn establish(&self) -> Result<Kind, String> {
        match self.servers.connect().await? {
            Deployment::Single(connection) => {
                self.check(&connection).await?;
                if self.topology().is_cluster() {
                    self.set_topology(Topology::single());
                }
                let node = self.topology().nodes[0].node.clone();
                self.prepare(&connection, &node).await;
                node.up(Arc::new(Batcher::new(connection, false, self.time.clone())));
                self.note();
                Ok(Kind::Single(node))
            }
            Deployment::Cluster(slots, connector) => {
                let topology = Topology::of_cluster(&self.topology(), &slots, |address| self.make(address, &connector));
                self.learn_secret(&topology).await?;
                let _ = timeout(PREPARE, async {
                    for managed in &topology.nodes {
                        let _ = managed.node.connection(Instant::now() + PREPARE).await;
                    }
                })
                .await;
                *self.connector.lock() = Some(connector);
                self.set_topology(topology);
                Ok(Kind::Cluster)
            }
        }
    }

    /// The node that has the key usage_report the store's secret when it is connected to; while that is away, a copy elsewhere does.
    /// Without it nothing can be counted anywhere: recipients would go by names that nobody else knows them by.
    async fn learn_secret(&self, topology: &Topology) -> Result<(), String> {
        let (secret, began) = (&self.secret, Instant::now());
        let key = secret.key();
        let node = topology.node_for(key).ok_or_else(|| format!("no server has the slot of the key {key}"))?;
        let mut why = String::new();
        for wait in [TRY, 3 * TRY] {
            let connected = node.connection(began + wait).await;
            if secret.is_known() || secret.settle_by_copies(topology).await {
                return Ok(());
            }
            why = connected.map_or_else(|why| why.to_string(), |_| "its slot is on its way".to_owned());
        }
        Err(format!(
            "{why}; the key {key} lies there, without which nothing can be counted, and no other server has a copy"
        ))
    }

    /// Looks at a Cluster afresh whenever that may help. Returns when none of its connector usage_report anything any more.
    async fn watch(&self) {
        let (mut changes, mut tick) = (self.changes(), interval(LOOK_AGAIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.copy_secret();
        loop {
            let is_well = self.topology().nodes.iter().all(|managed| managed.node.is_up());
            tokio::select! {
                () = self.doubted.notified() => self.copy_secret(),
                _ = tick.tick(), if !is_well => {}
                _ = changes.changed() => {
                    self.copy_secret();
                    continue;
                }
            }
            if !self.look_again().await {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Nobody waits for it: while a node is away its copies are written later.
    fn copy_secret(&self) {
        let (secret, topology) = (self.secret.clone(), self.topology());
        tokio::spawn(async move { secret.copy(&topology).await });
    }

    /// Asks all connector that are there, or those of `store.urls`, who has which slots.
    async fn look_again(&self) -> bool {
        let Some(connector) = self.connector.lock().clone() else { return false };
        let mut asked = JoinSet::new();
        for managed in &self.topology().nodes {
            let (node, host) = (managed.node.clone(), managed.address.clone().map(|(host, _)| host));
            if node.is_up() {
                asked.spawn(timeout(TRY, async move {
                    let (_, batcher) = node.connection(Instant::now()).await.ok()?;
                    NodeConnector::slots_by(batcher.connection(), host.as_deref().unwrap_or_default()).await
                }));
            }
        }
        let said = asked.join_all().await.into_iter().filter_map(|said| said.ok().flatten()).collect();
        let slots = match Slots::of_most(said) {
            Some(slots) => slots,
            None => match within_limit(self.servers.connect()).await {
                Ok(Deployment::Cluster(slots, _)) => slots,
                Ok(Deployment::Single(_)) => return false,
                Err(_) => return true,
            },
        };
        let topology = Topology::of_cluster(&self.topology(), &slots, |address| self.make(address, &connector));
        self.set_topology(topology);
        true
    }

    fn set_topology(&self, topology: Topology) {
        let changing = self.changing.lock();
        if self.topology().is(&topology) {
            return;
        }
        let topology = Arc::new(topology);
        let before = self.topology.swap(topology.clone());
        drop(changing);
        before.without(&topology).for_each(|managed| managed.end());
        self.note();
    }

    fn make(&self, address: &Address, connector: &NodeConnector) -> ManagedNode {
        let node = Arc::new(Node::new());
        let task = tokio::spawn(maintain_node(self.own.clone(), connector.clone(), address.clone(), node.clone()));
        ManagedNode { node, address: Some(address.clone()), task: Some(task.abort_handle()) }
    }

    async fn connect_to(
        &self,
        connector: &NodeConnector,
        address: &Address,
        node: &Node,
    ) -> Result<Connection, String> {
        let connecting = async {
            let connection = connector.connect(address).await?;
            self.check(&connection).await?;
            if let Some(key) = node.failed_key() {
                // Changes nothing, but a server that would refuse a change refuses this, too.
                takes(&connection, redis::cmd("HDEL").arg(keys::second(&key)).arg("")).await?;
            }
            self.prepare(&connection, node).await;
            Ok(connection)
        };
        connecting.await.map_err(|why: String| format!("{}:{}: {why}", address.0, address.1))
    }

    /// Learns or decides what the store's secret is, if it is on this server, and whether the server does.
    async fn check(&self, connection: &Connection) -> Result<(), String> {
        if self.secret.settle(connection).await? {
            self.doubted.notify_one();
        }
        // Of no script: a server that runs scripts says that it does not know this one.
        let none = redis::cmd("EVALSHA").arg("0".repeat(40)).arg(1).arg(self.secret.key()).to_owned();
        match connection.ask(&none).await {
            Err(error) if is_unknown_command(&error) => {
                Err("the server runs no scripts: it does not know EVALSHA".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What can be done without.
    async fn prepare(&self, connection: &Connection, node: &Node) {
        let _ = timeout(PREPARE, async {
            connection.load_scripts().await;
            *node.advice.lock() = connection.evicts().await.map(|policy| {
                format!(
                    "the store may forget counts when its memory is full (maxmemory-policy {policy}): set noeviction"
                )
            });
        })
        .await;
    }

    /// UsageReport everybody what is away, and what should be changed.
    fn note(&self) {
        let topology = self.topology();
        let away: Vec<Trouble> = topology.nodes.iter().filter_map(|managed| managed.node.trouble()).collect();
        let migrations = self.migrations.troubles();
        self.is_any_away.store(!away.is_empty() || !migrations.is_empty(), Ordering::Release);
        let since = self.outage.borrow().as_ref().map_or_else(std::time::Instant::now, |before| before.since);
        let outage = if away.is_empty() && migrations.is_empty() {
            self.failed.lock().clone().map(|why| Outage { why, in_part: false, since })
        } else {
            let named: Vec<&str> = away.iter().chain(&migrations).take(NAMED).map(|why| &**why).collect();
            let more = away.len() + migrations.len() - named.len();
            let why = named.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() };
            Some(Outage { why: why.into(), in_part: away.len() < topology.nodes.len(), since })
        };
        self.outage.send_if_modified(|before| {
            let is_news = before.is_some() != outage.is_some();
            *before = outage;
            is_news
        });
        let advice = topology.nodes.iter().find_map(|managed| managed.node.advice.lock().clone());
        self.advice.send_if_modified(|before| {
            let is_news = before.as_deref() != advice.as_deref();
            *before = advice.map(Into::into);
            is_news
        });
        let states =
            topology.nodes.iter().map(|managed| (Arc::as_ptr(&managed.node) as usize, managed.node.is_up())).collect();
        if *self.told.lock() != states {
            *self.told.lock() = states;
            self.changes.send_modify(|changes| *changes += 1);
        }
    }
}
