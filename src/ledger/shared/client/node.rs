//! A node: the one server, or a master of a Cluster. Once it cannot be reached, requests to it fail at once (a circuit
//! breaker), while a task of its own tries again and again to connect.

use super::batch::Batcher;
use super::clock_line::Deviation;
use super::error::ConnectError;
use super::store_clock::NodeClock;
use crate::ledger::StoreError;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a new connection may take, greeting included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two attempts to connect: first and longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

pub(in crate::ledger::shared) struct Node {
    state: watch::Sender<State>,
    broken: Notify,
    /// Numbers the connections.
    connections: AtomicU64,
    /// A key of the request that failed: a new connection is probed with it.
    failed_key: Mutex<Option<String>>,
    /// What an administrator should change at the server.
    pub advice: Mutex<Option<String>>,
    /// What its clock must show.
    pub clock: Arc<NodeClock>,
    /// Why its clock is not believed, if that makes it unreachable.
    pub clock_deviation: Mutex<Option<Deviation>>,
}

#[derive(Clone)]
enum State {
    Connecting,
    Up(u64, Arc<Batcher>),
    Unreachable(StoreError),
    /// No longer part of the topology.
    Removed,
}

/// The connection and its number.
pub(in crate::ledger::shared) type Connected = Result<(u64, Arc<Batcher>), NoConnection>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::ledger::shared) enum NoConnection {
    #[error("{0}")]
    Unreachable(StoreError),
    /// The node is no longer part of the topology: the request must go elsewhere.
    #[error("the cluster's topology is changing")]
    Removed,
}

impl From<NoConnection> for StoreError {
    fn from(error: NoConnection) -> StoreError {
        match error {
            NoConnection::Unreachable(error) => error,
            NoConnection::Removed => StoreError::transient(error.to_string()),
        }
    }
}

impl Node {
    pub fn new() -> Node {
        Node {
            state: watch::Sender::new(State::Connecting),
            broken: Notify::new(),
            connections: AtomicU64::new(0),
            failed_key: Mutex::default(),
            advice: Mutex::default(),
            clock: Arc::default(),
            clock_deviation: Mutex::default(),
        }
    }

    /// The connection; while it is being made, it is waited for.
    pub async fn connection(&self, deadline: Instant) -> Connected {
        if let Some(known) = self.state.borrow().known() {
            return known;
        }
        let mut state = self.state.subscribe();
        let none = || Err(NoConnection::Unreachable(StoreError::transient("no connection to the server yet")));
        match timeout_at(deadline, state.wait_for(|state| !matches!(state, State::Connecting))).await {
            Ok(Ok(state)) => state.known().unwrap_or_else(none),
            _ => none(),
        }
    }

    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(..))
    }

    pub fn is_connecting(&self) -> bool {
        matches!(*self.state.borrow(), State::Connecting)
    }

    /// Why it is known to be unreachable. Requests to it then fail at once.
    pub fn unreachable(&self) -> Option<StoreError> {
        match &*self.state.borrow() {
            State::Unreachable(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// A request failed on this connection; `key` is one of its keys, if it was a script's.
    pub fn connection_failed(&self, connection: u64, key: Option<&str>) {
        let was_open = self.state.send_if_modified(|state| {
            let is_current = matches!(state, State::Up(current, _) if *current == connection);
            if is_current {
                *state = State::Connecting;
            }
            is_current
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

    pub fn remove(&self) {
        self.state.send_replace(State::Removed);
    }

    pub fn set_up(&self, batcher: Arc<Batcher>) {
        self.set(State::Up(self.connections.fetch_add(1, Ordering::Relaxed), batcher));
    }

    pub fn set_unreachable(&self, error: StoreError) {
        self.set(State::Unreachable(error));
    }

    /// Nothing happens to a node that was removed.
    fn set(&self, new: State) {
        self.state.send_if_modified(|state| {
            let is_used = !matches!(state, State::Removed);
            if is_used {
                *state = new;
            }
            is_used
        });
    }

    /// Returns when its connection breaks.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }
}

impl State {
    fn known(&self) -> Option<Connected> {
        match self {
            State::Connecting => None,
            State::Up(number, batcher) => Some(Ok((*number, batcher.clone()))),
            State::Unreachable(error) => Some(Err(NoConnection::Unreachable(error.clone()))),
            State::Removed => Some(Err(NoConnection::Removed)),
        }
    }
}

/// The growing pause between attempts to connect.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Backoff(RECONNECT.0)
    }
}

impl Backoff {
    pub async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(RECONNECT.1);
    }
}

/// Limits how long an attempt to connect may take.
pub(super) async fn with_connect_timeout<T>(
    connecting: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(ConnectError::TimedOut(CONNECT_TIMEOUT)))
}
