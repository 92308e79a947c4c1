//! Changes whose meaning the proposer decides. The entry says what was decided, and all managers apply it alike, whatever
//! each of them knows of specs.

use std::sync::Arc;

use swarm_model::{NodeId, NodeSpec, Redacted, Service, ServiceSpec, Timestamp};

use crate::{
    Op, State,
    entry::{ALIKE_LEVEL, DRAIN_DEADLINES_LEVEL},
};

impl Op {
    /// A new spec of a service that is in this state.
    pub fn update_service(
        state: &State,
        service: &Service,
        spec: Arc<ServiceSpec>,
        registry_auth: Option<Redacted>,
    ) -> Self {
        let compare = || service.spec.canonical().compare(&spec.canonical());
        let alike = (state.feature_level() >= ALIKE_LEVEL).then(compare);
        Self::UpdateService { service: service.id, spec, registry_auth, alike }
    }

    /// New settings of a node that is in this state.
    pub fn update_node(state: &State, node: NodeId, spec: Arc<NodeSpec>, drain_deadline: Option<Timestamp>) -> Self {
        let drain_deadline = drain_deadline.filter(|_| state.feature_level() >= DRAIN_DEADLINES_LEVEL);
        Self::UpdateNode { node, spec, drain_deadline }
    }
}
