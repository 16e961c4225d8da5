//! Reads the servers' clocks: when a server is connected, and every few seconds from then on. With them, whether the server still
//! has the hash key.
//!
//! A server whose clock jumped is unreachable until its time is what the daemon expects, or the other daemons of the store
//! vouch for it. Between two readings the scripts themselves refuse to decide at another time than the daemon expects.
//!
//! The hash `rk:clock` says what daemons vouch for, so that new ones need not rely on their own clocks: the time of the last
//! accepted reading of each node (`HOST:PORT`; of a single server, `server`), in milliseconds. While counts are moved to a new
//! time, `HOST:PORT rebase` says by how much (see [`rebase`](crate::ledger::shared::rebase)).

use super::clock_line::{ClockLine, Reading, Witnesses, judge};
use super::connection::Connection;
use super::error::{ConnectError, RESPONSE_TIMEOUT};
use super::hash_key::{query, query_if_owned};
use super::manager::ConnectionManager;
use super::node::Node;
use super::slots::Address;
use crate::clock::Moment;
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// After the prefix.
const KEY: &str = "clock";

/// Half of the time for which a vouched time is believed.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the store knows of a node's clock.
#[derive(Clone, Debug, Default)]
pub(in crate::ledger::shared) struct ClockRecord {
    pub vouched: Option<Moment>,
    /// Its counts are being moved to a new time: by how many seconds, and under which name.
    pub rebase: Option<(i64, String)>,
}

/// Returns when a node's connection breaks, or its clock jumps, which breaks it.
pub(super) async fn broken_or_jumped(manager: &Weak<ConnectionManager>, node: &Node, address: Option<&Address>) {
    let mut tick = interval_at(Instant::now() + INTERVAL, INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.broken() => return,
            _ = tick.tick() => {}
        }
        let Some(manager) = manager.upgrade() else { return };
        let Ok((number, batcher)) = node.connection(Instant::now()).await else { continue };
        let checked = timeout(2 * RESPONSE_TIMEOUT, manager.check_clock(batcher.connection(), node, address)).await;
        // Whatever else is wrong, requests find out.
        if let Ok(Err(ConnectError::Clock(_) | ConnectError::Rebasing)) = checked {
            node.connection_failed(number, None);
        }
        let _ = timeout(2 * RESPONSE_TIMEOUT, manager.read_hash_key_again(batcher.connection())).await;
    }
}

impl ConnectionManager {
    /// Reads a node's clock, and vouches for it if it is believed.
    ///
    /// # Errors
    /// It is not believed, or cannot be read.
    pub(super) async fn check_clock(
        &self,
        connection: &Connection,
        node: &Node,
        address: Option<&Address>,
    ) -> Result<(), ConnectError> {
        let reading = self.read_clock(connection).await?;
        let line = self.clock().line_of(&node.clock);
        if line.is_none_or(|line| line.deviation(reading).is_some()) {
            // A node that does not respond vouches for nothing.
            let record = self.clock_record(connection, address).await;
            let unknown = ClockRecord { vouched: Some(Moment(0)), rebase: None };
            let record = record.unwrap_or(unknown);
            if record.rebase.is_some() {
                return Err(ConnectError::Rebasing);
            }
            let witnesses = Witnesses { vouched: record.vouched, wall: self.clock().time.wall() };
            if let Err(deviation) = judge(line, reading, witnesses) {
                *node.clock_deviation.lock() = Some(deviation);
                return Err(ConnectError::Clock(deviation));
            }
        }
        *node.clock_deviation.lock() = None;
        self.clock().follow(&node.clock, ClockLine::from(reading));
        // If that fails, new daemons have one witness less.
        let _ = self.vouch(connection, address, reading.server).await;
        Ok(())
    }

    pub(in crate::ledger::shared) async fn read_clock(&self, connection: &Connection) -> Result<Reading, ConnectError> {
        let time = &self.clock().time;
        let before = time.elapsed();
        let response = connection.query(&redis::cmd("TIME")).await?;
        let malformed = || ConnectError::Sentinel("the server's response to TIME is malformed".to_owned());
        let server = time.parse(&response).ok_or_else(malformed)?;
        Ok(Reading { server, before, after: time.elapsed() })
    }

    /// `None`: the node that has it is unreachable.
    pub(in crate::ledger::shared) async fn clock_record(
        &self,
        connection: &Connection,
        address: Option<&Address>,
    ) -> Option<ClockRecord> {
        let mut get = redis::cmd("HGETALL");
        get.arg(self.clock_key());
        let fields: HashMap<String, String> =
            redis::from_redis_value(self.at_clock_key(connection, &get).await?).ok()?;
        let moment = |text: &String| text.parse().ok().map(Moment);
        // A node that has just become a master is vouched for by the others.
        let vouched = fields.get(&field(address)).and_then(moment);
        let vouched = vouched.or_else(|| fields.values().filter_map(moment).max());
        let rebase = fields.get(&rebase_field(address)).and_then(|rebase| {
            let (by, name) = rebase.split_once(' ')?;
            Some((by.parse().ok()?, name.to_owned()))
        });
        Some(ClockRecord { vouched, rebase })
    }

    /// Notes that a node's clock showed the right time just now. `None`: the node that has the key is unreachable, or refuses.
    pub(in crate::ledger::shared) async fn vouch(
        &self,
        connection: &Connection,
        address: Option<&Address>,
        server: Moment,
    ) -> Option<()> {
        let mut set = redis::cmd("HSET");
        set.arg(self.clock_key()).arg(field(address)).arg(server.0);
        timeout(RESPONSE_TIMEOUT, self.at_clock_key(connection, &set)).await.ok().flatten().map(drop)
    }

    /// Notes that a node's counts are being moved; `None`: they have been.
    pub(in crate::ledger::shared) async fn note_rebase(
        &self,
        connection: &Connection,
        address: Option<&Address>,
        rebase: Option<(i64, &str)>,
    ) -> Option<()> {
        let (key, field) = (self.clock_key(), rebase_field(address));
        let command = match rebase {
            Some((by, name)) => redis::cmd("HSET").arg(key).arg(field).arg(format!("{by} {name}")).to_owned(),
            None => redis::cmd("HDEL").arg(key).arg(field).to_owned(),
        };
        self.at_clock_key(connection, &command).await.map(drop)
    }

    fn clock_key(&self) -> String {
        format!("{}{KEY}", self.prefix())
    }

    /// Runs a command on this connection if its server has the key, else on the node that has it.
    async fn at_clock_key(&self, connection: &Connection, command: &Cmd) -> Option<Value> {
        match query_if_owned(connection, command).await {
            Ok(Some(value)) => Some(value),
            Ok(None) => query(&self.topology(), &self.clock_key(), command).await,
            Err(_) => None,
        }
    }
}

fn field(address: Option<&Address>) -> String {
    address.map_or_else(|| "server".to_owned(), |(host, port)| format!("{host}:{port}"))
}

fn rebase_field(address: Option<&Address>) -> String {
    format!("{} rebase", field(address))
}
