//! Which tasks each node was given.

use std::sync::Arc;

use swarm_model::{NodeId, ServiceId, TaskId};

use super::table::{Table, Value};

/// The tasks of each node. A clone costs nothing.
///
/// New tasks are scattered over the nodes, so the way to a node is short, and a new task stands at the end of a list. A
/// change copies the list if there is another reader: with a thousand tasks on a node that is 32 KB.
#[derive(Clone, Debug, Default)]
pub(super) struct ByNode {
    /// None of them is empty.
    lists: Table<NodeId, List>,
}

/// Tasks with their services, sorted.
#[derive(Clone, Debug, Default)]
struct List(Arc<Vec<(TaskId, ServiceId)>>);

impl Value for List {
    /// Mostly one list of a page changes, and the copy raises the counters of all.
    const PAGE_MAX: usize = 8;

    fn touch(&self) -> usize {
        self.0.touch()
    }
}

impl List {
    /// Adds a task, unless it is there.
    fn insert(&mut self, new: (TaskId, ServiceId)) {
        let is_newest = self.0.last().is_none_or(|last| last.cmp(&new).is_lt());
        let at = if is_newest { self.0.len() } else { self.0.partition_point(|known| known.cmp(&new).is_lt()) };
        if self.0.get(at) == Some(&new) {
            return;
        }
        if let Some(list) = Arc::get_mut(&mut self.0) {
            return list.insert(at, new);
        }
        let mut longer = Vec::with_capacity(self.0.len() + 1 + self.0.len() / 2);
        longer.extend_from_slice(&self.0[..at]);
        longer.push(new);
        longer.extend_from_slice(&self.0[at..]);
        self.0 = Arc::new(longer);
    }
}

impl ByNode {
    /// Adds a task, unless it is there.
    pub(super) fn insert(&mut self, node: NodeId, service: ServiceId, task: TaskId) {
        self.lists.change_or_default(node, |list| list.insert((task, service)));
    }

    /// Takes a task out, if it is there.
    pub(super) fn remove(&mut self, node: NodeId, service: ServiceId, task: TaskId) {
        let Some(list) = self.lists.get_mut(&node) else { return };
        if let Ok(at) = list.0.binary_search(&(task, service)) {
            let list = Arc::make_mut(&mut list.0);
            list.remove(at);
            if list.is_empty() {
                self.lists.remove(&node);
            }
        }
    }

    /// The tasks of a node with their services, the oldest first.
    pub(super) fn of(&self, node: NodeId) -> impl Iterator<Item = (TaskId, ServiceId)> + '_ {
        self.lists.get(&node).into_iter().flat_map(|list| list.0.iter().copied())
    }
}
