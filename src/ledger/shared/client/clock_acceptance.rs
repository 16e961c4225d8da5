//! A node whose clock is not believed, for an administrator who believes it.

use super::batch::Batcher;
use super::clock_check::ClockRecord;
use super::clock_line::{Deviation, direction};
use super::error::ConnectError;
use super::manager::ConnectionManager;
use super::node::with_connect_timeout;
use super::store_clock::NodeClock;
use super::topology::ManagedNode;
use crate::ledger::StoreError;
use std::sync::Arc;
use tokio::time::Instant;

pub(in crate::ledger::shared) struct UnbelievedNode {
    manager: Arc<ConnectionManager>,
    managed: Arc<ManagedNode>,
    /// A connection on which requests are served at any time.
    batcher: Arc<Batcher>,
    by_seconds: i64,
    rebase_name: String,
}

impl UnbelievedNode {
    /// Looks at a node's clock. If it is not believed, the store is told that what it has counted is being moved; if that was
    /// begun before, as it was then.
    ///
    /// # Errors
    /// The node, or the one that has `rk:clock`, cannot be reached.
    pub(super) async fn look_at(
        manager: &Arc<ConnectionManager>,
        managed: &Arc<ManagedNode>,
    ) -> Result<Option<UnbelievedNode>, StoreError> {
        let (node, address) = (&managed.node, managed.address.as_ref());
        // What else is wrong with a node is no matter of its clock.
        let connected = match with_connect_timeout(manager.connect_again(managed)).await {
            Err(_) if node.clock_deviation.lock().is_none() => return Ok(None),
            connected => connected?,
        };
        let deviation = match manager.check_clock(&connected, node, address).await {
            Ok(()) => return Ok(None),
            Err(ConnectError::Clock(deviation)) => Some(deviation),
            Err(ConnectError::Rebasing) => None,
            Err(error) => return Err(error.into()),
        };
        // Nobody uses it meanwhile, not even who has not noticed yet.
        if let Ok((number, _)) = node.connection(Instant::now()).await {
            node.connection_failed(number, None);
        }
        let unreachable = || StoreError::transient("the node with the key rk:clock is unreachable");
        let record = manager.clock_record(&connected, address).await.ok_or_else(unreachable)?;
        let (by_seconds, rebase_name) = match (record, deviation) {
            (ClockRecord { rebase: Some(begun), .. }, _) => begun,
            (_, deviation) => (deviation.map_or(0, Deviation::seconds), new_name()?),
        };
        let noted = manager.note_rebase(&connected, address, Some((by_seconds, &rebase_name))).await;
        noted.ok_or_else(unreachable)?;
        // A clock of its own, of which nothing is expected.
        let batcher = Arc::new(Batcher::new(connected, true, (manager.shared_clock(), Arc::<NodeClock>::default())));
        let (manager, managed) = (manager.clone(), managed.clone());
        Ok(Some(UnbelievedNode { manager, managed, batcher, by_seconds, rebase_name }))
    }

    pub fn batcher(&self) -> &Arc<Batcher> {
        &self.batcher
    }

    pub fn by_seconds(&self) -> i64 {
        self.by_seconds
    }

    /// `forward by 1 h 0 min`
    pub fn by(&self) -> String {
        direction(self.by_seconds)
    }

    pub fn rebase_name(&self) -> &str {
        &self.rebase_name
    }

    /// Host and port.
    pub fn name(&self) -> String {
        self.managed.address.as_ref().map_or_else(|| "the server".to_owned(), |(host, port)| format!("{host}:{port}"))
    }

    /// All of its accounts were moved: from now on its time is right, for all daemons.
    ///
    /// # Errors
    /// It cannot be reached, or the store cannot be told.
    pub async fn accept(&self) -> Result<(), StoreError> {
        let (connection, address) = (self.batcher.connection(), self.managed.address.as_ref());
        let reading = self.manager.read_clock(connection).await?;
        let unreachable = || StoreError::transient("the node with the key rk:clock is unreachable");
        self.manager.vouch(connection, address, reading.server).await.ok_or_else(unreachable)?;
        self.manager.note_rebase(connection, address, None).await.ok_or_else(unreachable)
    }
}

fn new_name() -> Result<String, StoreError> {
    let mut bytes = [0; 8];
    let read =
        std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.map_err(|error| StoreError::transient(format!("/dev/urandom: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
