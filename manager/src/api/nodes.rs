//! Nodes.

use std::sync::Arc;

use axum::{extract, http::HeaderValue};
use serde_json::Value;
use swarm_consensus::Status;
use swarm_core::{DRAIN_DEADLINES_LEVEL, Guard, Op, State, Tx};
use swarm_docker_api::{
    ApiError, Filters, WARNING_HEADER,
    view::{ManagerStatusView, NodeView},
};
use swarm_model::{
    Availability, DRAIN_TIMEOUT_DEFAULT_NS, Extra, Labels, Node, NodeRole, NodeSpec, Timestamp, check_node_settings,
    drains_by_policy, parse_duration, validate_node_spec,
};

use super::{
    Plane,
    call::Call,
    change::change,
    reply::{self, Reply},
    resolve,
};

const FILTERS: &[&str] = &["id", "name", "label", "node.label", "role", "membership"];

/// `GET /nodes`
pub(super) async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let filters = call.filters(FILTERS)?;
    filters.check_values("role", &["worker", "manager"])?;
    filters.check_values("membership", &["accepted", "pending"])?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let nodes: Vec<_> = state.nodes().filter(|node| matches(&filters, node)).cloned().collect();
    let managers = plane.managers().await;
    Ok(reply::list(nodes, move |node| show(&plane, &managers, &node)))
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let none = Labels::new();
    let engine_labels = node.description.as_ref().map_or(&none, |d| &d.engine.labels);
    let named = |name: &str| filters.has_name_prefix("name", name);
    filters.has_prefix("id", &node.id.to_string())
        && (named(node.hostname()) || (!node.spec.name.is_empty() && named(&node.spec.name)))
        && filters.has_labels("label", engine_labels)
        && filters.has_labels("node.label", &node.spec.labels)
        && filters.has("role", node.spec.role.as_str())
        // Every node with a certificate is accepted; there is no waiting list.
        && filters.has("membership", "accepted")
}

/// `GET /nodes/{id}`
pub(super) async fn inspect<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let node = resolve::node(&state, call.id())?;
    reply::json(&show(&plane, &plane.managers().await, node))
}

fn show<P: Plane>(plane: &P, managers: &Status, node: &Node) -> NodeView {
    let manager_status = (node.role == NodeRole::Manager).then(|| {
        let leader = node.raft_id.is_some() && managers.leader == node.raft_id;
        let member = managers.members.iter().find(|member| Some(member.raft_id) == node.raft_id);
        let reachability = match member {
            _ if leader => "reachable",
            Some(member) if member.raft_id == managers.raft_id => "reachable",
            // Of the others only a leader knows.
            Some(member) if managers.leads() && !member.is_silent() => "reachable",
            Some(_) if managers.leads() => "unreachable",
            _ => "unknown",
        };
        ManagerStatusView {
            leader,
            reachability: reachability.into(),
            addr: node.manager_addr.clone().unwrap_or_default(),
        }
    });
    NodeView::new(node, plane.node_tls_info(node), manager_status)
}

/// `POST /nodes/{id}/update`
pub(super) async fn update<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let version = call.version("node")?;
    let spec = read_spec(&call)?;
    let drain = Drain::read(&call)?;
    if drain.is_some() && spec.availability != Availability::Drain {
        let text = format!("drain= belongs to the availability drain, the request has {}", spec.availability.as_str());
        return Err(ApiError::bad_request(text).into());
    }
    let managers = plane.managers().await;
    let is_without_deadline = change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let node = resolve::node(state, call.id())?;
        if node.version != version {
            return Err(reply::out_of_sequence().into());
        }
        check_role(&managers, state, node, spec.role)?;
        validate_node_spec(&spec)?;
        if drain == Some(Drain::Now) && state.feature_level() < DRAIN_DEADLINES_LEVEL {
            let text = "a drain without policy needs managers that all know it: upgrade them, or drain by policy";
            return Err(ApiError::bad_request(text).into());
        }
        check_node_settings(&spec.labels, &node.spec.labels)?;
        let drain_deadline = drain_deadline(node, &spec, drain, plane.now().max(state.time()));
        let is_without_deadline = drain.is_some() && state.feature_level() < DRAIN_DEADLINES_LEVEL;
        let op = Op::update_node(state, node.id, Arc::new(spec.clone()), drain_deadline);
        Ok((Tx::new(vec![op]).guard(Guard::Node { node: node.id, version }), is_without_deadline))
    })
    .await?;
    let mut answer = reply::empty();
    if is_without_deadline {
        let text = HeaderValue::from_static("this drain has no deadline: not all managers know deadlines yet");
        answer.headers_mut().insert(WARNING_HEADER, text);
    }
    Ok(answer)
}

