//! Asking the store: deadline, retry, and which node of it to ask.
//!
//! A request has [`DEADLINE`] in all and [`TRY`](super::connection::TRY) each time it is asked. When a node could not be
//! reached it counts as away: requests to it fail at once, and the other nodes notice nothing. So does a customer whose slot
//! moves for longer (see migrations). What a request changes may be asked for twice (see the module above), so it is asked again
//! whenever it is not known what became of it.

use super::batch::Batcher;
use super::connection::RequestError;
use super::manager::{ConnectionManager, keep};
use super::node::{Connected, NoConnection};
use super::servers::Servers;
use super::slots::slot_of;
use super::topology::ManagedNode;
use crate::ledger::Outage;
use crate::ledger::shared::protocol::ServerTime;
use crate::ledger::shared::protocol::request::Request;
use crate::ledger::shared::protocol::scripts::{Asked, Script};
use redis::Value;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// How long a request may take in all.
const DEADLINE: Duration = Duration::from_secs(3);
/// Between two attempts to ask: first and longest.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// So often a request goes where it is sent to, until it waits a while.
const REDIRECTS: u32 = 5;

/// Why the store cannot be asked.
pub(in crate::ledger::shared) type Trouble = Arc<str>;

/// Connections that are managed open.
pub(in crate::ledger::shared) struct Client {
    manager: Arc<ConnectionManager>,
    task: OnceLock<AbortHandle>,
}

impl Client {
    pub fn new(servers: Servers, prefix: &str, time: ServerTime, hash_key: [u8; 16]) -> Client {
        Client { manager: ConnectionManager::new(servers, prefix, time, hash_key), task: OnceLock::new() }
    }

    /// Has a script answer a request.
    ///
    /// # Errors
    /// The servers are away, or refuse. Whether the script ran is not known then.
    pub async fn ask(&self, script: &'static Script, request: Request) -> Result<Value, Trouble> {
        self.retrying(&Arc::new(Asked { script, request })).await
    }

    /// Waits until the store, or a node of it, can be asked.
    ///
    /// # Errors
    /// All of it is away.
    pub async fn ready(&self) -> Result<(), Trouble> {
        self.start();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (topology, mut trouble) = (self.manager.topology(), None);
            for managed in &topology.nodes {
                match managed.node.connection(deadline).await {
                    Ok(_) => return Ok(()),
                    Err(NoConnection::Away(why)) => trouble = trouble.or(Some(why)),
                    Err(NoConnection::Gone) => {}
                }
            }
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
        }
    }

    /// Waits until the store, or a node of it, can be asked, however long that takes.
    pub async fn up(&self) {
        let mut changes = self.changes();
        while !self.manager.topology().nodes.iter().any(|managed| managed.node.is_up()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes of what is up and what is away.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.start();
        self.manager.changes()
    }

    /// Whether the node that has a key is known to be away, or the key's customer to be migrations, so that nothing is asked.
    pub fn is_away(&self, key: impl FnOnce() -> String) -> bool {
        self.start();
        if !self.manager.is_any_away() {
            return false;
        }
        let key = key();
        let node = self.manager.topology().node_for(&key);
        node.is_none_or(|node| node.trouble().is_some()) || self.manager.migrations().trouble(&key).is_some()
    }

    /// Whether a node is known to be away.
    pub fn is_any_away(&self) -> bool {
        self.manager.is_any_away()
    }

    /// Whether all nodes are known to be away.
    pub fn is_all_away(&self) -> bool {
        self.manager.is_any_away()
            && self.manager.topology().nodes.iter().all(|managed| managed.node.trouble().is_some())
    }

    /// Whether the node that has a key is there, as far as is known.
    pub fn is_up(&self, key: &str) -> bool {
        self.manager.topology().node_for(key).is_some_and(|node| node.is_up())
            && self.manager.migrations().trouble(key).is_none()
    }

    /// All nodes, each with its connection or why it has none, for commands other than scripts.
    ///
    /// # Errors
    /// All of them are away.
    pub async fn nodes(&self) -> Result<Vec<(Arc<ManagedNode>, Connected)>, Trouble> {
        self.ready().await?;
        let deadline = Instant::now() + DEADLINE;
        let mut nodes = Vec::new();
        for managed in &self.manager.topology().nodes {
            nodes.push((managed.clone(), managed.node.connection(deadline).await));
        }
        Ok(nodes)
    }

    /// How many nodes there are, and how many are away; how many customers are held up because their slots move.
    pub fn how_many(&self) -> (usize, usize, usize) {
        let topology = self.manager.topology();
        let away = topology.nodes.iter().filter(|managed| managed.node.trouble().is_some()).count();
        (topology.nodes.len(), away, self.manager.migrations().len())
    }

    /// What is away and why, and changes of it.
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.manager.outage()
    }

    /// What an administrator should change at the servers, and changes of it.
    pub fn advice(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.manager.advice()
    }

    pub fn is_connecting(&self) -> bool {
        self.manager.topology().nodes.iter().all(|managed| managed.node.is_connecting())
    }

    pub fn hash_key(&self) -> Arc<[u8; 16]> {
        self.manager.hash_key()
    }

    async fn retrying(&self, asked: &Arc<Asked>) -> Result<Value, Trouble> {
        self.start();
        let key = asked.request.keys.first().map_or("", String::as_str);
        if let Some(why) = self.manager.migrations().trouble(key) {
            return Err(why);
        }
        let deadline = Instant::now() + DEADLINE;
        let (mut pause, mut redirects, mut for_once) = (ASK_AGAIN.0, 0, None);
        loop {
            let is_for_once = for_once.is_some();
            let node = match for_once.take() {
                Some(node) => node,
                None => self.manager.topology().node_for(key).ok_or("the slot is on no server of the cluster")?,
            };
            let (id, batcher) = match node.connection(deadline).await {
                Ok(connected) => connected,
                Err(NoConnection::Away(why)) => return Err(why),
                Err(NoConnection::Gone) => continue,
            };
            let failure = match ask(&batcher, asked, is_for_once, deadline).await {
                Ok(value) => {
                    self.manager.request_succeeded();
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            if let Some((address, is_for_once)) = failure.redirect()
                && redirects < REDIRECTS
            {
                redirects += 1;
                let target = self.manager.redirected(slot_of(key), address, is_for_once);
                for_once = target.filter(|_| is_for_once);
                continue;
            }
            let breaks = failure.breaks();
            if breaks {
                node.failed(id, Some(key));
            }
            if failure.is_final() || Instant::now() + pause >= deadline {
                if failure.slot_moves() {
                    return Err(self.manager.is_held_up(key, &asked.request.keys));
                }
                let why: Trouble = failure.in_words().into();
                if !breaks {
                    self.manager.request_refused(why.clone());
                }
                return Err(why);
            }
            sleep(pause).await;
            (pause, redirects) = ((pause * 2).min(ASK_AGAIN.1), 0);
        }
    }

    fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(keep(self.manager.clone())).abort_handle());
    }
}

async fn ask(
    batcher: &Arc<Batcher>,
    asked: &Arc<Asked>,
    for_once: bool,
    deadline: Instant,
) -> Result<Value, RequestError> {
    match for_once {
        true => RequestError::or(deadline, batcher.ask_for_moving_slot(asked)).await,
        false => RequestError::or(deadline, batcher.ask(asked)).await,
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
        f.debug_struct("Client").field("outage", &*self.manager.outage().borrow()).finish_non_exhaustive()
    }
}
