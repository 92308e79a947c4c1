//! The order of the nodes: which one takes the next task (swarm-behaviour §5.3, §5.4).
//!
//! The result is that of a walk over all nodes for each task; the walk is lazy. Nodes that have no task of the service
//! come first, in the order in which the fleet keeps all nodes, so none is looked at before its turn.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    rc::Rc,
};

use swarm_model::{Constraint, NodeId, PlacementStrategy, ResourceReservations, ServiceId, Settings};

use super::{
    FAILURES_MIN, Failures, Request,
    bits::Bits,
    filter,
    fleet::{self, Cursor, Fleet, Partition, Verdicts},
    has_tasks, spread_descriptors,
};
use crate::State;

/// Lower is better: recent failures, preferred constraints that are missed, then for a spread tasks of this service
/// and all tasks, for a pack how empty the node is; the number makes it definite.
type Rank = (u32, u32, u64, u64, usize);

/// When so many nodes were asked one by one for tasks of the service, walking along its tasks is cheaper.
const ASKED_MAX: u32 = 4;

/// A node that has so many tasks counts as one more of them: to ask it is a look at each.
const ASKED_TASKS: u32 = 64;

/// The nodes that can take a task, as a tree with a level for each placement preference.
pub(super) struct Tree<'a> {
    root: Branch,
    round: Round<'a>,
}

/// What all branches look at.
struct Round<'a> {
    fleet: &'a mut Fleet,
    state: &'a State,
    request: &'a Request<'a>,
    verdicts: Verdicts,
    strategy: PlacementStrategy,
    /// The active tasks of the service, once more than a few nodes are asked about.
    counts: Option<Counts>,
    /// Nodes that were asked about one by one.
    asked: u32,
    /// Where the service failed often.
    failures: BTreeMap<usize, u32>,
}

/// The active tasks of a service by node.
#[derive(Default)]
struct Counts {
    /// The nodes that have some.
    nodes: Bits,
    /// Those that have several, once for each task but one, in order.
    more: Vec<usize>,
}

#[derive(Default)]
struct Branch {
    /// Tasks of the service below, those of nodes that can take no more included.
    tasks: u32,
    children: BTreeMap<String, Branch>,
    /// Nodes, in a branch without children: those that meet more of the preferred constraints first, those where the
    /// service failed often last.
    classes: Vec<Class>,
}

/// Nodes of a branch that come before others.
struct Class {
    nodes: Nodes,
    cursor: Cursor,
    /// The nodes that got a task, with how many. Once no other is left, they and those that had some take turns.
    taken: Vec<(usize, u32)>,
    queue: Option<BinaryHeap<Reverse<(Rank, u32)>>>,
}

enum Nodes {
    All,
    Group {
        partition: Rc<Partition>,
        key: (Vec<String>, u32),
    },
    /// Where the service failed often, with the preferred constraints that each misses.
    Failing(Vec<(usize, u32)>),
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        fleet: &'a mut Fleet,
        state: &'a State,
        request: &'a Request<'a>,
        failures: &BTreeMap<NodeId, Failures>,
    ) -> Self {
        let has_tasks = has_tasks(state, request.service);
        let service = request.service;
        fleet.refresh(state);
        let settings = Settings::of(&service.spec.labels);
        let descriptors = spread_descriptors(&service.spec);
        let counts = if has_tasks { None } else { Some(Counts::default()) };
        let position = |id| state.loads.position(id).filter(|node| fleet.is_ready(*node));
        let failures: BTreeMap<usize, u32> =
            failures.iter().filter_map(|(id, found)| Some((position(*id)?, found.count))).collect();
        debug_assert!(failures.values().all(|count| *count >= FAILURES_MIN));
        let mut root = Branch::default();
        if descriptors.is_empty() && settings.prefer.is_empty() {
            root.classes = vec![Class::new(Nodes::All)];
        } else {
            root.grow(&fleet.partition(state, &descriptors, &settings.prefer));
            let counts = if has_tasks { filter::active_of_service(state, service) } else { BTreeMap::new() };
            for (node, count) in counts.iter().filter_map(|(id, count)| Some((state.node(*id)?, count))) {
                root.count(&fleet::path(&descriptors, node), *count);
            }
        }
        let verdicts = fleet.take_verdicts(request);
        let mut tree = Self {
            root,
            round: Round { fleet, state, request, verdicts, strategy: settings.strategy, counts, asked: 0, failures },
        };
        tree.add_failing(&descriptors, &settings.prefer);
        tree
    }

    /// The node for the next task, which it is counted to have from now on.
    pub(super) fn take(&mut self) -> Option<NodeId> {
        self.root.take(&mut self.round).map(|node| self.round.state.loads.at(node).0)
    }

    /// What was found out about the nodes, for [`Fleet::give_back`].
    pub(super) fn into_verdicts(self) -> Verdicts {
        self.round.verdicts
    }

    fn add_failing(&mut self, descriptors: &[String], prefer: &[Constraint]) {
        let Round { state, failures, .. } = &self.round;
        for number in failures.keys().copied() {
            let Some(node) = state.node(state.loads.at(number).0) else { continue };
            let leaf = self.root.leaf(&fleet::path(descriptors, node));
            let failing = (number, filter::missed(prefer, node));
            match leaf.classes.last_mut().map(|class| &mut class.nodes) {
                Some(Nodes::Failing(nodes)) => nodes.push(failing),
                _ => leaf.classes.push(Class::new(Nodes::Failing(vec![failing]))),
            }
        }
    }
}

