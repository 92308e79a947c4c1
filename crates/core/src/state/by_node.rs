//! Which tasks each node was given.

use std::sync::Arc;

use swarm_model::{NodeId, ServiceId, TaskId};

use super::table::Table;

/// The tasks of each node, what it has of a service side by side. A clone costs nothing.
///
/// New tasks are scattered over the nodes, so the way to a node is short and what follows stands in one list. A change
/// copies the list if there is another reader: with a thousand tasks on a node that is 32 KB.
#[derive(Clone, Debug, Default)]
pub(super) struct ByNode {
    /// Sorted lists, none of them empty.
    lists: Table<NodeId, Arc<Vec<(ServiceId, TaskId)>>>,
}

impl ByNode {
    /// Adds a task, unless it is there.
    pub(super) fn insert(&mut self, node: NodeId, service: ServiceId, task: TaskId) {
        let new = (service, task);
        let Some(list) = self.lists.get_mut(&node) else {
            return drop(self.lists.insert(node, Arc::new(vec![new])));
        };
        // Mostly the newest task of the newest service.
        let at = if list.last().is_none_or(|last| last.cmp(&new).is_lt()) {
            list.len()
        } else {
            list.partition_point(|task| task.cmp(&new).is_lt())
        };
        if list.get(at) == Some(&new) {
            return;
        }
        match Arc::get_mut(list) {
            Some(list) => list.insert(at, new),
            None => {
                let mut longer = Vec::with_capacity(list.len() + 1 + list.len() / 4);
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
        if let Ok(at) = list.binary_search(&(service, task)) {
            let list = Arc::make_mut(list);
            list.remove(at);
            if list.is_empty() {
                self.lists.remove(&node);
            }
        }
    }

    /// The tasks of a node, by service, then the oldest first.
    pub(super) fn of(&self, node: NodeId) -> &[(ServiceId, TaskId)] {
        self.lists.get(&node).map_or(&[], |list| list)
    }

    /// What a node has of a service, the oldest first.
    pub(super) fn of_service(&self, node: NodeId, service: ServiceId) -> &[(ServiceId, TaskId)] {
        let list = self.of(node);
        let from = list.partition_point(|(found, _)| *found < service);
        let len = list[from..].iter().take_while(|(found, _)| *found == service).count();
        &list[from..from + len]
    }
}
