//! One connection to one server, and what can go wrong with a request.

use crate::ledger::shared::protocol::scripts;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long an answer may take.
pub(in crate::ledger::shared) const TRY: Duration = Duration::from_secs(1);

/// A connection that everybody shares: requests are sent as they come, without waiting for earlier answers.
#[derive(Clone)]
pub(in crate::ledger::shared) struct Connection(MultiplexedConnection);

impl Connection {
    pub fn new(connection: MultiplexedConnection) -> Connection {
        Connection(connection)
    }

    pub async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        self.send(command).await.and_then(Value::extract_error)
    }

    /// Errors of the server may be in the answer.
    pub async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.0.clone().send_packed_command(command).await
    }

    /// As [`Connection::send`], of a slot that is on its way to this node (Redis Cluster specification, "ASK redirection").
    pub async fn send_for_moving_slot(&self, command: &Cmd) -> RedisResult<Value> {
        let mut both = redis::Pipeline::with_capacity(2);
        both.add_command(redis::cmd("ASKING")).add_command(command.clone());
        let answers = self.0.clone().send_packed_commands(&both, 1, 1).await?;
        Ok(answers.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Has the server know the scripts: requests then arrive in the order in which they were asked. One that does not let us
    /// is told each script with the request.
    pub async fn load_scripts(&self) {
        for command in scripts::load() {
            let _ = self.ask(&command).await;
        }
    }

    /// What the server evicts when its memory is used up, if it is anything: `maxmemory-policy`. `None` also if the user may
    /// not ask.
    pub async fn evicts(&self) -> Option<String> {
        let text = text(&self.ask(redis::cmd("INFO").arg("memory")).await.ok()?)?;
        let policy = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim();
        (policy != "noeviction").then(|| policy.to_owned())
    }
}

/// What became of one attempt.
pub(in crate::ledger::shared) enum RequestError {
    Error(RedisError),
    NoAnswer,
}

/// What the server says of itself with the answer: it takes nothing now, and says so at once.
const REFUSES: [&str; 2] = ["NOREPLICAS", "MISCONF"];

impl RequestError {
    /// Waits for an answer, but not too long.
    pub async fn or(
        deadline: Instant,
        answer: impl Future<Output = RedisResult<Value>>,
    ) -> Result<Value, RequestError> {
        match timeout_at(deadline.min(Instant::now() + TRY), answer).await {
            Ok(answer) => answer.map_err(RequestError::Error),
            Err(_) => Err(RequestError::NoAnswer),
        }
    }

    /// Where a slot is, and whether only this request is to go there; `None`: that is not what is wrong.
    pub fn redirect(&self) -> Option<(&str, bool)> {
        let RequestError::Error(error) = self else { return None };
        let (address, _) = error.redirect_node()?;
        Some((address, self.is(ServerErrorKind::Ask)))
    }

    /// Asking again would not help.
    pub fn is_final(&self) -> bool {
        let RequestError::Error(error) = self else { return false };
        match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => false,
            // A slot that belongs to nobody.
            ErrorKind::Server(ServerErrorKind::ClusterDown) => {
                error.detail().is_some_and(|words| words.starts_with("Hash slot not served"))
            }
            ErrorKind::Server(kind) => !matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
            ),
            ErrorKind::Extension => !self.refuses(),
            _ => true,
        }
    }

    /// The server is as good as away; another connection, or another server, may help.
    pub fn breaks(&self) -> bool {
        let RequestError::Error(error) = self else { return true };
        let server = [
            ServerErrorKind::BusyLoading,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::MasterDown,
            ServerErrorKind::ClusterDown,
        ];
        let says_so = server.into_iter().any(|kind| self.is(kind)) && !self.is_final();
        error.is_io_error() || says_so || self.refuses()
    }

    /// Some keys of the request may be on another server, because their slot is on its way there.
    pub fn slot_moves(&self) -> bool {
        self.is(ServerErrorKind::TryAgain)
    }

    pub fn in_words(&self) -> String {
        match self {
            RequestError::Error(error) => in_words(error),
            RequestError::NoAnswer => "the server does not answer".to_owned(),
        }
    }

    fn is(&self, kind: ServerErrorKind) -> bool {
        matches!(self, RequestError::Error(error) if error.kind() == ErrorKind::Server(kind))
    }

    /// `min-replicas-to-write`, and a disk that the server cannot write.
    fn refuses(&self) -> bool {
        matches!(self, RequestError::Error(error) if error.code().is_some_and(|code| REFUSES.contains(&code)))
    }
}

/// The server does not know the command, or is configured not to.
pub(in crate::ledger::shared) fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|words| words.starts_with("unknown command"))
}

/// On one line.
pub(in crate::ledger::shared) fn in_words(error: &RedisError) -> String {
    error.to_string().replace(['\r', '\n'], " ")
}

pub(in crate::ledger::shared) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}