impl Round<'_> {
    /// Whether a node can take one more task beside so many that it got in this round.
    fn passes(&mut self, node: usize, claims: u32) -> bool {
        let row = self.state.loads.at(node);
        let of_service = self.of_service(node);
        self.verdicts.pass(self.state, self.request, node, row.0)
            && self.request.has_place(self.state, row, of_service + claims, claims)
    }

    /// How many active tasks of the service a node has.
    fn of_service(&self, node: usize) -> u32 {
        match &self.counts {
            Some(counts) => counts.of_node(node),
            None => filter::active_of_service_on(self.state, self.request.service, self.state.loads.at(node).0),
        }
    }

    /// Whether a node has active tasks of the service, or saw it fail often.
    fn is_known(&mut self, node: usize) -> bool {
        self.asked += 1 + self.state.loads.at(node).1.active / ASKED_TASKS;
        if self.asked >= ASKED_MAX {
            self.count();
        }
        self.failures.contains_key(&node) || self.of_service(node) > 0
    }

    /// The nodes that take tasks and of which [`Round::is_known`] says so, for all of them at once, in order.
    fn all_known(&mut self) -> Vec<usize> {
        self.count();
        let counted = self.counts.iter().flat_map(|counts| counts.nodes.iter());
        let mut known: Vec<usize> = counted.filter(|node| self.fleet.is_ready(*node)).collect();
        known.extend(self.failures.keys());
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Counts the tasks of the service on all nodes.
    fn count(&mut self) {
        let Self { state, request, .. } = *self;
        self.counts.get_or_insert_with(|| Counts::of(state, request.service.id));
    }

    fn rank(&self, node: usize, missed: u32, claims: u32) -> Rank {
        let of_service = self.of_service(node);
        let failures = self.failures.get(&node).copied().unwrap_or(0);
        let load = self.state.loads.at(node).1;
        let active = u64::from(load.active + claims);
        match self.strategy {
            PlacementStrategy::Spread => (failures, missed, u64::from(of_service + claims), active, node),
            PlacementStrategy::Pack => {
                let nothing = ResourceReservations::default();
                let share = load.reserved_share_ppm(self.request.asked.unwrap_or(&nothing), claims);
                (failures, missed, u64::MAX - share, u64::MAX - active, node)
            }
        }
    }
}

impl Counts {
    fn of(state: &State, service: ServiceId) -> Self {
        let mut counts = Self { nodes: Bits::new(state.loads.positions()), more: Vec::new() };
        // Tasks that were placed together stand side by side on nodes that do.
        let mut last = 0;
        for id in state.active_nodes_of_service(service) {
            let Some(node) = state.loads.position_after(last, id) else { continue };
            last = node;
            if counts.nodes.contains(node) {
                counts.more.push(node);
            } else {
                counts.nodes.insert_new(node);
            }
        }
        counts.more.sort(); // Stable, as it is fast where parts are in order.
        counts
    }

    /// How many a node has.
    fn of_node(&self, node: usize) -> u32 {
        if !self.nodes.contains(node) {
            return 0;
        }
        let more = &self.more[self.more.partition_point(|other| *other < node)..];
        1 + more.partition_point(|other| *other == node) as u32
    }
}

impl Branch {
    /// Makes the branches of all groups of nodes.
    fn grow(&mut self, partition: &Rc<Partition>) {
        for key in partition.groups.keys() {
            let nodes = Nodes::Group { partition: partition.clone(), key: key.clone() };
            self.leaf(&key.0).classes.push(Class::new(nodes));
        }
    }

