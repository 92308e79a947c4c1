//! The spread: which node takes the next task (swarm-behaviour §5.3, §5.4).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use swarm_model::NodeId;

use super::{Candidate, FAILURES_MIN, Request, label, spread_descriptors};
use crate::State;

/// Lower is better: recent failures, tasks of this service, all tasks; the id makes it definite.
type Rank = (u32, u32, u32, NodeId);

/// The nodes that can take a task, as a tree with a level for each placement preference.
pub(super) struct Tree {
    root: Branch,
}

#[derive(Default)]
struct Branch {
    /// Tasks of the service below, those of nodes that can take no more included.
    tasks: u32,
    children: BTreeMap<String, Branch>,
    /// Nodes, in a branch without children.
    nodes: BinaryHeap<Reverse<Ranked>>,
}

struct Ranked {
    rank: Rank,
    candidate: Candidate,
}

impl Ranked {
    fn new(candidate: Candidate, request: &Request, failures: u32) -> Self {
        debug_assert!(failures == 0 || failures >= FAILURES_MIN);
        let of_service = candidate.load.active_of(request.service) + candidate.claims;
        let rank = (failures, of_service, candidate.load.active + candidate.claims, candidate.node.id);
        Self { rank, candidate }
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl Tree {
    pub(super) fn new(state: &State, request: &Request, failures: &BTreeMap<NodeId, u32>) -> Self {
        let descriptors = spread_descriptors(&request.spec);
        let mut root = Branch::default();
        for node in state.nodes() {
            let candidate = Candidate::new(state, node);
            let tasks = candidate.load.active_of(request.service);
            let mut branch = &mut root;
            branch.tasks += tasks;
            for descriptor in &descriptors {
                branch = branch.children.entry(label(descriptor, node).to_owned()).or_default();
                branch.tasks += tasks;
            }
            if request.check(&candidate).is_ok() {
                let failures = failures.get(&node.id).copied().unwrap_or(0);
                branch.nodes.push(Reverse(Ranked::new(candidate, request, failures)));
            }
        }
        Self { root }
    }

    /// The node for the next task, which it is counted to have from now on.
    pub(super) fn take(&mut self, request: &Request) -> Option<NodeId> {
        self.root.take(request)
    }
}

impl Branch {
    fn take(&mut self, request: &Request) -> Option<NodeId> {
        let node = if self.children.is_empty() { self.take_here(request) } else { self.take_below(request) }?;
        self.tasks += 1;
        Some(node)
    }

    fn take_here(&mut self, request: &Request) -> Option<NodeId> {
        let Reverse(Ranked { rank: (failures, _, _, id), mut candidate }) = self.nodes.pop()?;
        candidate.claims += 1;
        if request.check(&candidate).is_ok() {
            self.nodes.push(Reverse(Ranked::new(candidate, request, failures)));
        }
        Some(id)
    }

    /// From the child with the fewest tasks that still takes some.
    fn take_below(&mut self, request: &Request) -> Option<NodeId> {
        while let Some(name) =
            self.children.iter().min_by_key(|(name, b)| (b.tasks, *name)).map(|(name, _)| name.clone())
        {
            match self.children.get_mut(&name).and_then(|child| child.take(request)) {
                Some(node) => return Some(node),
                None => drop(self.children.remove(&name)),
            }
        }
        None
    }
}
