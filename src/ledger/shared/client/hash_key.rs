//! The key that recipients' addresses are hashed with: it belongs to the store, so that all daemons hash alike.
//!
//! It is the value of one Redis key, and the first daemon of all chooses it. In a Cluster that key lives on one node; so that
//! a daemon can start while that node is unreachable, each sixteenth of the slots has a copy. The key itself is
//! authoritative: a copy is only read by a daemon that does not know the value and cannot read the key, and is only written
//! by a daemon that has just read the key.
//!
//! Every daemon reads the key again every few seconds. If it is missing, because the server was emptied, the first one that
//! notices puts it back; if a daemon that had just started was faster, all others take over its value.

use super::connection::{Connection, text};
use super::error::{ConnectError, RESPONSE_TIMEOUT, RequestError};
use super::slots::{SLOTS, slot_of};
use super::topology::Topology;
use arc_swap::ArcSwap;
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// After the prefix. Its value also says whose data these are, and their version.
const KEY: &str = "store";
const VERSION: &str = "relaykeeper 1 ";

/// One for each sixteenth of the slots: every node with a contiguous eighth of the slots has a copy.
const COPIES: u16 = 16;
/// How many names are tried to find one in each sixteenth: a prefix with braces of its own has all of them in one slot.
const MAX_NAMES: u32 = 10_000;

pub(super) struct HashKey {
    key: String,
    copies: Vec<String>,
    /// Until it is read from the store: our own, which the store takes over if it has none.
    bytes: ArcSwap<[u8; 16]>,
    /// It was read from the store: from the key itself, or from a copy.
    is_known: AtomicBool,
    /// From the key itself.
    is_read: AtomicBool,
    /// All copies were there when they were last looked at.
    has_all_copies: AtomicBool,
}

/// What reading the key brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyReading {
    /// The key is on another server.
    Elsewhere,
    Found {
        /// It was not known, or was another one.
        is_news: bool,
        /// The server has lost its data since the key was last read.
        is_emptied: bool,
    },
}

impl HashKey {
    pub fn new(prefix: &str, own: [u8; 16]) -> HashKey {
        let key = format!("{prefix}{KEY}");
        let copies = names_of_copies(&key);
        HashKey {
            key,
            copies,
            bytes: ArcSwap::from_pointee(own),
            is_known: AtomicBool::new(false),
            is_read: AtomicBool::new(false),
            has_all_copies: AtomicBool::new(false),
        }
    }

    /// The Redis key.
    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn bytes(&self) -> Arc<[u8; 16]> {
        self.bytes.load_full()
    }

    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Reads it, or writes the one that we know if the store has none, provided that the key is on this server.
    ///
    /// # Errors
    /// The server's error, or the key is not ours.
    pub async fn read_or_create(&self, connection: &Connection) -> Result<KeyReading, ConnectError> {
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(encode(&self.bytes())).arg("NX");
        let Some(set) = query_if_owned(connection, &set).await? else { return Ok(KeyReading::Elsewhere) };
        let found = connection.query(redis::cmd("GET").arg(&self.key)).await?;
        let found = decode(&found).ok_or_else(|| ConnectError::ForeignHashKey(self.key.clone()))?;
        let (was_missing, was_known, before) = (set != Value::Nil, self.is_known(), self.bytes());
        let was_read = self.is_read.swap(true, Ordering::AcqRel);
        let is_emptied = (was_missing && was_known) || (was_read && *before != found);
        Ok(KeyReading::Found { is_news: self.set(found), is_emptied })
    }

    /// Reads it from the copies, as most of them have it. False: no reachable node has one.
    pub async fn read_from_copies(&self, topology: &Topology) -> bool {
        let mut times: HashMap<[u8; 16], usize> = HashMap::new();
        for (_, copy) in self.read_copies(topology).await {
            copy.into_iter().for_each(|copy| *times.entry(copy).or_default() += 1);
        }
        let most = times.into_iter().max_by_key(|(_, times)| *times);
        most.map(|(copy, _)| self.set(copy)).is_some()
    }

