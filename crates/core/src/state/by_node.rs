//! Which tasks each node was given.

use std::sync::Arc;

use swarm_model::{NodeId, ServiceId, TaskId};

use super::table::Table;

/// The tasks of each node. A clone costs nothing.
///
/// New tasks are scattered over the nodes, so the way to a node is short, and a new task stands at the end of a list. A
/// change copies the list if there is another reader: with a thousand tasks on a node that is 32 KB.
#[derive(Clone, Debug, Default)]
pub(super) struct ByNode {
    /// Sorted lists, none of them empty.
    lists: Table<NodeId, Arc<Vec<(TaskId, ServiceId)>>>,
}

impl ByNode {
    /// Adds a task, unless it is there.
    pub(super) fn insert(&mut self, node: NodeId, service: ServiceId, task: TaskId) {
        let new = (task, service);
        let Some(list) = self.lists.get_mut(&node) else {
            return drop(self.lists.insert(node, Arc::new(vec![new])));
        };
        let is_newest = list.last().is_none_or(|last| last.cmp(&new).is_lt());
        let at = if is_newest { list.len() } else { list.partition_point(|known| known.cmp(&new).is_lt()) };
        if list.get(at) == Some(&new) {
            return;
        }
        match Arc::get_mut(list) {
            Some(list) => list.insert(at, new),
            None => {
                let mut longer = Vec::with_capacity(list.len() + 1 + list.len() / 2);
                longer.extend_from_slice(&list[..at]);
                longer.push(new);
                longer.extend_from_slice(&list[at..]);
                *list = Arc::new(longer);
            }
        }
    }

    /// Takes a task out, if it is there.
    pub(super) fn remove(&mut self, node: NodeId, service: ServiceId, task: TaskId) {
        let Some(list) = self.lists.get_mut(&node) else { return };
        if let Ok(at) = list.binary_search(&(task, service)) {
            let list = Arc::make_mut(list);
            list.remove(at);
            if list.is_empty() {
                self.lists.remove(&node);
            }
        }
    }

    /// The tasks of a node with their services, the oldest first.
    pub(super) fn of(&self, node: NodeId) -> impl Iterator<Item = (TaskId, ServiceId)> + '_ {
        self.lists.get(&node).into_iter().flat_map(|list| list.iter().copied())
    }
}
