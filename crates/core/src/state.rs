//! The state: an immutable value, one per log index.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use swarm_model::{Cluster, Node, NodeId, Service, ServiceId, SpecVersion, Task, TaskId, Timestamp};

/// Everything that the managers agree on. A clone costs nothing; only [`apply`](crate::apply) changes it.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) revision: u64,
    pub(crate) time: Timestamp,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    pub(crate) specs: OrdMap<(ServiceId, u64), Arc<SpecVersion>>,
    pub(crate) tasks: OrdMap<TaskId, Arc<Task>>,
}

/// A piece of a snapshot. A state is written as a head and its objects, and read back from them in any order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// Log index and cluster time.
    Head {
        /// Index of the last entry in it.
        revision: u64,
        /// Cluster time.
        time: Timestamp,
    },
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A version of a service's spec.
    SpecVersion(Arc<SpecVersion>),
    /// A task.
    Task(Arc<Task>),
}

impl State {
    /// Log index of the last entry that was applied; 0 for the empty state.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Cluster time: the latest time of all entries.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The state in pieces, for a snapshot.
    pub fn export(&self) -> impl Iterator<Item = Object> + '_ {
        std::iter::once(Object::Head { revision: self.revision, time: self.time })
            .chain(self.cluster.iter().cloned().map(Object::Cluster))
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.specs.values().cloned().map(Object::SpecVersion))
            .chain(self.tasks.values().cloned().map(Object::Task))
    }

    /// The state from the pieces of a snapshot.
    pub fn import(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut state = Self::default();
        for object in objects {
            match object {
                Object::Head { revision, time } => (state.revision, state.time) = (revision, time),
                Object::Cluster(cluster) => state.cluster = Some(cluster),
                Object::Node(node) => drop(state.nodes.insert(node.id, node)),
                Object::Service(service) => drop(state.services.insert(service.id, service)),
                Object::SpecVersion(spec) => drop(state.specs.insert((spec.service, spec.version), spec)),
                Object::Task(task) => drop(state.tasks.insert(task.id, task)),
            }
        }
        state
    }
}
