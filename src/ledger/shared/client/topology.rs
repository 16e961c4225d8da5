//! The nodes of the store, and which of them has what.

use super::node::Node;
use super::slots::{Address, SLOTS, Slots, slot_of};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// All of the store.
pub(in crate::ledger::shared) struct Topology {
    pub nodes: Vec<Arc<ManagedNode>>,
    /// The number of each slot's node; none where there is but one node, which has all.
    of_slot: Vec<u16>,
}

/// A node, and the task that keeps it connected.
pub(in crate::ledger::shared) struct ManagedNode {
    pub node: Arc<Node>,
    pub address: Option<Address>,
    pub task: Option<AbortHandle>,
}

impl ManagedNode {
    /// It is no node any more: whoever waits for it asks elsewhere.
    pub fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.node.is_gone();
    }
}

impl Drop for ManagedNode {
    fn drop(&mut self) {
        self.end();
    }
}

impl Topology {
    /// One server, or what is not known yet.
    pub fn single() -> Topology {
        let one = ManagedNode { node: Arc::new(Node::new()), address: None, task: None };
        Topology { nodes: vec![Arc::new(one)], of_slot: Vec::new() }
    }

    /// A Cluster. Parts that stay are managed as they are; new ones are made.
    pub fn of_cluster(before: &Topology, slots: &Slots, make: impl Fn(&Address) -> ManagedNode) -> Topology {
        let (mut nodes, mut of_slot) = (Vec::<Arc<ManagedNode>>::new(), vec![u16::MAX; SLOTS.into()]);
        for (first, last, address) in &slots.0 {
            let number = number_of(&nodes, address).unwrap_or_else(|| {
                let known = number_of(&before.nodes, address).map(|number| before.nodes[number].clone());
                nodes.push(known.unwrap_or_else(|| Arc::new(make(address))));
                nodes.len() - 1
            });
            let of_range = of_slot.get_mut(usize::from(*first)..=usize::from(*last)).unwrap_or_default();
            of_range.fill(number as u16);
        }
        Topology { nodes, of_slot }
    }

    /// The same, where a node is a node, whether it has slots or not; and that node. It is given a slot, if one is named.
    pub fn with(
        &self,
        address: &Address,
        slot: Option<u16>,
        make: impl Fn(&Address) -> ManagedNode,
    ) -> (Topology, Arc<Node>) {
        let (mut nodes, mut of_slot) = (self.nodes.clone(), self.of_slot.clone());
        let number = number_of(&nodes, address).unwrap_or_else(|| {
            nodes.push(Arc::new(make(address)));
            nodes.len() - 1
        });
        if let Some(owner) = slot.and_then(|slot| of_slot.get_mut(usize::from(slot))) {
            *owner = number as u16;
        }
        let node = nodes[number].node.clone();
        (Topology { nodes, of_slot }, node)
    }

    pub fn is_cluster(&self) -> bool {
        !self.of_slot.is_empty()
    }

    /// Those of which there is nothing left in another.
    pub fn without<'a>(&'a self, other: &'a Topology) -> impl Iterator<Item = &'a Arc<ManagedNode>> {
        self.nodes.iter().filter(|managed| !other.nodes.iter().any(|other| Arc::ptr_eq(managed, other)))
    }

    /// Whether all nodes and slots are the same.
    pub fn is(&self, other: &Topology) -> bool {
        let same = |(one, other): (&Arc<ManagedNode>, &Arc<ManagedNode>)| Arc::ptr_eq(one, other);
        self.of_slot == other.of_slot
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(same)
    }

    /// The node that has a key. `None`: its slot is nobody's.
    pub fn node_for(&self, key: &str) -> Option<Arc<Node>> {
        let number = match self.is_cluster() {
            true => *self.of_slot.get(usize::from(slot_of(key)))?,
            false => 0,
        };
        self.nodes.get(usize::from(number)).map(|managed| managed.node.clone())
    }
}

fn number_of(nodes: &[Arc<ManagedNode>], address: &Address) -> Option<usize> {
    nodes.iter().position(|managed| managed.address.as_ref() == Some(address))
}
