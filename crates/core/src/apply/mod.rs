//! `apply`: the only function that changes the state.
//!
//! It checks guards and stores; it holds no policy, so that two versions of the program apply the same entry alike.
//! An operation that falls leaves no trace, so that a transaction of one operation needs no way back.

mod before_decisions;
mod cluster;
mod objects;
mod services;
mod tasks;

use swarm_model::{NodeId, ObjectKey, ServiceId, TaskId, TaskState, mutant::mutant};

pub(crate) use services::earlier;
pub(crate) use tasks::charge;

use crate::{
    ENTRY_VERSION, Entry, Guard, Op, Outcome, Refusal, State, Tx, addresses, attachments, entry::AUTHORS_LEVEL, ports,
};

/// What a change touched; reconcilers and readers mark it dirty and look at the state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The cluster object.
    Cluster,
    /// A node was made, changed or removed.
    Node(NodeId),
    /// A service was made, changed or removed.
    Service(ServiceId),
    /// A named object was made, changed or removed.
    Object(ObjectKey),
    /// An attachment was made, changed or removed.
    Attachment {
        /// The attachment.
        attachment: TaskId,
        /// Its node.
        node: NodeId,
    },
    /// A task was made, changed or removed.
    Task {
        /// The task.
        task: TaskId,
        /// Its service.
        service: ServiceId,
        /// Its slot there.
        slot: u32,
        /// Its node.
        node: Option<NodeId>,
        /// The states between which a report moved it, if nothing else changed.
        reported: Option<(TaskState, TaskState)>,
    },
    /// A node has more room than before: what waits for room may fit now.
    Room(NodeId),
}

/// Applies one entry with its log index. Returns what became of each transaction, and what changed.
/// The same entries on the same state come out the same on every manager.
///
/// # Panics
/// If the entry's version is unknown: a manager that cannot apply what its peers apply must stop. The log's reader
/// checks that before.
pub fn apply(state: &mut State, index: u64, entry: &Entry) -> (Vec<Outcome>, Vec<Event>) {
    assert!(entry.v <= ENTRY_VERSION, "entry {index} has version {}, this program knows {ENTRY_VERSION}", entry.v);
    assert!(index > state.revision, "entry {index} comes after entry {}", state.revision);
    state.revision = index;
    // Cluster time never goes back and never stands still, whatever the proposer's clock does.
    state.time = state.time.plus_ns(1).max(entry.at);
    let mut events = Vec::new();
    let outcomes = entry.txs.iter().map(|tx| apply_tx(state, tx, &mut events)).collect();
    (outcomes, events)
}

/// Applies one transaction, or leaves the state as it is.
pub(crate) fn apply_tx(state: &mut State, tx: &Tx, events: &mut Vec<Event>) -> Outcome {
    tx.guards.iter().try_for_each(|guard| check(state, guard))?;
    let by = tx.by.as_ref().filter(|_| state.feature_level() >= AUTHORS_LEVEL);
    let setting = services::Setting { by, stamp: tx.stamp };
    match tx.ops.as_slice() {
        [] => Ok(()),
        [op] => apply_op(state, op, setting, events),
        ops => {
            let mut next = state.clone();
            let known = events.len();
            for op in ops {
                if let Err(refusal) = apply_op(&mut next, op, setting, events) {
                    events.truncate(known);
                    return Err(refusal);
                }
            }
            *state = next;
            Ok(())
        }
    }
}

pub(crate) fn not_found(kind: &str, id: impl ToString) -> Refusal {
    Refusal::NotFound { kind: kind.into(), id: id.to_string() }
}

fn check(state: &State, guard: &Guard) -> Outcome {
    let in_sequence = |expected: u64, found: u64| if expected == found { Ok(()) } else { Err(Refusal::OutOfSequence) };
    match *guard {
        Guard::Cluster { version } => {
            in_sequence(version, state.cluster.as_ref().ok_or_else(|| not_found("swarm", "default"))?.version)
        }
        Guard::Service { service, version } => {
            in_sequence(version, state.service(service).ok_or_else(|| not_found("service", service))?.version)
        }
        Guard::Object { object: key, version } => {
            in_sequence(version, state.object(key).ok_or_else(|| not_found(key.kind.as_str(), key.id))?.version)
        }
        Guard::Wanted { service, stamp } => match state.service(service) {
            Some(found) if found.stamp == stamp => Ok(()),
            Some(_) => Err(Refusal::Stale(format!("service {service} was updated"))),
            None => Err(Refusal::Stale(format!("service {service} was removed"))),
        },
        Guard::Serving { service, least, ref besides } => {
            let lost = state.places_served(besides.iter().filter_map(|id| state.task(*id)));
            if lost.is_empty() {
                return Ok(());
            }
            let others = state.tasks_of_service(service).filter(|task| !besides.contains(&task.id));
            let served = state.places_served(others);
            // Fewer may be left where others are away: what has its successor may go all the same.
            if served.len() as u64 >= least || lost.is_subset(&served) {
                return Ok(());
            }
            Err(Refusal::Stale(format!("service {service} would run at {} places, not at {least}", served.len())))
        }
        Guard::Stopped { ref tasks } => {
            match tasks.iter().filter_map(|id| state.task(*id)).find(|task| task.desired.is_live()) {
                Some(task) => Err(Refusal::Stale(format!("task {} is to be {}", task.id, task.desired))),
                None => Ok(()),
            }
        }
        Guard::Node { node, version } => {
            in_sequence(version, state.node(node).ok_or_else(|| not_found("node", node))?.version)
        }
        // Asked for each task that is placed, so the row is enough, which is at hand.
        Guard::NodeEpoch { node, epoch } => match state.loads.get(node).map(|load| load.epoch) {
            Some(found) if found == epoch || mutant("skip-node-epoch") => Ok(()),
            Some(_) => Err(Refusal::Stale(format!("node {node} changed"))),
            None => Err(Refusal::Stale(format!("node {node} was removed"))),
        },
    }
}

