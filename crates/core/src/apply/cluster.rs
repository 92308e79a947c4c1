//! Applying what concerns the cluster and its nodes.

use std::sync::Arc;

use swarm_model::{
    Availability, Cluster, ClusterSpec, JoinTokens, Node, NodeDescription, NodeId, NodeRole, NodeSpec, NodeState,
    NodeStatus, Redacted, RootRotation, TaskId, TaskState, TaskStatus, Timestamp,
};

use super::{Event, not_found, tasks};
use crate::{Outcome, Refusal, State, attachments};

/// A removed node stays on the list so long after its certificate has expired (swarm-behaviour §1.3): 7 days.
const LOCK_OUT_MARGIN_NS: i64 = 7 * 24 * 3_600_000_000_000;

pub(super) fn create(state: &mut State, cluster: &Arc<Cluster>, events: &mut Vec<Event>) -> Outcome {
    if state.cluster.is_some() {
        return Err(Refusal::Exists { kind: "swarm".into(), name: "default".into() });
    }
    let mut cluster = Cluster::clone(cluster);
    (cluster.version, cluster.created_at, cluster.updated_at) = (state.revision, state.time, state.time);
    state.cluster = Some(Arc::new(cluster));
    events.push(Event::Cluster);
    Ok(())
}

pub(super) fn update(
    state: &mut State,
    spec: &Arc<ClusterSpec>,
    join_tokens: Option<&Arc<JoinTokens>>,
    events: &mut Vec<Event>,
) -> Outcome {
    let cluster = state.cluster.as_mut().map(Arc::make_mut).ok_or_else(|| not_found("swarm", "default"))?;
    cluster.spec = spec.clone();
    if let Some(tokens) = join_tokens {
        cluster.join_tokens = tokens.clone();
    }
    (cluster.version, cluster.updated_at) = (state.revision, state.time);
    events.push(Event::Cluster);
    Ok(())
}

pub(super) fn set_unlock_key(state: &mut State, key: Option<&Redacted>, events: &mut Vec<Event>) -> Outcome {
    let cluster = state.cluster.as_mut().map(Arc::make_mut).ok_or_else(|| not_found("swarm", "default"))?;
    cluster.unlock_key = key.cloned();
    events.push(Event::Cluster);
    Ok(())
}

pub(super) fn start_root_rotation(state: &mut State, rotation: &Arc<RootRotation>, events: &mut Vec<Event>) -> Outcome {
    let (revision, time) = (state.revision, state.time);
    let cluster = state.cluster.as_mut().map(Arc::make_mut).ok_or_else(|| not_found("swarm", "default"))?;
    if cluster.root_rotation.is_some() {
        // Certificates that came from its authority would count no longer.
        return Err(Refusal::Stale("the root CA is being replaced already".into()));
    }
    cluster.root_rotation = Some(rotation.clone());
    (cluster.version, cluster.updated_at) = (revision, time);
    events.push(Event::Cluster);
    Ok(())
}

/// The nodes of now must all have certificates of the new authority: one may have come since that was looked at.
pub(super) fn finish_root_rotation(
    state: &mut State,
    key_id: &str,
    join_tokens: &Arc<JoinTokens>,
    events: &mut Vec<Event>,
) -> Outcome {
    let (revision, time) = (state.revision, state.time);
    let left = state.nodes().find(|node| node.cert_issuer() != key_id).map(|node| node.id);
    let cluster = state.cluster.as_mut().map(Arc::make_mut).ok_or_else(|| not_found("swarm", "default"))?;
    if let Some(node) = left {
        return Err(Refusal::Stale(format!("node {node} has a certificate of the old root CA")));
    }
    let rotation = cluster.root_rotation.take_if(|rotation| rotation.root.key_id == key_id);
    let rotation = rotation.ok_or_else(|| Refusal::Stale("the swarm changes to another root CA".into()))?;
    // One of a log from before there was more than one has no key id.
    if !cluster.root_ca.key_id.is_empty() {
        cluster.former_roots.insert(cluster.root_ca.key_id.clone());
    }
    cluster.root_ca = Arc::new(rotation.root.clone());
    cluster.join_tokens = join_tokens.clone();
    (cluster.version, cluster.updated_at) = (revision, time);
    events.push(Event::Cluster);
    Ok(())
}

/// What [`admit_node`] is told.
pub(super) struct Admission<'a> {
    pub(super) node: NodeId,
    pub(super) role: NodeRole,
    pub(super) cert_expires_at: Timestamp,
    pub(super) manager_addr: Option<&'a str>,
    pub(super) availability: Availability,
}

