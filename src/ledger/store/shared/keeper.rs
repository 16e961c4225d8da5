//! Keeping the store's parts connected, and knowing which there are.

use super::connection::{Connection, TRY, is_unknown_command};
use super::lane::Lane;
use super::link::Trouble;
use super::moving::{Moving, keep_asking};
use super::names;
use super::part::{Part, Pause, within_limit};
use super::secret::{Secret, takes};
use super::server::{Found, Nodes, Servers};
use super::server_time::ServerTime;
use super::slots::{Address, Slots, read_address, slot_of};
use super::whole::{Kept, Whole};
use crate::ledger::Outage;
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
/// A Cluster of which a part is away, or that has changed, is looked at afresh; so long between two looks.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// So many parts that are away are named.
const NAMED: usize = 3;

pub(super) struct Keeper {
    own: Weak<Keeper>,
    servers: Servers,
    secret: Arc<Secret>,
    time: ServerTime,
    whole: ArcSwap<Whole>,
    changing: Mutex<()>,
    /// How a Cluster's nodes are connected to.
    nodes: Mutex<Option<Nodes>>,
    doubted: Notify,
    changes: watch::Sender<u64>,
    /// The parts, and whether they are up.
    told: Mutex<Vec<(usize, bool)>>,
    is_any_away: AtomicBool,
    /// What was wrong with the last question, if it was not that a part is away.
    failed: Mutex<Option<Trouble>>,
    has_failed: AtomicBool,
    moving: Moving,
    outage: watch::Sender<Option<Outage>>,
    advice: watch::Sender<Option<Arc<str>>>,
}

/// What the store turned out to be.
enum Kind {
    Single(Arc<Part>),
    Cluster,
}

/// Keeps all connected, until it is aborted.
pub(super) async fn keep(keeper: Arc<Keeper>) {
    let mut pause = Pause::default();
    loop {
        match within_limit(keeper.establish()).await {
            Ok(kind) => {
                pause = Pause::default();
                match kind {
                    Kind::Single(part) => part.broken().await,
                    Kind::Cluster => keeper.watch().await,
                }
            }
            Err(why) => {
                // The nodes of a Cluster see for themselves.
                let whole = keeper.whole();
                if !whole.is_cluster() {
                    whole.parts[0].part.away(why);
                    keeper.note();
                }
                pause.wait().await;
            }
        }
    }
}

/// Keeps a node connected, until it is aborted or the keeper has ended.
async fn keep_node(keeper: Weak<Keeper>, nodes: Nodes, address: Address, part: Arc<Part>) {
    let mut pause = Pause::default();
    while let Some(keeper) = keeper.upgrade() {
        let connected = within_limit(keeper.connect_to(&nodes, &address, &part)).await;
        let is_up = connected.is_ok();
        match connected {
            Ok(connection) => part.up(Arc::new(Lane::new(connection, true, keeper.time.clone()))),
            Err(why) => part.away(why),
        }
        keeper.note();
        drop(keeper);
        if is_up {
            pause = Pause::default();
            part.broken().await;
        } else {
            pause.wait().await;
        }
    }
}

impl Keeper {
    pub fn new(servers: Servers, prefix: &str, time: ServerTime, hash_key: [u8; 16]) -> Arc<Keeper> {
        Arc::new_cyclic(|own| Keeper {
            own: own.clone(),
            servers,
            secret: Arc::new(Secret::new(prefix, hash_key)),
            time,
            whole: ArcSwap::from_pointee(Whole::single()),
            changing: Mutex::default(),
            nodes: Mutex::default(),
            doubted: Notify::new(),
            changes: watch::Sender::new(0),
            told: Mutex::default(),
            is_any_away: AtomicBool::new(false),
            failed: Mutex::default(),
            has_failed: AtomicBool::new(false),
            moving: Moving::default(),
            outage: watch::Sender::new(None),
            advice: watch::Sender::new(None),
        })
    }

