//! The state in pieces, for snapshots.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{Attachment, Cluster, NamedObject, Node, Service, SpecVersion, Task, Timestamp};

use super::State;
use crate::AddressNote;

/// A piece of a snapshot. A state is written as a head and its objects, and read back from them in any order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    /// Log index and cluster time.
    Head {
        /// Index of the last entry in it.
        revision: u64,
        /// Cluster time.
        time: Timestamp,
        /// The feature level, as it was raised.
        #[serde(default)]
        feature_level: u16,
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
    /// A named object.
    Named(Arc<NamedObject>),
    /// Addresses of a network.
    Address(AddressNote),
    /// An attachment.
    Attachment(Arc<Attachment>),
}

impl State {
    /// The state in pieces.
    pub fn export(&self) -> impl Iterator<Item = Object> + '_ {
        let Self { revision, time, feature_level, .. } = *self;
        std::iter::once(Object::Head { revision, time, feature_level })
            .chain(self.cluster.iter().cloned().map(Object::Cluster))
            .chain(self.nodes.values().cloned().map(Object::Node))
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.all_specs().cloned().map(Object::SpecVersion))
            .chain(self.tasks().cloned().map(Object::Task))
            .chain(self.all_objects().cloned().map(Object::Named))
            .chain(self.attachments().cloned().map(Object::Attachment))
            .chain(self.addresses.notes().map(Object::Address))
    }

    /// The state from its pieces. A task whose spec version is missing is left out: such a snapshot was not written
    /// by [`State::export`].
    pub fn import(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut state = Self::default();
        let mut tasks = Vec::new();
        let mut addresses = Vec::new();
        for object in objects {
            match object {
                Object::Head { revision, time, feature_level } => {
                    (state.revision, state.time, state.feature_level) = (revision, time, feature_level);
                }
                Object::Cluster(cluster) => state.cluster = Some(cluster),
                Object::Node(node) => {
                    let id = node.id;
                    state.nodes.insert(id, node);
                    state.index_node(id);
                }
                Object::Service(service) => {
                    state.service_names.insert(service.spec.name.to_lowercase(), service.id);
                    state.index_users(service.id, None, Some(&service.spec));
                    state.index_ports(None, Some(&service));
                    state.follow_service_addrs(None, Some(&service));
                    state.services.insert(service.id, service);
                }
                Object::SpecVersion(spec) => state.put_spec(spec),
                Object::Task(task) => tasks.push(task),
                Object::Address(note) => addresses.push(note),
                Object::Attachment(attachment) => state.set_attachment(attachment.id, Some(attachment)),
                Object::Named(object) => state.put_object(Arc::unwrap_or_clone(object)),
            }
        }
        for task in tasks {
            if let Some(version) = state.spec(task.service, task.spec_version).cloned() {
                state.refer_to_spec(task.service, task.spec_version, 1);
                state.insert_task(task, &version.spec);
            }
        }
        addresses.iter().for_each(|note| state.addresses.restore(note));
        state
    }
}
