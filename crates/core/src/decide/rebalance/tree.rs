//! Which nodes are better than others for the tasks of a service: the rule, and a way to ask it of many nodes.

use std::{cmp::Reverse, collections::BTreeMap};

use swarm_model::NodeId;

use crate::decide::slots::Place;

/// A step on the way from all nodes to one, outermost first: what the scheduler compares of them, in its order. Where the
/// ways to two nodes part, one of them is better if its step weighs so much less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step<'a> {
    /// The label that a placement preference names.
    Branch(&'a str),
    /// How many of the preferred constraints are missed.
    Missed(u32),
    Node(NodeId),
}

impl Step<'_> {
    /// What is compared. `tasks` are those of the service beyond this step.
    fn weight(self, tasks: u32) -> u32 {
        match self {
            Self::Missed(missed) => missed,
            Self::Branch(_) | Self::Node(_) => tasks,
        }
    }

    /// How much less a better one weighs at least. A move would turn a difference of one task around, and no more.
    fn less_min(self) -> u32 {
        match self {
            Self::Missed(_) => 1,
            Self::Branch(_) | Self::Node(_) => 2,
        }
    }
}

/// The tasks of a service, by the steps to their nodes.
#[derive(Default)]
pub(super) struct Tree<'a> {
    /// Active tasks below.
    pub(super) tasks: u32,
    below: BTreeMap<Step<'a>, Self>,
    /// Of a node the places whose task may move, the first one last.
    pub(super) movable: Vec<(NodeId, Place)>,
    /// The most that a step below weighs which leads to tasks that may move; none if there are no such tasks.
    heaviest: Option<u32>,
}