/// How a node is to be drained (`?drain=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// Whatever the policies of its services say.
    Now,
    /// By the policies of its services, for so long.
    ByPolicy { timeout_ns: i64 },
}

impl Drain {
    fn read(call: &Call) -> Result<Option<Self>, ApiError> {
        let timeout = call.param("drainTimeout").filter(|text| !text.is_empty());
        match (call.param("drain").unwrap_or_default(), timeout) {
            ("", None) => Ok(None),
            ("now", None) => Ok(Some(Self::Now)),
            ("policy", None) => Ok(Some(Self::ByPolicy { timeout_ns: DRAIN_TIMEOUT_DEFAULT_NS })),
            ("policy", Some(text)) => match parse_duration(text) {
                Ok(timeout_ns) => Ok(Some(Self::ByPolicy { timeout_ns })),
                Err(error) => Err(ApiError::bad_request(format!("invalid drainTimeout: {error}"))),
            },
            ("" | "now", Some(_)) => Err(ApiError::bad_request("drainTimeout belongs to drain=policy")),
            (other, _) => Err(ApiError::bad_request(format!("invalid drain '{other}', possible are policy and now"))),
        }
    }
}

/// From when on a drain takes no heed of policies; none for at once. A node that is drained already goes on as it is,
/// unless the request or its label says otherwise.
fn drain_deadline(node: &Node, spec: &NodeSpec, asked: Option<Drain>, now: Timestamp) -> Option<Timestamp> {
    let by_label = drains_by_policy(&spec.labels);
    let goes_on = node.spec.availability == Availability::Drain && drains_by_policy(&node.spec.labels) == by_label;
    match asked {
        _ if spec.availability != Availability::Drain => None,
        Some(Drain::Now) => None,
        Some(Drain::ByPolicy { timeout_ns }) => Some(now.plus_ns(timeout_ns)),
        None if goes_on => node.drain_deadline,
        None => by_label.then(|| now.plus_ns(DRAIN_TIMEOUT_DEFAULT_NS)),
    }
}

/// Reads the body. Role and availability must be there: a default would demote or undrain a node.
fn read_spec(call: &Call) -> Result<NodeSpec, ApiError> {
    let mut fields: Extra = call.body()?;
    for (field, possible) in [("Role", &["worker", "manager"][..]), ("Availability", &["active", "pause", "drain"])] {
        let text = fields.get(field).and_then(Value::as_str).unwrap_or_default().to_lowercase();
        if !possible.contains(&text.as_str()) {
            let given = fields.get(field).map_or_else(|| "\"\"".into(), Value::to_string);
            let possible = possible.join(", ");
            return Err(ApiError::bad_request(format!("invalid {field}: {given}, possible are {possible}")));
        }
        fields.insert(field.into(), Value::from(text));
    }
    serde_json::from_value(Value::Object(fields.into_iter().collect()))
        .map_err(|e| ApiError::bad_request(format!("invalid value in the request: {e}")))
}

/// Refuses to demote the manager that the others need. The leader looks again before it acts.
fn check_role(status: &Status, state: &State, node: &Node, role: NodeRole) -> Result<(), ApiError> {
    let managers = state.nodes().filter(|n| n.spec.role == NodeRole::Manager).count();
    match (node.spec.role, role) {
        (NodeRole::Manager, NodeRole::Worker) if managers <= 1 => {
            Err(ApiError::bad_request("attempting to demote the last manager of the swarm"))
        }
        (NodeRole::Manager, NodeRole::Worker) => {
            let lost = node.raft_id.and_then(|id| status.keeps_majority_without(id).err());
            lost.map_or(Ok(()), |reason| {
                let text = "cannot demote this manager: the swarm would lose the majority of its managers";
                Err(ApiError::bad_request(format!("{text}; {reason}")))
            })
        }
        _ => Ok(()),
    }
}

/// `DELETE /nodes/{id}`
pub(super) async fn remove<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let node = resolve::node(state, call.id())?.id;
        Ok((Tx::new(vec![Op::RemoveNode { node, force: call.truthy("force") }]), ()))
    })
    .await?;
    Ok(reply::empty())
}
