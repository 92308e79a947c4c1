//! Changes of the items that a node is to have. Each change concerns one item.
//!
//! An item has a kind and an id. The items of a node follow from the tasks that are assigned to it: the tasks themselves,
//! their specs, and the objects that the tasks need until they have ended.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use swarm_model::{
    DesiredState, GenericResource, Labels, NetworkAddr, ObjectContent, ObjectId, ObjectKey, ObjectKind, PortConfig,
    Redacted, ServiceId, TaskId, TaskSpec,
};

use super::Shared;

/// Changes of the items that a node is to have. Messages of one session are applied in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changeset {
    /// Whether this starts a full set: an item that no message up to the next `complete` puts is to be removed.
    pub full: bool,
    /// Whether the set or difference ends here; only then does `revision` hold.
    pub complete: bool,
    /// Log index of the state that this comes from.
    pub revision: u64,
    /// The changes, in their order: the items that a task needs come before the task.
    pub changes: Vec<ItemChange>,
}

/// A change of one item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ItemChange {
    /// The node is to have it, like this.
    Put(Item),
    /// The node is to have it no more.
    Remove(ItemKey),
}

/// Something that a node is to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Item {
    /// A version of a service's spec. It goes with the last task that has it, without a word.
    Spec(Shared<AssignedSpec>),
    /// An object.
    Object(Shared<AssignedObject>),
    /// A task.
    Task(AssignedTask),
}

/// Names an item that can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ItemKey {
    /// An object.
    Object(ObjectKey),
    /// A task.
    Task(TaskId),
}

/// One version of a service's spec, as agents need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignedSpec {
    /// The service.
    pub service: ServiceId,
    /// The version.
    pub version: u64,
    /// Name of the service.
    pub service_name: String,
    /// Labels of the service, for templates.
    pub service_labels: Labels,
    /// The spec of the tasks.
    pub task: TaskSpec,
    /// Published ports; the agent opens those in host mode.
    pub ports: Vec<PortConfig>,
    /// Registry credentials; never written to disk by the agent.
    pub registry_auth: Option<Redacted>,
}

/// One task, as its agent needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTask {
    /// Id.
    pub id: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// Version of the service's spec.
    pub spec_version: u64,
    /// The number of its slot as people see it; none for a task of a global service.
    pub slot: Option<u32>,
    /// The desired state.
    pub desired: DesiredState,
    /// The generic resources of the node that the task has got.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub generic_resources: Arc<[GenericResource]>,
    /// The objects that the node must have before it prepares the task, in the order in which the spec names them.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub needs: Arc<[ObjectKey]>,
    /// Its addresses in the networks of the cluster, in the order in which the spec names them.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub addrs: Arc<[NetworkAddr]>,
}

/// An object, as the agents of the tasks that use it need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedObject {
    /// Its id.
    pub id: ObjectId,
    /// Its name, for templates and for people.
    pub name: String,
    /// Its content.
    pub content: Arc<ObjectContent>,
}

impl AssignedObject {
    /// Its kind and its id.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.content.kind(), id: self.id }
    }
}

/// An item that somebody holds, reduced to the parts in which two holders of it can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A task, and its desired state.
    Task(TaskId, DesiredState),
    /// A version of a service's spec.
    Spec(ServiceId, u64),
    /// An object: it stays as it is.
    Object(ObjectKey),
}

impl Held {
    /// An id, and a byte that differs where the kind or the rest does. Of tasks it is as in version 0.1.0.
    fn parts(self) -> (u128, u64, u8) {
        match self {
            Self::Task(task, desired) => (task.0, 0, desired as u8),
            Self::Spec(service, version) => (service.0, version, 0x80),
            Self::Object(ObjectKey { kind: ObjectKind::Secret, id }) => (id.0, 0, 0x81),
            Self::Object(ObjectKey { kind: ObjectKind::Config, id }) => (id.0, 0, 0x82),
            Self::Object(ObjectKey { kind: ObjectKind::Network, id }) => (id.0, 0, 0x83),
        }
    }
}

/// A number that two equal sets share, in whatever order they come.
pub fn digest(held: impl IntoIterator<Item = Held>) -> u64 {
    held.into_iter().fold(0, |sum: u64, held| {
        let (id, version, rest) = held.parts();
        // FNV-1a; addition makes the order irrelevant.
        let version = version.to_be_bytes();
        let version = if version == [0; 8] { &[][..] } else { &version };
        let bytes = id.to_be_bytes();
        let hash = bytes
            .iter()
            .chain(version)
            .chain([rest].iter())
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        // The last byte moves only a few bits of FNV: without a mix, changes of two items could cancel each other.
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum.wrapping_add(mixed ^ (mixed >> 31))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_differ_in_one_item_have_other_digests() {
        let task = |id, desired| Held::Task(TaskId(id), desired);
        let object = |kind, id| Held::Object(ObjectKey { kind, id: ObjectId(id) });
        let all = [
            task(1, DesiredState::Running),
            task(1, DesiredState::Shutdown),
            task(2, DesiredState::Running),
            Held::Spec(ServiceId(1), 1),
            Held::Spec(ServiceId(1), 2),
            Held::Spec(ServiceId(2), 1),
            object(ObjectKind::Secret, 1),
            object(ObjectKind::Config, 1),
            object(ObjectKind::Secret, 2),
        ];
        let mut found: Vec<u64> = all.iter().map(|held| digest([*held])).collect();
        found.push(digest([]));
        found.extend((1..all.len()).map(|n| digest(all[..=n].iter().copied())));
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count, "no two are alike");
        let mut turned = all;
        turned.reverse();
        assert_eq!(digest(all), digest(turned));
    }

    #[test]
    fn the_digest_of_tasks_is_that_of_version_0_1_0() {
        let tasks = [Held::Task(TaskId(7), DesiredState::Running), Held::Task(TaskId(9), DesiredState::Shutdown)];
        // As that version computed it.
        assert_eq!(digest(tasks), 0x7d01_a377_1132_e3df);
    }
}
