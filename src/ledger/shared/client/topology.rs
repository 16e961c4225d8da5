//! The topology: which nodes there are, and which of them owns which slot.

use super::node::Node;
use super::slots::{Address, SLOTS, SlotMap, slot_of};
use std::sync::Arc;
use tokio::task::AbortHandle;

pub(in crate::ledger::shared) struct Topology {
    pub nodes: Vec<Arc<ManagedNode>>,
    /// The number of each slot's owner; empty for a single server, which owns all.
    owners: Vec<u16>,
}

/// A node and the task that keeps it connected.
pub(in crate::ledger::shared) struct ManagedNode {
    pub node: Arc<Node>,
    /// `None` for a single server: `store.urls` says where it is.
    pub address: Option<Address>,
    pub task: Option<AbortHandle>,
}

impl ManagedNode {
    /// Removes it from the topology: whoever waits for it goes elsewhere.
    pub fn remove(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.node.remove();
    }
}

impl Drop for ManagedNode {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Topology {
    /// One server, or nothing known yet.
    pub fn single() -> Topology {
        let one = ManagedNode { node: Arc::new(Node::new()), address: None, task: None };
        Topology { nodes: vec![Arc::new(one)], owners: Vec::new() }
    }

    /// A Cluster. Nodes that stay keep their connections; `connect` makes the new ones.
    pub fn of_cluster(before: &Topology, slots: &SlotMap, connect: impl Fn(&Address) -> ManagedNode) -> Topology {
        let (mut nodes, mut owners) = (Vec::<Arc<ManagedNode>>::new(), vec![u16::MAX; SLOTS.into()]);
        for (first, last, address) in &slots.0 {
            let number = number_of(&nodes, address).unwrap_or_else(|| {
                let known = number_of(&before.nodes, address).map(|number| before.nodes[number].clone());
                nodes.push(known.unwrap_or_else(|| Arc::new(connect(address))));
                nodes.len() - 1
            });
            let range = owners.get_mut(usize::from(*first)..=usize::from(*last)).unwrap_or_default();
            range.fill(number as u16);
        }
        Topology { nodes, owners }
    }

    /// The same topology with one more node, unless it is there already; and that node. It gets the slot, if one is named.
    pub fn with_node(
        &self,
        address: &Address,
        slot: Option<u16>,
        connect: impl Fn(&Address) -> ManagedNode,
    ) -> (Topology, Arc<Node>) {
        let (mut nodes, mut owners) = (self.nodes.clone(), self.owners.clone());
        let number = number_of(&nodes, address).unwrap_or_else(|| {
            nodes.push(Arc::new(connect(address)));
            nodes.len() - 1
        });
        if let Some(owner) = slot.and_then(|slot| owners.get_mut(usize::from(slot))) {
            *owner = number as u16;
        }
        let node = nodes[number].node.clone();
        (Topology { nodes, owners }, node)
    }

    pub fn is_cluster(&self) -> bool {
        !self.owners.is_empty()
    }

    /// Nodes of this topology that `other` does not have.
    pub fn nodes_not_in<'a>(&'a self, other: &'a Topology) -> impl Iterator<Item = &'a Arc<ManagedNode>> {
        self.nodes.iter().filter(|managed| !other.nodes.iter().any(|other| Arc::ptr_eq(managed, other)))
    }

    pub fn is_same_as(&self, other: &Topology) -> bool {
        let same = |(one, other): (&Arc<ManagedNode>, &Arc<ManagedNode>)| Arc::ptr_eq(one, other);
        self.owners == other.owners
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(same)
    }

    /// The node that owns the slot of a key. `None`: no node does.
    pub fn node_for(&self, key: &str) -> Option<Arc<Node>> {
        let number = match self.is_cluster() {
            true => *self.owners.get(usize::from(slot_of(key)))?,
            false => 0,
        };
        self.nodes.get(usize::from(number)).map(|managed| managed.node.clone())
    }
}

fn number_of(nodes: &[Arc<ManagedNode>], address: &Address) -> Option<usize> {
    nodes.iter().position(|managed| managed.address.as_ref() == Some(address))
}
