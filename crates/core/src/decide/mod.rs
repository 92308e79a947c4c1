//! `decide`: what to do about what changed.

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{NodeId, ServiceId, Timestamp};

use crate::{Event, State, Tx};

/// What a decision is to look at. Events only mark keys; reconcilers read the state alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Everything: what a new leader starts with.
    pub all: bool,
    /// These services.
    pub services: BTreeSet<ServiceId>,
    /// These nodes: all services that have tasks there.
    pub nodes: BTreeSet<NodeId>,
    /// Some node has more room: all services that have tasks waiting for one.
    pub room: bool,
}

impl Dirty {
    /// What a new leader starts with.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Marks what an event touches.
    pub fn mark(&mut self, event: &Event) {
        match *event {
            Event::Cluster => self.all = true,
            Event::Node(node) => drop(self.nodes.insert(node)),
            Event::Service(service) => drop(self.services.insert(service)),
            Event::Task { service, .. } => drop(self.services.insert(service)),
            Event::Room(_) => self.room = true,
        }
    }
}

/// What `decide` proposes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Transactions in order; later ones may rest on earlier ones.
    pub txs: Vec<Tx>,
    /// When to look at a service again although nothing has changed (a delay ends).
    /// Replaces what an earlier plan said of the services it looked at.
    pub deadlines: BTreeMap<ServiceId, Timestamp>,
    /// All services that this plan looked at.
    pub services: BTreeSet<ServiceId>,
}

/// Looks at what is dirty and proposes changes. `now` is the leader's clock, `seed` makes ids.
pub fn decide(state: &State, dirty: &Dirty, now: Timestamp, seed: u64) -> Plan {
    let _ = (state, dirty, now, seed);
    Plan::default()
}
