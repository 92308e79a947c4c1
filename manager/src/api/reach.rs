//! Whether nodes reach each other's data ports, by a probe of each pair.

use std::collections::BTreeMap;

use axum::extract;
use swarm_core::State;
use swarm_docker_api::view::{ReachView, SilentNodeView, UnreachedView};
use swarm_model::NodeId;
use swarm_wire::{
    agent::{Answer, Question, REACH_NODES_MAX},
    endpoints::NodeRecord,
};

use super::{
    Plane,
    plan::node_name,
    reply::{self, Reply},
    resolve,
};
use crate::endpoints::node_record;

/// `GET /swarmd/reach`
pub(super) async fn probe<P: Plane>(extract::State(plane): extract::State<P>) -> Reply {
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    if state.services().all(|service| service.ports.is_empty()) {
        let reason = "no service publishes a port, so that data planes need not run".to_owned();
        return reply::json(&ReachView { reason, ..ReachView::default() });
    }
    let nodes: BTreeMap<NodeId, NodeRecord> =
        state.nodes().filter_map(|node| Some((node.id, node_record(&state, node.id)?))).collect();
    let probes = probes(&nodes);
    let counts: BTreeMap<NodeId, usize> = probes.iter().map(|(node, others)| (*node, others.len())).collect();
    let questions = probes.into_iter().map(|(node, others)| (node, Question::Reach(others))).collect();
    let mut view = ReachView { pairs: (nodes.len() * nodes.len().saturating_sub(1)) as u64, ..ReachView::default() };
    for (node, answer) in plane.ask(questions).await {
        let reason = match answer {
            Ok(Answer::Unreached(unreached)) => {
                view.probed += counts.get(&node).copied().unwrap_or_default() as u64;
                view.unreached.extend(unreached.into_iter().filter_map(|(to, reason)| {
                    let addr = nodes.get(&to)?.data_addr.to_string();
                    Some(unreached_view(&state, node, to, addr, reason))
                }));
                continue;
            }
            Ok(Answer::Traffic(_)) => "it answered another question".to_owned(),
            Ok(Answer::Unable(reason)) | Err(reason) => reason,
        };
        view.silent.push(SilentNodeView { node_id: node.to_string(), node: node_name(&state, node), reason });
    }
    reply::json(&view)
}

/// The nodes that each node is to probe: all others; where there are more than a node is to probe, those that follow it in
/// the order of ids, so that each is probed equally often.
fn probes(nodes: &BTreeMap<NodeId, NodeRecord>) -> Vec<(NodeId, Vec<NodeId>)> {
    let ids: Vec<NodeId> = nodes.keys().copied().collect();
    let others = |at: usize| {
        let others = ids.iter().cycle().skip(at + 1).take(ids.len() - 1);
        others.take(REACH_NODES_MAX).copied().collect::<Vec<_>>()
    };
    let probes = ids.iter().enumerate().map(|(at, node)| (*node, others(at)));
    probes.filter(|(_, others)| !others.is_empty()).collect()
}

fn unreached_view(state: &State, from: NodeId, to: NodeId, addr: String, reason: String) -> UnreachedView {
    UnreachedView {
        from_id: from.to_string(),
        from: node_name(state, from),
        to_id: to.to_string(),
        to: node_name(state, to),
        addr,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> BTreeMap<NodeId, NodeRecord> {
        let record = |id: NodeId| NodeRecord { id, data_addr: ([10, 0, 0, 1], 7946).into() };
        (0..count).map(|n| NodeId(n as u128)).map(|id| (id, record(id))).collect()
    }

    #[test]
    fn each_node_probes_all_others_and_in_a_large_cluster_each_is_probed_equally_often() {
        assert!(probes(&nodes(1)).is_empty());
        let few = probes(&nodes(3));
        assert_eq!(few[1], (NodeId(1), vec![NodeId(2), NodeId(0)]));
        let count = REACH_NODES_MAX + 10;
        let mut probed = BTreeMap::<NodeId, usize>::new();
        for (node, others) in probes(&nodes(count)) {
            assert!(others.len() == REACH_NODES_MAX && !others.contains(&node));
            others.into_iter().for_each(|other| *probed.entry(other).or_default() += 1);
        }
        assert!(probed.len() == count && probed.values().all(|times| *times == REACH_NODES_MAX));
    }
}