fn apply_op(state: &mut State, op: &Op, setting: services::Setting<'_>, events: &mut Vec<Event>) -> Outcome {
    match op {
        Op::RaiseFeatureLevel { level } => {
            state.feature_level = state.feature_level.max(*level);
            events.push(Event::Cluster);
            Ok(())
        }
        Op::CreateCluster(cluster) => cluster::create(state, cluster, events),
        Op::UpdateCluster { spec, join_tokens } => cluster::update(state, spec, join_tokens.as_ref(), events),
        Op::SetUnlockKey { key } => cluster::set_unlock_key(state, key.as_ref(), events),
        Op::StartRootRotation(rotation) => cluster::start_root_rotation(state, rotation, events),
        Op::FinishRootRotation { key_id, join_tokens } => {
            cluster::finish_root_rotation(state, key_id, join_tokens, events)
        }
        Op::AdmitNode { node, role, cert_expires_at, manager_addr, availability } => {
            let admission = cluster::Admission {
                node: *node,
                role: *role,
                cert_expires_at: *cert_expires_at,
                manager_addr: manager_addr.as_deref(),
                availability: *availability,
            };
            cluster::admit_node(state, &admission, events)
        }
        Op::UpdateNode { node, spec, drain_deadline } => {
            cluster::update_node(state, *node, spec, *drain_deadline, events)
        }
        Op::ReportNode { node, status, description } => {
            cluster::report_node(state, *node, status, description.as_ref(), events)
        }
        Op::RemoveNode { node, force } => cluster::remove_node(state, *node, *force, events),
        Op::CreateService { service, spec, registry_auth } => {
            services::create(state, *service, spec, registry_auth.as_ref(), setting, events)
        }
        Op::UpdateService { service, spec, registry_auth, alike } => {
            let change = services::Change { spec, registry_auth: registry_auth.as_ref(), alike: *alike, setting };
            services::update(state, *service, &change, events)
        }
        Op::RemoveService { service } => services::remove(state, *service, events),
        Op::RollBack { service, keep_previous, message, to } => {
            let change = services::RollBack { keep_previous: *keep_previous, message, to: *to, setting };
            services::roll_back(state, *service, &change, events)
        }
        Op::SetPorts { service, ports } => ports::set(state, *service, ports, events),
        Op::SetVirtualAddrs { service, addrs } => addresses::set(state, *service, addrs, events),
        Op::SetUpdate { service, update } => services::set_update(state, *service, update, events),
        Op::SetRebalance { service, asked } => services::set_rebalance(state, *service, *asked, events),
        Op::CreateTasks { service, spec_version, desired, cause, beside, start_at, restarts, tasks } => {
            let batch = tasks::Batch {
                service: *service,
                spec_version: *spec_version,
                desired: *desired,
                cause: *cause,
                beside: *beside,
                start_at: *start_at,
                restarts: *restarts,
            };
            tasks::create(state, &batch, tasks, events)
        }
        Op::PlaceTask { task, place, addrs } => tasks::place(state, *task, (place, addrs), events),
        Op::SetDesired { desired, tasks } => {
            tasks.iter().for_each(|task| tasks::set_desired(state, *task, *desired, events));
            Ok(())
        }
        Op::ReportTasks { node, reports } => {
            reports.iter().for_each(|(task, status)| tasks::report(state, *node, *task, status, events));
            Ok(())
        }
        Op::EndTasks { status, tasks } => {
            tasks.iter().for_each(|task| tasks::end(state, *task, status, events));
            Ok(())
        }
        Op::CreateObject { id, name, labels, content } => objects::create(state, *id, name, labels, content, events),
        Op::LabelObject { object, labels } => objects::label(state, *object, labels, events),
        Op::RemoveObject { object } => objects::remove(state, *object, events),
        Op::PutAttachment(attachment) => attachments::put(state, attachment, events),
        Op::RemoveAttachments { attachments } => {
            attachments.iter().for_each(|id| attachments::remove(state, *id, events));
            Ok(())
        }
        Op::DeleteTasks { tasks } => {
            tasks.iter().for_each(|task| tasks::delete(state, *task, events));
            Ok(())
        }
    }
}
