//! What recipients' addresses are hashed with: a secret of the store, so that all daemons know a recipient by the same name.
//!
//! It lies in one key, and the first daemon of all decides what it is. In a Cluster that key is in one node; so that a daemon
//! can start while that node is away, each sixteenth of the slots has a copy. What the key says holds: a copy is asked only by
//! who knows no secret yet and cannot ask for the key, and is written only by who has just read the key.

use super::connection::{Connection, RequestError, TRY, in_words, text};
use super::slots::{SLOTS, slot_of};
use super::topology::Topology;
use arc_swap::ArcSwap;
use redis::{Cmd, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// After the prefix. The key usage_report whose data these are, too, and their version.
const KEY: &str = "store";
const VERSION: &str = "relaykeeper 1 ";

/// One for each sixteenth of the slots: whoever has an eighth in one piece has a copy.
const COPIES: u16 = 16;
/// So many names are tried for all copies: a prefix with braces of its own has all of them in one slot.
const NAMES: u32 = 10_000;

pub(in crate::ledger::shared) struct HashKey {
    key: String,
    copies: Vec<String>,
    /// Until the store told its own: ours, which becomes the store's if it is the first.
    bytes: ArcSwap<[u8; 16]>,
    /// The store told it: the key itself, or a copy.
    is_known: AtomicBool,
}

impl HashKey {
    pub fn new(prefix: &str, own: [u8; 16]) -> HashKey {
        let key = format!("{prefix}{KEY}");
        let copies = names_of_copies(&key);
        HashKey { key, copies, bytes: ArcSwap::from_pointee(own), is_known: AtomicBool::new(false) }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn bytes(&self) -> Arc<[u8; 16]> {
        self.bytes.load_full()
    }

    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Learns or decides what it is, if the key is on this server. Whether that is news.
    ///
    /// # Errors
    /// What the server says, or that the key is not ours.
    pub async fn settle(&self, connection: &Connection) -> Result<bool, String> {
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(written(&self.bytes())).arg("NX");
        if takes(connection, &set).await?.is_none() {
            return Ok(false);
        }
        let found = connection.ask(redis::cmd("GET").arg(&self.key)).await.map_err(|error| in_words(&error))?;
        let key = &self.key;
        let found = read(&found)
            .ok_or_else(|| format!("{key}: another version of relaykeeper, or another program, uses it"))?;
        Ok(self.learn(found))
    }

    /// Learns it from the copies, as most of them have it. False: none of the nodes that are there has one.
    pub async fn settle_by_copies(&self, topology: &Topology) -> bool {
        let mut times: HashMap<[u8; 16], usize> = HashMap::new();
        for (_, copy) in self.read_copies(topology).await {
            copy.into_iter().for_each(|copy| *times.entry(copy).or_default() += 1);
        }
        let most = times.into_iter().max_by_key(|(_, times)| *times);
        most.map(|(copy, _)| self.learn(copy)).is_some()
    }

    /// Has each node that is there keep its copies of what the key says. Does nothing while the key's node is away.
    pub async fn copy(&self, topology: &Topology) {
        let Some(bytes) = get(topology, &self.key).await else { return };
        for (name, copy) in self.read_copies(topology).await {
            if copy != Some(bytes) {
                let mut set = redis::cmd("SET");
                set.arg(&name).arg(written(&bytes));
                let _ = ask(topology, &name, &set).await;
            }
        }
    }

    /// Those of nodes that are there, each with what it says.
    async fn read_copies(&self, topology: &Topology) -> Vec<(String, Option<[u8; 16]>)> {
        let mut asked = JoinSet::new();
        for name in &self.copies {
            if let Some(node) = topology.node_for(name) {
                let name = name.clone();
                asked.spawn(async move {
                    let (_, batcher) = node.connection(Instant::now() + TRY).await.ok()?;
                    let answer =
                        timeout(TRY, batcher.connection().ask(redis::cmd("GET").arg(&name))).await.ok()?.ok()?;
                    Some((name, read(&answer)))
                });
            }
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    fn learn(&self, bytes: [u8; 16]) -> bool {
        let before = self.bytes.swap(Arc::new(bytes));
        !self.is_known.swap(true, Ordering::AcqRel) || *before != bytes
    }
}

async fn get(topology: &Topology, name: &str) -> Option<[u8; 16]> {
    read(&ask(topology, name, redis::cmd("GET").arg(name)).await?)
}

/// `None`: its node is away, or the key is on its way to another.
async fn ask(topology: &Topology, name: &str, command: &Cmd) -> Option<Value> {
    let (_, batcher) = topology.node_for(name)?.connection(Instant::now()).await.ok()?;
    timeout(TRY, batcher.connection().ask(command)).await.ok()?.ok()
}

/// Whether the server takes a command. `None`: the key is on another.
pub(in crate::ledger::shared) async fn takes(connection: &Connection, command: &Cmd) -> Result<Option<Value>, String> {
    match connection.ask(command).await.map_err(RequestError::Error) {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.redirect().is_some() => Ok(None),
        Err(failure) => Err(failure.in_words()),
    }
}

/// For each of as many ranges of slots the first name that lies there.
fn names_of_copies(key: &str) -> Vec<String> {
    let mut names = vec![None; usize::from(COPIES)];
    let mut left = names.len();
    for name in (0..NAMES).map(|number| format!("{key}:{number}")) {
        let place = &mut names[usize::from(slot_of(&name) / (SLOTS / COPIES))];
        if place.is_none() {
            *place = Some(name);
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    names.into_iter().flatten().collect()
}

fn written(secret: &[u8; 16]) -> String {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{VERSION}{hex}")
}

fn read(value: &Value) -> Option<[u8; 16]> {
    let text = text(value)?;
    let hex = text.strip_prefix(VERSION)?;
    let mut secret = [0; 16];
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    for (place, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_up_to_eight_equal_parts_has_a_copy() {
        let copies = names_of_copies("rk:store");
        assert_eq!(copies.len(), 16);
        for nodes in 1..=8 {
            let of_part = |name: &String| usize::from(slot_of(name)) * nodes / usize::from(SLOTS);
            let with_copy: std::collections::HashSet<_> = copies.iter().map(of_part).collect();
            assert_eq!(with_copy.len(), nodes);
        }
        assert_eq!(names_of_copies("{a}store").len(), 1);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let secret = std::array::from_fn(|place| place as u8 * 17);
        assert_eq!(written(&secret), "relaykeeper 1 00112233445566778899aabbccddeeff");
        assert_eq!(read(&Value::BulkString(written(&secret).into())), Some(secret));
        for other in ["relaykeeper 2 00112233445566778899aabbccddeeff", "relaykeeper 1 0", "", "relaykeeper 1 ä"] {
            assert_eq!(read(&Value::BulkString(other.into())), None, "{other}");
        }
        assert_eq!(read(&Value::Nil), None);
    }
}