    fn leaf(&mut self, path: &[String]) -> &mut Self {
        path.iter().fold(self, |branch, label| branch.children.entry(label.clone()).or_default())
    }

    /// Counts tasks that are there, also those on nodes that take no more.
    fn count(&mut self, path: &[String], tasks: u32) {
        self.tasks += tasks;
        let mut branch = self;
        for label in path {
            branch = branch.children.entry(label.clone()).or_default();
            branch.tasks += tasks;
        }
    }

    fn take(&mut self, round: &mut Round<'_>) -> Option<usize> {
        let node = if self.children.is_empty() {
            self.classes.iter_mut().find_map(|class| class.take(round))
        } else {
            self.take_below(round)
        }?;
        self.tasks += 1;
        Some(node)
    }

    /// From the child with the fewest tasks that still takes some.
    fn take_below(&mut self, round: &mut Round<'_>) -> Option<usize> {
        while let Some(name) =
            self.children.iter().min_by_key(|(name, b)| (b.tasks, *name)).map(|(name, _)| name.clone())
        {
            match self.children.get_mut(&name).and_then(|child| child.take(round)) {
                Some(node) => return Some(node),
                None => drop(self.children.remove(&name)),
            }
        }
        None
    }
}

impl Class {
    fn new(nodes: Nodes) -> Self {
        Self { nodes, cursor: Cursor::default(), taken: Vec::new(), queue: None }
    }

    fn take(&mut self, round: &mut Round<'_>) -> Option<usize> {
        if self.queue.is_none() {
            if round.strategy == PlacementStrategy::Spread
                && let Some(node) = self.take_fresh(round)
            {
                self.taken.push((node, 1));
                return Some(node);
            }
            self.line_up(round);
        }
        let queue = self.queue.as_mut()?;
        let Reverse(((_, missed, .., node), claims)) = queue.pop()?;
        if round.passes(node, claims + 1) {
            queue.push(Reverse((round.rank(node, missed, claims + 1), claims + 1)));
        }
        Some(node)
    }

    /// The next node without a task of the service.
    fn take_fresh(&mut self, round: &mut Round<'_>) -> Option<usize> {
        while let Some(node) = self.next(round) {
            if !round.is_known(node) && round.passes(node, 0) {
                return Some(node);
            }
        }
        None
    }

    /// The next node of the fleet that is in this class, but for those that are known to have tasks of the service.
    fn next(&mut self, round: &mut Round<'_>) -> Option<usize> {
        if matches!(self.nodes, Nodes::Failing(_)) {
            return None;
        }
        let known = round.counts.as_ref().map(|counts| &counts.nodes).filter(|nodes| !nodes.is_empty());
        round.fleet.next(&mut self.cursor, &[round.verdicts.possible(), self.nodes.group()], known)
    }

    /// Lets the nodes take turns.
    fn line_up(&mut self, round: &mut Round<'_>) {
        let mut queue = std::mem::take(&mut self.taken);
        let known = round.all_known();
        let missed = match &self.nodes {
            Nodes::All | Nodes::Failing(_) => 0,
            Nodes::Group { key, .. } => key.1,
        };
        if round.strategy == PlacementStrategy::Pack {
            while let Some(node) = self.next(round) {
                if known.binary_search(&node).is_err() {
                    queue.push((node, 0));
                }
            }
        }
        let members = |node: &usize| {
            let is_member =
                !round.failures.contains_key(node) && self.nodes.group().is_none_or(|group| group.contains(*node));
            is_member.then_some((*node, 0))
        };
        let mut ranked: Vec<(usize, u32, u32)> = match &self.nodes {
            Nodes::Failing(nodes) => nodes.iter().map(|(node, missed)| (*node, 0, *missed)).collect(),
            Nodes::All | Nodes::Group { .. } => {
                queue.extend(known.iter().filter_map(members));
                queue.into_iter().map(|(node, claims)| (node, claims, missed)).collect()
            }
        };
        ranked.retain(|(node, claims, _)| round.passes(*node, *claims));
        let rank = |(node, claims, missed)| Reverse((round.rank(node, missed, claims), claims));
        self.queue = Some(ranked.into_iter().map(rank).collect());
    }
}

impl Nodes {
    fn group(&self) -> Option<&Bits> {
        match self {
            Self::Group { partition, key } => partition.groups.get(key),
            Self::All | Self::Failing(_) => None,
        }
    }
}