impl<'a> Tree<'a> {
    /// Adds so many tasks on a node. Returns what there is of the node. To be weighed again.
    pub(super) fn add(&mut self, steps: &[Step<'a>], tasks: u32) -> &mut Self {
        self.change(steps, |of| of + tasks)
    }

    /// The same with a task less.
    pub(super) fn take_one(&mut self, steps: &[Step<'a>]) -> &mut Self {
        self.change(steps, |of| of.saturating_sub(1))
    }

    fn change(&mut self, steps: &[Step<'a>], change: impl Fn(u32) -> u32) -> &mut Self {
        steps.iter().fold(self, |tree, step| {
            let next = tree.below.entry(*step).or_default();
            next.tasks = change(next.tasks);
            next
        })
    }

    /// Finds out what is heaviest; `is_source` says of a node whether tasks may move from it.
    pub(super) fn weigh(&mut self, is_source: &impl Fn(&Self) -> bool) {
        if self.below.is_empty() {
            self.heaviest = is_source(self).then_some(0);
            return;
        }
        let weigh = |(step, tree): (&Step<'a>, &mut Self)| {
            tree.weigh(is_source);
            tree.heaviest.map(|_| step.weight(tree.tasks))
        };
        self.heaviest = self.below.iter_mut().filter_map(weigh).max();
    }

    /// Whether a task may move from some node below.
    fn has_source(&self) -> bool {
        self.heaviest.is_some()
    }

    /// Whether a node could be better at all: the quick no before many are asked.
    pub(super) fn has_uneven(&self) -> bool {
        self.below.iter().any(|(step, tree)| self.heaviest >= Some(step.less_min()) || tree.has_uneven())
    }

    /// The nodes among which is one that this one is better than, and from which a task may move; none if there is no
    /// such node.
    pub(super) fn source_for(&self, steps: &[Step<'a>]) -> Option<&Self> {
        let mut tree = self;
        for step in steps {
            let next = tree.below.get(step);
            let weight = step.weight(next.map_or(0, |next| next.tasks));
            if tree.heaviest? >= weight + step.less_min() {
                return Some(tree);
            }
            tree = next?;
        }
        None
    }

    /// A place that may move, of the node that the scheduler would take last.
    pub(super) fn fullest(&self) -> Option<(NodeId, Place)> {
        let sources = self.below.iter().filter(|(_, tree)| tree.has_source());
        match sources.max_by_key(|(step, tree)| (step.weight(tree.tasks), Reverse(**step))) {
            Some((_, tree)) => tree.fullest(),
            None => self.movable.last().copied(),
        }
    }

    /// Where a node comes in the scheduler's order: each step with what it weighs. The tasks of all services on the node,
    /// `active`, come before its id.
    pub(super) fn rank(&self, steps: &[Step<'a>], active: u32) -> Vec<(u32, u32, Step<'a>)> {
        let mut tree = Some(self);
        let rank = |step: &Step<'a>| {
            tree = tree.and_then(|tree| tree.below.get(step));
            let active = if matches!(step, Step::Node(_)) { active } else { 0 };
            (step.weight(tree.map_or(0, |tree| tree.tasks)), active, *step)
        };
        steps.iter().map(rank).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZONES: [&str; 3] = ["", "a", "b"];

    /// Zone, rack, preferred constraints that are missed, tasks, and whether these may move.
    type Node = (usize, usize, u32, u32, bool);

    fn steps(number: usize, node: &Node) -> [Step<'static>; 4] {
        let id = NodeId(number as u128);
        [Step::Branch(ZONES[node.0]), Step::Branch(ZONES[node.1]), Step::Missed(node.2), Step::Node(id)]
    }

    /// Tasks on the nodes for which this holds.
    fn tasks(nodes: &[Node], holds: impl Fn(&Node) -> bool) -> u32 {
        nodes.iter().filter(|node| holds(node)).map(|node| node.3).sum()
    }

    /// The rule, read out.
    fn is_better(nodes: &[Node], to: &Node, from: &Node) -> bool {
        let in_zone = |node: &Node| tasks(nodes, |other| other.0 == node.0);
        let in_rack = |node: &Node| tasks(nodes, |other| (other.0, other.1) == (node.0, node.1));
        if to.0 != from.0 {
            in_zone(to) + 2 <= in_zone(from)
        } else if to.1 != from.1 {
            in_rack(to) + 2 <= in_rack(from)
        } else if to.2 != from.2 {
            to.2 < from.2
        } else {
            to.3 + 2 <= from.3
        }
    }

    /// How uneven things are, in the order in which it counts. Each move makes it less, so moves end.
    fn unevenness(nodes: &[Node]) -> [u32; 4] {
        let squares = |tasks: u32| tasks * tasks;
        let zones = (0..3).map(|zone| squares(tasks(nodes, |node| node.0 == zone))).sum();
        let racks = (0..9).map(|n| squares(tasks(nodes, |node| (node.0, node.1) == (n / 3, n % 3)))).sum();
        let missed = nodes.iter().map(|node| node.2 * node.3).sum();
        [zones, racks, missed, nodes.iter().map(|node| squares(node.3)).sum()]
    }

    proptest! {
        #[test]
        fn the_tree_follows_the_rule_and_moves_end(
            nodes in prop::collection::vec((0..3_usize, 0..3_usize, 0..3_u32, 0..6_u32, any::<bool>()), 1..12),
        ) {
            let (mut nodes, mut tree) = (nodes, Tree::default());
            for (number, node) in nodes.iter().enumerate().filter(|(_, node)| node.3 > 0) {
                let node_of_tree = tree.add(&steps(number, node), node.3);
                if node.4 {
                    node_of_tree.movable = vec![(NodeId(number as u128), Place::Number(1)); node.3 as usize];
                }
            }
            loop {
                tree.weigh(&|node| !node.movable.is_empty());
                let mut best = None;
                for (number, to) in nodes.iter().enumerate() {
                    let source = tree.source_for(&steps(number, to));
                    let movable = |from: &&Node| from.4 && from.3 > 0;
                    let is_target = nodes.iter().filter(movable).any(|from| is_better(&nodes, to, from));
                    prop_assert!(!is_target || tree.has_uneven());
                    prop_assert_eq!(source.is_some(), is_target, "node {} of {:?}", number, &nodes);
                    let rank = tree.rank(&steps(number, to), 0);
                    best = best.into_iter().chain(source.map(|source| (rank, number, source.fullest()))).min();
                }
                let Some((_, to, from)) = best else { break };
                let from = from.expect("there is one").0.0 as usize;
                prop_assert!(is_better(&nodes, &nodes[to], &nodes[from]), "{} to {} of {:?}", from, to, &nodes);
                let before = unevenness(&nodes);
                tree.take_one(&steps(from, &nodes[from])).movable.pop();
                let arrived = tree.add(&steps(to, &nodes[to]), 1);
                if nodes[to].4 {
                    arrived.movable.push((NodeId(to as u128), Place::Number(1)));
                }
                nodes[from].3 -= 1;
                nodes[to].3 += 1;
                prop_assert!(unevenness(&nodes) < before);
            }
        }
    }
}
