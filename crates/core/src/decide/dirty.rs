//! What a decision is to look at.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{NodeId, ServiceId, TaskState};

use crate::Event;

/// What a decision is to look at. Events only mark keys; reconcilers read the state alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Everything: what a new leader starts with.
    pub all: bool,
    /// These services.
    pub services: BTreeSet<ServiceId>,
    /// These places of services, by their slots. The others of such a service were looked at, and are as they were then.
    pub places: BTreeMap<ServiceId, BTreeSet<u32>>,
    /// These nodes: all services that have tasks there.
    pub nodes: BTreeSet<NodeId>,
    /// These nodes have more room: all services that have tasks waiting for some, or may be more even now.
    pub room: BTreeSet<NodeId>,
    /// The service that was looked at last: those behind it come first, so that each has its turn.
    pub behind: Option<ServiceId>,
}

impl Dirty {
    /// What a new leader starts with.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        !self.all && self.services.is_empty() && self.places.is_empty() && self.nodes.is_empty() && self.room.is_empty()
    }

    /// Adds what is dirty besides.
    pub fn merge(&mut self, mut more: Self) {
        self.all |= more.all;
        self.services.append(&mut more.services);
        for (service, places) in more.places {
            self.add_places(service, places);
        }
        self.nodes.append(&mut more.nodes);
        self.room.append(&mut more.room);
        self.behind = self.behind.or(more.behind);
    }

    /// Adds places of a service.
    pub(super) fn add_places(&mut self, service: ServiceId, mut places: BTreeSet<u32>) {
        if !places.is_empty() {
            self.places.entry(service).or_default().append(&mut places);
        }
    }

    /// The services in the order in which they have their turns.
    pub(super) fn in_turn(&self) -> Vec<ServiceId> {
        let services: BTreeSet<ServiceId> = self.services.iter().chain(self.places.keys()).copied().collect();
        let (first, behind): (Vec<_>, Vec<_>) = services.into_iter().partition(|id| Some(*id) <= self.behind);
        behind.into_iter().chain(first).collect()
    }

    /// Marks what an event touches.
    pub fn mark(&mut self, event: &Event) {
        match *event {
            Event::Cluster => self.all = true,
            Event::Node(node) => drop(self.nodes.insert(node)),
            Event::Task { reported: Some((from, to)), .. } if are_alike(from, to) => {}
            Event::Task { service, slot, .. } => drop(self.places.entry(service).or_default().insert(slot)),
            Event::Service(service) => drop(self.services.insert(service)),
            Event::Room(node) => drop(self.room.insert(node)),
            // An object concerns a service only through the spec of that service, which has an event of its own.
            Event::Object(_) => {}
            // An attachment is no task: nothing is decided for it.
            Event::Attachment { .. } => {}
        }
    }
}

/// Whether a task that was reported in one of these states after the other gives nothing to decide: on its way to run it
/// matters when its container is there, and when it runs. All else that agents report of such a task is for people.
fn are_alike(from: TaskState, to: TaskState) -> bool {
    let stage = |state| match state {
        TaskState::Assigned | TaskState::Accepted | TaskState::Preparing => Some(0),
        TaskState::Ready | TaskState::Starting => Some(1),
        TaskState::Running => Some(2),
        _ => None,
    };
    stage(from).is_some() && stage(from) == stage(to)
}

#[cfg(test)]
mod tests {
    use swarm_model::TaskId;

    use super::*;

    #[test]
    fn only_what_a_decision_may_look_at_makes_a_service_dirty() {
        use TaskState::{Accepted, Assigned, Complete, Failed, Preparing, Ready, Running, Starting};
        let marks = |reported| {
            let mut dirty = Dirty::default();
            dirty.mark(&Event::Task {
                task: TaskId(1),
                service: ServiceId(2),
                slot: 1,
                node: Some(NodeId(3)),
                reported,
            });
            !dirty.is_empty()
        };
        assert!(marks(None));
        for (from, to, matters) in [
            (Assigned, Preparing, false),
            (Accepted, Preparing, false),
            (Preparing, Ready, true),
            (Ready, Starting, false),
            (Starting, Running, true),
            (Running, Running, false),
            (Running, Failed, true),
            (Failed, Failed, true),
            (Preparing, Complete, true),
        ] {
            assert_eq!(marks(Some((from, to))), matters, "{from} to {to}");
        }
    }
}