    /// Writes the copies that are missing or differ. Does nothing while the key's own node is unreachable. Whether a node has lost
    /// its copies, and so its data, since they were last looked at.
    pub async fn write_copies(&self, topology: &Topology) -> bool {
        let value = query(topology, &self.key, redis::cmd("GET").arg(&self.key)).await;
        let Some(bytes) = value.as_ref().and_then(decode) else { return false };
        let copies = self.read_copies(topology).await;
        let is_emptied = copies.iter().any(|(_, copy)| copy.is_none()) && self.has_all_copies.load(Ordering::Acquire);
        let mut good = 0;
        for (name, copy) in copies {
            let mut is_good = copy == Some(bytes);
            if !is_good {
                let mut set = redis::cmd("SET");
                set.arg(&name).arg(encode(&bytes));
                is_good = query(topology, &name, &set).await.is_some();
            }
            good += usize::from(is_good);
        }
        if is_emptied || good == self.copies.len() {
            self.has_all_copies.store(good == self.copies.len(), Ordering::Release);
        }
        is_emptied
    }

    /// The copies on reachable nodes, with their values.
    async fn read_copies(&self, topology: &Topology) -> Vec<(String, Option<[u8; 16]>)> {
        let mut reading = JoinSet::new();
        for name in &self.copies {
            if let Some(node) = topology.node_for(name) {
                let name = name.clone();
                reading.spawn(async move {
                    let (_, batcher) = node.connection(Instant::now() + RESPONSE_TIMEOUT).await.ok()?;
                    let mut get = redis::cmd("GET");
                    get.arg(&name);
                    let value = timeout(RESPONSE_TIMEOUT, batcher.connection().query(&get)).await.ok()?.ok()?;
                    Some((name, decode(&value)))
                });
            }
        }
        reading.join_all().await.into_iter().flatten().collect()
    }

    fn set(&self, bytes: [u8; 16]) -> bool {
        let before = self.bytes.swap(Arc::new(bytes));
        !self.is_known.swap(true, Ordering::AcqRel) || *before != bytes
    }
}

/// `None`: the key's node is unreachable, or its slot is migrating.
pub(super) async fn query(topology: &Topology, key: &str, command: &Cmd) -> Option<Value> {
    let (_, batcher) = topology.node_for(key)?.connection(Instant::now()).await.ok()?;
    timeout(RESPONSE_TIMEOUT, batcher.connection().query(command)).await.ok()?.ok()
}

/// `None`: the command's key is on another server.
pub(super) async fn query_if_owned(connection: &Connection, command: &Cmd) -> Result<Option<Value>, ConnectError> {
    match connection.query(command).await.map_err(RequestError::Redis) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.redirect().is_some() => Ok(None),
        Err(RequestError::Redis(error)) => Err(error.into()),
        Err(RequestError::TimedOut) => Err(ConnectError::TimedOut(RESPONSE_TIMEOUT)),
    }
}

/// For each sixteenth of the slots the first name whose slot lies there.
fn names_of_copies(key: &str) -> Vec<String> {
    let mut names = vec![None; usize::from(COPIES)];
    let mut missing = names.len();
    for name in (0..MAX_NAMES).map(|number| format!("{key}:{number}")) {
        let place = &mut names[usize::from(slot_of(&name) / (SLOTS / COPIES))];
        if place.is_none() {
            *place = Some(name);
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    names.into_iter().flatten().collect()
}

fn encode(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{VERSION}{hex}")
}

fn decode(value: &Value) -> Option<[u8; 16]> {
    let text = text(value)?;
    let hex = text.strip_prefix(VERSION)?;
    let mut bytes = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_up_to_eight_equal_nodes_has_a_copy() {
        let copies = names_of_copies("rk:store");
        assert_eq!(copies.len(), 16);
        for nodes in 1..=8 {
            let node_of = |name: &String| usize::from(slot_of(name)) * nodes / usize::from(SLOTS);
            let with_copy: std::collections::HashSet<_> = copies.iter().map(node_of).collect();
            assert_eq!(with_copy.len(), nodes);
        }
        assert_eq!(names_of_copies("{a}store").len(), 1);
    }

    #[test]
    fn only_what_was_encoded_is_decoded() {
        let bytes = std::array::from_fn(|place| place as u8 * 17);
        assert_eq!(encode(&bytes), "relaykeeper 1 00112233445566778899aabbccddeeff");
        assert_eq!(decode(&Value::BulkString(encode(&bytes).into())), Some(bytes));
        for other in ["relaykeeper 2 00112233445566778899aabbccddeeff", "relaykeeper 1 0", "", "relaykeeper 1 ä"] {
            assert_eq!(decode(&Value::BulkString(other.into())), None, "{other}");
        }
        assert_eq!(decode(&Value::Nil), None);
    }
}