    pub fn whole(&self) -> Arc<Whole> {
        self.whole.load_full()
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

    /// A question was answered.
    pub fn question_works(&self) {
        if self.has_failed.load(Ordering::Relaxed) {
            *self.failed.lock() = None;
            self.has_failed.store(false, Ordering::Relaxed);
            self.note();
        }
    }

    /// A server that is there refused a question.
    pub fn question_fails(&self, why: Trouble) {
        *self.failed.lock() = Some(why);
        self.has_failed.store(true, Ordering::Relaxed);
        self.note();
    }

    /// Customers that cannot be asked about while their slots move.
    pub fn moving(&self) -> &Moving {
        &self.moving
    }

    /// Some keys of a customer, this one among them, cannot be asked about because their slot moves, for longer than a question
    /// can wait.
    pub fn is_held_up(&self, key: &str, keys: &[String]) -> Trouble {
        let slot = slot_of(key);
        let why: Trouble =
            format!("slot {slot} is on its way to another server, and not all of it can be asked about").into();
        if self.moving.add(key, why.clone()) {
            tokio::spawn(keep_asking(self.own.clone(), keys.to_vec()));
            self.note();
        }
        why
    }

    /// The customer that has a key can be asked about again.
    pub fn has_moved(&self, key: &str) {
        self.moving.remove(key);
        self.note();
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A node said that a slot is elsewhere: for one question (it is on its way there), or from now on.
    pub fn redirected(&self, slot: u16, address: &str, for_once: bool) -> Option<Arc<Part>> {
        let nodes = self.nodes.lock().clone()?;
        let address = read_address(address, nodes.host())?;
        let part = {
            let _changing = self.changing.lock();
            let slot = (!for_once).then_some(slot);
            let (whole, part) = self.whole().with(&address, slot, |address| self.make(address, &nodes));
            self.whole.store(Arc::new(whole));
            part
        };
        if !for_once {
            self.doubted.notify_one();
        }
        Some(part)
    }

    /// Finds the servers, and learns or decides what the store's secret is.
    async fn establish(&self) -> Result<Kind, String> {
        match self.servers.connect().await? {
            Found::Single(connection) => {
                self.check(&connection).await?;
                if self.whole().is_cluster() {
                    self.become_whole(Whole::single());
                }
                let part = self.whole().parts[0].part.clone();
                self.prepare(&connection, &part).await;
                part.up(Arc::new(Lane::new(connection, false, self.time.clone())));
                self.note();
                Ok(Kind::Single(part))
            }
            Found::Cluster(slots, nodes) => {
                let whole = Whole::of_cluster(&self.whole(), &slots, |address| self.make(address, &nodes));
                self.learn_secret(&whole).await?;
                let _ = timeout(PREPARE, async {
                    for kept in &whole.parts {
                        let _ = kept.part.connection(Instant::now() + PREPARE).await;
                    }
                })
                .await;
                *self.nodes.lock() = Some(nodes);
                self.become_whole(whole);
                Ok(Kind::Cluster)
            }
        }
    }

    /// The part that has the key tells the store's secret when it is connected to; while that is away, a copy elsewhere does.
    /// Without it nothing can be counted anywhere: recipients would go by names that nobody else knows them by.
    async fn learn_secret(&self, whole: &Whole) -> Result<(), String> {
        let (secret, began) = (&self.secret, Instant::now());
        let key = secret.key();
        let part = whole.part_with(key).ok_or_else(|| format!("no server has the slot of the key {key}"))?;
        let mut why = String::new();
        for wait in [TRY, 3 * TRY] {
            let connected = part.connection(began + wait).await;
            if secret.is_known() || secret.settle_by_copies(whole).await {
                return Ok(());
            }
            why = connected.map_or_else(|why| why.to_string(), |_| "its slot is on its way".to_owned());
        }
        Err(format!(
            "{why}; the key {key} lies there, without which nothing can be counted, and no other server has a copy"
        ))
    }

    /// Looks at a Cluster afresh whenever that may help. Returns when none of its nodes tells anything any more.
    async fn watch(&self) {
        let (mut changes, mut tick) = (self.changes(), interval(LOOK_AGAIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.copy_secret();
        loop {
            let is_well = self.whole().parts.iter().all(|kept| kept.part.is_up());
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

    /// Nobody waits for it: while a part is away its copies are written later.
    fn copy_secret(&self) {
        let (secret, whole) = (self.secret.clone(), self.whole());
        tokio::spawn(async move { secret.copy(&whole).await });
    }

    /// Asks all nodes that are there, or those of `store.urls`, who has which slots.
    async fn look_again(&self) -> bool {
        let Some(nodes) = self.nodes.lock().clone() else { return false };
        let mut asked = JoinSet::new();
        for kept in &self.whole().parts {
            let (part, host) = (kept.part.clone(), kept.address.clone().map(|(host, _)| host));
            if part.is_up() {
                asked.spawn(timeout(TRY, async move {
                    let (_, lane) = part.connection(Instant::now()).await.ok()?;
                    Nodes::slots_by(lane.connection(), host.as_deref().unwrap_or_default()).await
                }));
            }
        }
        let said = asked.join_all().await.into_iter().filter_map(|said| said.ok().flatten()).collect();
        let slots = match Slots::of_most(said) {
            Some(slots) => slots,
            None => match within_limit(self.servers.connect()).await {
                Ok(Found::Cluster(slots, _)) => slots,
                Ok(Found::Single(_)) => return false,
                Err(_) => return true,
            },
        };
        let whole = Whole::of_cluster(&self.whole(), &slots, |address| self.make(address, &nodes));
        self.become_whole(whole);
        true
    }

    fn become_whole(&self, whole: Whole) {
        let changing = self.changing.lock();
        if self.whole().is(&whole) {
            return;
        }
        let whole = Arc::new(whole);
        let before = self.whole.swap(whole.clone());
        drop(changing);
        before.without(&whole).for_each(|kept| kept.end());
        self.note();
    }

    fn make(&self, address: &Address, nodes: &Nodes) -> Kept {
        let part = Arc::new(Part::new());
        let task = tokio::spawn(keep_node(self.own.clone(), nodes.clone(), address.clone(), part.clone()));
        Kept { part, address: Some(address.clone()), task: Some(task.abort_handle()) }
    }

    async fn connect_to(&self, nodes: &Nodes, address: &Address, part: &Part) -> Result<Connection, String> {
        let connecting = async {
            let connection = nodes.connect(address).await?;
            self.check(&connection).await?;
            if let Some(key) = part.failed_key() {
                // Changes nothing, but a server that would refuse a change refuses this, too.
                takes(&connection, redis::cmd("HDEL").arg(names::second(&key)).arg("")).await?;
            }
            self.prepare(&connection, part).await;
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
    async fn prepare(&self, connection: &Connection, part: &Part) {
        let _ = timeout(PREPARE, async {
            connection.load_scripts().await;
            *part.advice.lock() = connection.evicts().await.map(|policy| {
                format!(
                    "the store may forget counts when its memory is full (maxmemory-policy {policy}): set noeviction"
                )
            });
        })
        .await;
    }

    /// Tells everybody what is away, and what should be changed.
    fn note(&self) {
        let whole = self.whole();
        let away: Vec<Trouble> = whole.parts.iter().filter_map(|kept| kept.part.trouble()).collect();
        let moving = self.moving.troubles();
        self.is_any_away.store(!away.is_empty() || !moving.is_empty(), Ordering::Release);
        let since = self.outage.borrow().as_ref().map_or_else(std::time::Instant::now, |before| before.since);
        let outage = if away.is_empty() && moving.is_empty() {
            self.failed.lock().clone().map(|why| Outage { why, in_part: false, since })
        } else {
            let named: Vec<&str> = away.iter().chain(&moving).take(NAMED).map(|why| &**why).collect();
            let more = away.len() + moving.len() - named.len();
            let why = named.join("; ") + &if more > 0 { format!("; and {more} more") } else { String::new() };
            Some(Outage { why: why.into(), in_part: away.len() < whole.parts.len(), since })
        };
        self.outage.send_if_modified(|before| {
            let is_news = before.is_some() != outage.is_some();
            *before = outage;
            is_news
        });
        let advice = whole.parts.iter().find_map(|kept| kept.part.advice.lock().clone());
        self.advice.send_if_modified(|before| {
            let is_news = before.as_deref() != advice.as_deref();
            *before = advice.map(Into::into);
            is_news
        });
        let states = whole.parts.iter().map(|kept| (Arc::as_ptr(&kept.part) as usize, kept.part.is_up())).collect();
        if *self.told.lock() != states {
            *self.told.lock() = states;
            self.changes.send_modify(|changes| *changes += 1);
        }
    }
}
