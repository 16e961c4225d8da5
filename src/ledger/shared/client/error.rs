//! What can go wrong between the daemon and a server.

use super::clock_line::Deviation;
use crate::ledger::StoreError;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long one attempt waits for a response.
pub(in crate::ledger::shared) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{}", one_line(.0))]
    Redis(#[source] RedisError),
    #[error("timed out after {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("{0} is too old: it must be Redis 7.0 or newer, or Valkey")]
    TooOld(String),
    #[error("it is a replica")]
    Replica,
    #[error("it is a cluster node without slots")]
    NoSlots,
    #[error("the server runs no scripts: it does not know EVALSHA")]
    NoScripts,
    /// Of a sentinel.
    #[error("{0}")]
    Sentinel(String),
    #[error("{0}: the key is used by another version of relaykeeper, or by another program")]
    ForeignHashKey(String),
    #[error("{reason}; it holds the key {key}, which is needed to count anything, and no reachable node has a copy")]
    NoHashKey { key: String, reason: StoreError },
    #[error("{0}")]
    Clock(Deviation),
    #[error(
        "what it has counted is being moved to its new time: if that was interrupted, run \"relaykeeper quota reset --clock\" again"
    )]
    Rebasing,
    #[error("{address}: {error}")]
    At { address: String, error: Box<ConnectError> },
    /// One for each server of `store.urls`.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    All(Vec<ConnectError>),
}

impl ConnectError {
    pub fn at(self, address: impl ToString) -> ConnectError {
        ConnectError::At { address: address.to_string(), error: Box::new(self) }
    }

    /// Whether a later attempt may succeed without anybody's help.
    fn is_transient(&self) -> bool {
        match self {
            ConnectError::TooOld(_) | ConnectError::NoScripts | ConnectError::ForeignHashKey(_) => false,
            ConnectError::At { error, .. } => error.is_transient(),
            ConnectError::All(errors) => errors.iter().any(ConnectError::is_transient),
            _ => true,
        }
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> ConnectError {
        ConnectError::Redis(error)
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> StoreError {
        let (message, is_transient) = (error.to_string(), error.is_transient());
        StoreError::caused_by(error, message, is_transient)
    }
}

/// Why one attempt got no usable response.
#[derive(Debug, thiserror::Error)]
pub(in crate::ledger::shared) enum RequestError {
    /// What the server said, or what broke the connection.
    #[error("{}", one_line(.0))]
    Redis(#[source] RedisError),
    #[error("no response within {} s", RESPONSE_TIMEOUT.as_secs())]
    TimedOut,
}

/// The server accepts no writes at the moment: `min-replicas-to-write`, or a disk that it cannot write.
const REJECTS_WRITES: [&str; 2] = ["NOREPLICAS", "MISCONF"];

/// A script's answer if the server's clock is not where the daemon expects it (scripts/clock_check.lua).
const CLOCK_JUMPED: &str = "CLOCK";

impl RequestError {
    /// Waits for a response until the deadline, but at most [`RESPONSE_TIMEOUT`].
    pub async fn within(
        deadline: Instant,
        response: impl Future<Output = RedisResult<Value>>,
    ) -> Result<Value, RequestError> {
        match timeout_at(deadline.min(Instant::now() + RESPONSE_TIMEOUT), response).await {
            Ok(response) => response.map_err(RequestError::Redis),
            Err(_) => Err(RequestError::TimedOut),
        }
    }

    /// Where the slot is, and whether that holds for this request only (ASK) or from now on (MOVED). `None`: it is another error.
    pub fn redirect(&self) -> Option<(&str, bool)> {
        let RequestError::Redis(error) = self else { return None };
        let (address, _) = error.redirect_node()?;
        Some((address, self.is(ServerErrorKind::Ask)))
    }

    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        let RequestError::Redis(error) = self else { return true };
        match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => true,
            // It also says so of a slot that no node serves; that stays so.
            ErrorKind::Server(ServerErrorKind::ClusterDown) => {
                error.detail().is_none_or(|detail| !detail.starts_with("Hash slot not served"))
            }
            ErrorKind::Server(kind) => matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
            ),
            ErrorKind::Extension => self.rejects_writes() || self.clock_jumped(),
            _ => false,
        }
    }

    /// Whether the node counts as unreachable: another connection, or another node, may help.
    pub fn node_is_unusable(&self) -> bool {
        let RequestError::Redis(error) = self else { return true };
        let states = [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::MasterDown,
            ServerErrorKind::ClusterDown,
        ];
        let is_such_a_state = states.into_iter().any(|kind| self.is(kind)) && self.is_transient();
        error.is_io_error() || is_such_a_state || self.rejects_writes() || self.clock_jumped()
    }

    /// Some keys of the request may already be on another node: their slot is migrating (TRYAGAIN).
    pub fn slot_is_migrating(&self) -> bool {
        self.is(ServerErrorKind::TryAgain)
    }

    fn is(&self, kind: ServerErrorKind) -> bool {
        matches!(self, RequestError::Redis(error) if error.kind() == ErrorKind::Server(kind))
    }

    /// Or the request was on its way for too long. A new connection finds out.
    fn clock_jumped(&self) -> bool {
        matches!(self, RequestError::Redis(error) if error.code() == Some(CLOCK_JUMPED))
    }

    fn rejects_writes(&self) -> bool {
        matches!(self, RequestError::Redis(error) if error.code().is_some_and(|code| REJECTS_WRITES.contains(&code)))
    }
}

impl From<RequestError> for StoreError {
    fn from(error: RequestError) -> StoreError {
        let (message, is_transient) = (error.to_string(), error.is_transient());
        StoreError::caused_by(error, message, is_transient)
    }
}

/// The server does not know the command, or is configured not to.
pub(super) fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with("unknown command"))
}

/// An error's text without line breaks, for a log.
pub(in crate::ledger::shared) fn one_line(error: &RedisError) -> String {
    error.to_string().replace(['\r', '\n'], " ")
}
