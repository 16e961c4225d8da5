//! A node of the store: the one server, or a master of a Cluster. When it could not be reached, requests to it fail at once,
//! while a task of its own tries again and again.

use super::batch::Batcher;
use super::client::Trouble;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a new connection may take, greeting included.
const CONNECT: Duration = Duration::from_secs(4);
/// Between two attempts to connect: first and longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

pub(in crate::ledger::shared) struct Node {
    state: watch::Sender<State>,
    broken: Notify,
    connections: AtomicU64,
    /// Of the request that failed: whether it would be answered now is tried with it.
    failed_key: Mutex<Option<String>>,
    /// What an administrator should change at it.
    pub advice: Mutex<Option<String>>,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(u64, Arc<Batcher>),
    Away(Trouble),
    Gone,
}

/// The connection, and its number.
pub(in crate::ledger::shared) type Connected = Result<(u64, Arc<Batcher>), NoConnection>;

/// Why there is no connection.
#[derive(Debug)]
pub(in crate::ledger::shared) enum NoConnection {
    Away(Trouble),
    /// It is no node of the store any more.
    Gone,
}

impl Node {
    pub fn new() -> Node {
        Node {
            state: watch::Sender::new(State::Connecting),
            broken: Notify::new(),
            connections: AtomicU64::new(0),
            failed_key: Mutex::default(),
            advice: Mutex::default(),
        }
    }

    /// While there is to be one, it is waited for.
    pub async fn connection(&self, deadline: Instant) -> Connected {
        if let Some(known) = self.state.borrow().known() {
            return known;
        }
        let mut state = self.state.subscribe();
        let none = || Err(NoConnection::Away("no connection to the server".into()));
        match timeout_at(deadline, state.wait_for(|state| !matches!(state, State::Connecting))).await {
            Ok(Ok(state)) => state.known().unwrap_or_else(none),
            _ => none(),
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(..))
    }

    /// Whether it is not known yet if it is there.
    pub fn is_connecting(&self) -> bool {
        matches!(*self.state.borrow(), State::Connecting)
    }

    /// Why it is known to be away, so that nothing is asked.
    pub fn trouble(&self) -> Option<Trouble> {
        match &*self.state.borrow() {
            State::Away(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// A request failed on this connection: about a key, if it was a script's.
    pub fn failed(&self, connection: u64, key: Option<&str>) {
        let was_open = self.state.send_if_modified(|state| {
            let is_it = matches!(state, State::Up(current, _) if *current == connection);
            if is_it {
                *state = State::Connecting;
            }
            is_it
        });
        if was_open {
            if let Some(key) = key {
                *self.failed_key.lock() = Some(key.to_owned());
            }
            self.broken.notify_one();
        }
    }

    pub fn failed_key(&self) -> Option<String> {
        self.failed_key.lock().clone()
    }

    /// It is no node any more, for ever.
    pub fn is_gone(&self) {
        self.state.send_replace(State::Gone);
    }

    pub fn up(&self, batcher: Arc<Batcher>) {
        self.become_known(State::Up(self.connections.fetch_add(1, Ordering::Relaxed), batcher));
    }

    pub fn away(&self, why: Trouble) {
        self.become_known(State::Away(why));
    }

    fn become_known(&self, now: State) {
        self.state.send_if_modified(|state| {
            let is_part = !matches!(state, State::Gone);
            if is_part {
                *state = now;
            }
            is_part
        });
    }

    /// Returns when its connection is broken.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }
}

impl std::fmt::Display for NoConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoConnection::Away(why) => f.write_str(why),
            NoConnection::Gone => f.write_str("the cluster changes"),
        }
    }
}

impl State {
    fn known(&self) -> Option<Connected> {
        match self {
            State::Connecting => None,
            State::Up(id, batcher) => Some(Ok((*id, batcher.clone()))),
            State::Away(why) => Some(Err(NoConnection::Away(why.clone()))),
            State::Gone => Some(Err(NoConnection::Gone)),
        }
    }
}

/// Between two attempts to connect.
pub(in crate::ledger::shared) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Pause(RECONNECT.0)
    }
}

impl Pause {
    pub async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(RECONNECT.1);
    }
}

/// What connecting comes to, in the time that it may take.
pub(in crate::ledger::shared) async fn within_limit<T>(
    connecting: impl Future<Output = Result<T, String>>,
) -> Result<T, Trouble> {
    let connected = timeout(CONNECT, connecting).await;
    connected.unwrap_or_else(|_| Err("the server does not answer".to_owned())).map_err(Into::into)
}
