//! One connection to one server.

use crate::ledger::shared::protocol::scripts;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};

/// How long an account's keys live, as in scripts/accounts.lua: seconds.
const PLACE_TTL: u32 = 180_000;

/// A multiplexed connection: requests are written as they come, without waiting for earlier responses.
#[derive(Clone)]
pub(in crate::ledger::shared) struct Connection(MultiplexedConnection);

impl Connection {
    pub fn new(connection: MultiplexedConnection) -> Connection {
        Connection(connection)
    }

    /// # Errors
    /// The connection broke, or the server answered with an error.
    pub async fn query(&self, command: &Cmd) -> RedisResult<Value> {
        self.send(command).await.and_then(Value::extract_error)
    }

    /// As [`Connection::query`], but a server's error may be in the value.
    pub async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.0.clone().send_packed_command(command).await
    }

    /// As [`Connection::send`], for a slot that is migrating to this node (Redis Cluster specification, "ASK redirection").
    pub async fn send_asking(&self, command: &Cmd) -> RedisResult<Value> {
        let mut both = redis::Pipeline::with_capacity(2);
        both.add_command(redis::cmd("ASKING")).add_command(command.clone());
        let responses = self.0.clone().send_packed_commands(&both, 1, 1).await?;
        Ok(responses.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Creates those of some accounts' keys that do not exist, each account's first one and its second one, on the node that their
    /// slot is migrating to: it would not run a script about them otherwise. Scripts take an account whose first key is empty for
    /// one that does not exist.
    ///
    /// # Errors
    /// The connection broke, or the server refused one of them.
    pub async fn hold_places(&self, keys: &[String]) -> RedisResult<()> {
        let mut all = redis::Pipeline::with_capacity(3 * keys.len());
        let mut add = |command: &Cmd| {
            all.add_command(redis::cmd("ASKING")).add_command(command.clone());
        };
        for account in keys.chunks(2) {
            add(redis::cmd("SET").arg(&account[0]).arg("").arg("NX").arg("EX").arg(PLACE_TTL));
            for second in &account[1..] {
                // No script uses a field without a name.
                add(redis::cmd("HSET").arg(second).arg("").arg(""));
                add(redis::cmd("EXPIRE").arg(second).arg(PLACE_TTL));
            }
        }
        let responses = self.0.clone().send_packed_commands(&all, 0, all.len()).await?;
        responses.into_iter().try_for_each(|response| response.extract_error().map(drop))
    }

    /// Loads the scripts, so that requests are served in the order in which they were sent. A server that does not allow
    /// SCRIPT LOAD gets each script's text with its first request.
    pub async fn load_scripts(&self) {
        for command in scripts::load() {
            let _ = self.query(&command).await;
        }
    }

    /// `maxmemory-policy`, if the server evicts keys when its memory is full. `None` also if the user may not ask.
    pub async fn eviction_policy(&self) -> Option<String> {
        let info = text(&self.query(redis::cmd("INFO").arg("memory")).await.ok()?)?;
        let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim();
        (policy != "noeviction").then(|| policy.to_owned())
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}