pub(super) fn admit_node(state: &mut State, admission: &Admission<'_>, events: &mut Vec<Event>) -> Outcome {
    let id = admission.node;
    if state.cluster.as_ref().is_some_and(|c| c.removed_nodes.contains_key(&id)) {
        return Err(Refusal::Invalid(format!("node {id} was removed from the swarm and cannot come back as it is")));
    }
    let (revision, time) = (state.revision, state.time);
    // The first node founded the cluster before there was an index to take a number from; an index comes once.
    let raft_id = if state.nodes.is_empty() { Node::founder_raft_id(id) } else { revision };
    let node = Arc::make_mut(state.nodes.entry(id).or_insert_with(|| {
        let spec = NodeSpec { role: admission.role, availability: admission.availability, ..NodeSpec::default() };
        Arc::new(Node {
            id,
            version: revision,
            created_at: time,
            updated_at: time,
            spec: Arc::new(spec),
            role: admission.role,
            description: None,
            status: NodeStatus::default(),
            state_since: time,
            manager_addr: None,
            raft_id: None,
            epoch: revision,
            cert_expires_at: admission.cert_expires_at,
            drain_deadline: None,
        })
    }));
    node.role = admission.role;
    node.cert_expires_at = admission.cert_expires_at;
    if node.manager_addr.as_deref() != admission.manager_addr {
        // All agents are to know where the managers are.
        events.push(Event::Cluster);
    }
    node.manager_addr = admission.manager_addr.map(str::to_owned);
    node.raft_id = match admission.role {
        NodeRole::Manager => node.raft_id.or(Some(raft_id)),
        NodeRole::Worker => None,
    };
    node.updated_at = time;
    state.index_node(id);
    events.push(Event::Node(id));
    Ok(())
}

pub(super) fn update_node(
    state: &mut State,
    id: NodeId,
    spec: &Arc<NodeSpec>,
    drain_deadline: Option<Timestamp>,
    events: &mut Vec<Event>,
) -> Outcome {
    let (revision, time) = (state.revision, state.time);
    let node = state.nodes.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found("node", id))?;
    let before = (node.spec.availability, &node.spec.labels, node.drain_deadline);
    if before != (spec.availability, &spec.labels, drain_deadline) {
        node.epoch = revision;
        events.push(Event::Room(id));
    }
    node.spec = spec.clone();
    node.drain_deadline = drain_deadline;
    (node.version, node.updated_at) = (revision, time);
    state.index_node(id);
    events.push(Event::Node(id));
    Ok(())
}

pub(super) fn report_node(
    state: &mut State,
    id: NodeId,
    status: &NodeStatus,
    description: Option<&Arc<NodeDescription>>,
    events: &mut Vec<Event>,
) -> Outcome {
    let (revision, time) = (state.revision, state.time);
    let node = state.nodes.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found("node", id))?;
    let mut fits_anew = (node.status.state, node.status.engine_reachable) != (status.state, status.engine_reachable)
        || node.status.addr != status.addr;
    if node.status.state != status.state {
        node.state_since = time;
    }
    node.status = status.clone();
    if let Some(description) = description {
        fits_anew |= node.description.as_ref() != Some(description);
        node.description = Some(description.clone());
    }
    if fits_anew {
        node.epoch = revision;
        events.push(Event::Room(id));
    }
    node.updated_at = time;
    state.index_node(id);
    events.push(Event::Node(id));
    Ok(())
}

pub(super) fn remove_node(state: &mut State, id: NodeId, force: bool, events: &mut Vec<Event>) -> Outcome {
    let node = state.node(id).cloned().ok_or_else(|| not_found("node", id))?;
    if node.role == NodeRole::Manager && node.spec.role == NodeRole::Worker {
        return Err(Refusal::Invalid(format!(
            "node {id} was demoted, and the other managers are still to let it go: try again in a moment"
        )));
    }
    if node.role == NodeRole::Manager {
        return Err(Refusal::Invalid(format!(
            "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
        )));
    }
    if node.status.state == NodeState::Ready && !force {
        return Err(Refusal::Invalid(format!("node {id} is not down and can't be removed")));
    }
    let time = state.time;
    if let Some(cluster) = state.cluster.as_mut().map(Arc::make_mut) {
        cluster.removed_nodes.retain(|_, expires_at| expires_at.plus_ns(LOCK_OUT_MARGIN_NS) > time);
        cluster.removed_nodes.insert(id, node.cert_expires_at);
        events.push(Event::Cluster);
    }
    let mut orphaned = TaskStatus::new(TaskState::Orphaned, time);
    orphaned.err = Some("the task's node was removed from the swarm".into());
    let tasks: Vec<TaskId> = state.tasks_of_node(id).map(|task| task.id).collect();
    tasks.iter().for_each(|task| tasks::end(state, *task, &orphaned, events));
    attachments::remove_of_node(state, id, events);
    state.nodes.remove(&id);
    state.index_node(id);
    events.push(Event::Node(id));
    Ok(())
}
