//! Rebalancing: tasks move to nodes that came, came back or got room (`swarmd.rebalance`, `swarmctl service rebalance`).
//!
//! A task moves from a node only to a *better* one. That is one which, in the first of these in which the two differ,
//!
//! 1. for each placement preference in its order: is in a branch with at least two tasks of the service fewer;
//! 2. misses fewer of the preferred constraints (`swarmd.placement.prefer`);
//! 3. has at least two tasks of the service fewer.
//!
//! This is the order in which the scheduler compares nodes, so what it places well is not moved again. With each move
//! the spread over the branches gets more even, or, that being as it was, fewer constraints are missed, or, that being
//! as it was too, the spread over the nodes gets more even: so the moves end. Whether a node is better does not depend on
//! which nodes are full. One that fills up only takes a target away, so nobody has to hear of it; one that gets room does
//! matter ([`gains`]).

mod tree;

use std::collections::{BTreeMap, BTreeSet};

use swarm_model::{
    Cause, DesiredState, Node, NodeId, PlacementStrategy, RestartCondition, Service, ServiceMode, Settings, TaskState,
};

use tree::{Step, Tree};

use super::{
    Planner,
    budget::Budget,
    fill, rolling,
    schedule::{self, Constraints, Preferences},
    slots::{Kinship, Place as SlotPlace, Slot},
};
use crate::{Op, Place, State, Tx, state::is_active};

/// Moves begun in one look: bounds the time of a decision. The rest follows when these have moved.
const MOVES_MAX: usize = 16;

/// Whether the tasks of a service are to be kept even, or once to be made so. What is packed is not kept even: such a spec
/// is refused, but an older state may have it. Nor is it made so, but a wish for that stands until it was looked at.
pub(super) fn is_wanted(service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Replicated { .. })
        && (service.rebalance || Settings::of(&service.spec.labels).rebalance && !is_packed(service))
}

fn is_packed(service: &Service) -> bool {
    Settings::of(&service.spec.labels).strategy == PlacementStrategy::Pack
}

/// Begins as many moves as there is room for. `idle` says that nothing is under way: then there being none to make means
/// that the service is even.
pub(super) fn advance(planner: &mut Planner, service: &Service, room: usize, mut budget: Budget, idle: bool) {
    if !is_wanted(service) {
        return;
    }
    let slots = planner.slots(service);
    debug_assert_eq!(slots.settled, 0, "of what is to be even no place is left out");
    let slots = &slots.shown;
    // Nodes do not change while a decision is made.
    let before = planner.state.clone();
    let mut moves = Moves::new(&before, service, slots);
    let order = rolling::order(service);
    let mut begun = 0;
    while begun < room.min(MOVES_MAX)
        && let Some(best) = moves.best(&planner.state)
    {
        let slot = &slots[&best.place];
        if !budget.take_for_move(&planner.state, slot, order) {
            break;
        }
        let mut replacement = rolling::replacement(planner, slot, best.place, Cause::Move, order);
        replacement.to = Some(best.to);
        fill::place(planner, service, vec![fill::Need::Replace(replacement)]);
        moves.follow(&planner.state, service, &best);
        begun += 1;
    }
    if service.rebalance && idle && begun == 0 && moves.best(&planner.state).is_none() {
        planner.push_for(service, Tx::new(vec![Op::SetRebalance { service: service.id, asked: false }]));
    } else if let Some(at) = schedule::forgets_at(&planner.state, service) {
        // A node that comes last for now may then be the one to move to.
        planner.wake(service.id, at);
    }
}

/// Whether one of these nodes, which have more room than before, may take a task of the service from another one. What
/// keeps tasks where they are for now is not asked: when it ends, the service is looked at for that.
pub(super) fn gains(state: &State, service: &Service, nodes: &BTreeSet<NodeId>) -> bool {
    let constraints = Constraints::of(&service.spec);
    let mut nodes = nodes.iter().filter_map(|id| state.node(*id)).filter(|node| constraints.hold(node)).peekable();
    if nodes.peek().is_none() {
        return false;
    }
    let preferences = Preferences::of(service);
    let mut tree = tree(state, &preferences, schedule::active_of_service(state, service));
    tree.weigh(&|node| node.tasks > 0);
    tree.has_uneven() && nodes.any(|node| tree.source_for(&steps(&preferences, node)).is_some())
}

/// The steps to a node.
fn steps<'a>(preferences: &Preferences, node: &'a Node) -> Vec<Step<'a>> {
    let branches = preferences.branches(node).map(Step::Branch);
    branches.chain([Step::Missed(preferences.missed(node)), Step::Node(node.id)]).collect()
}

/// The tasks of a service, so many on each node.
fn tree<'a>(state: &'a State, preferences: &Preferences, counts: BTreeMap<NodeId, u32>) -> Tree<'a> {
    let mut tree = Tree::default();
    for (node, count) in counts.into_iter().filter_map(|(id, count)| Some((state.node(id)?, count))) {
        tree.add(&steps(preferences, node), count);
    }
    tree
}

/// A move of a place to a better node.
struct Move {
    place: SlotPlace,
    from: NodeId,
    to: NodeId,
}

/// The moves that a service could make, in a state whose nodes stay as they are.
struct Moves<'a> {
    state: &'a State,
    preferences: Preferences,
    tree: Tree<'a>,
    /// Nodes that are better than another one, and may take a task.
    targets: Vec<(NodeId, Vec<Step<'a>>)>,
}

impl<'a> Moves<'a> {
    fn new(state: &'a State, service: &Service, slots: &BTreeMap<SlotPlace, Slot>) -> Self {
        let preferences = Preferences::of(service);
        let mut counts = schedule::active_of_service(state, service);
        // What is about to be taken over no longer counts.
        for task in slots.values().flat_map(|slot| slot.live().rev().skip(1)).filter(|task| is_active(task)) {
            if let Some(count) = task.node.and_then(|node| counts.get_mut(&node)) {
                *count -= 1;
            }
        }
        let mut tree = tree(state, &preferences, counts);
        for (node, place) in movable(state, service, slots) {
            tree.add(&steps(&preferences, node), 0).movable.push((node.id, place));
        }
        tree.weigh(&|node| !node.movable.is_empty());
        let is_open = schedule::openings(state, service);
        let target = |node: &'a Node| {
            let steps = steps(&preferences, node);
            (tree.source_for(&steps).is_some() && is_open(node)).then_some((node.id, steps))
        };
        let targets =
            if tree.has_uneven() { state.nodes().filter_map(|node| target(node)).collect() } else { Vec::new() };
        Self { state, preferences, tree, targets }
    }

    /// The move to the node that the scheduler would take first, from the fullest that it is better than. `state` is how
    /// things are by now.
    fn best(&self, state: &State) -> Option<Move> {
        let better = self.targets.iter().filter_map(|(to, steps)| Some((to, steps, self.tree.source_for(steps)?)));
        let active = |node| state.loads.get(node).map_or(0, |load| load.active);
        let (to, _, source) = better.min_by_key(|(to, steps, _)| self.tree.rank(steps, active(**to)))?;
        let (from, place) = source.fullest()?;
        Some(Move { place, from, to: *to })
    }

    /// Takes over that a move was begun, after which things are as `state` says.
    fn follow(&mut self, state: &State, service: &Service, made: &Move) {
        let steps_to = |id| self.state.node(id).map_or(Vec::new(), |node| steps(&self.preferences, node));
        let (from, to) = (steps_to(made.from), steps_to(made.to));
        self.tree.take_one(&from).movable.pop();
        self.tree.add(&to, 1);
        self.tree.weigh(&|node| !node.movable.is_empty());
        if !matches!(schedule::place_on(state, service, made.to), Place::On(_)) {
            self.targets.retain(|(node, _)| *node != made.to);
        }
    }
}

/// The places whose task may move, with its node, the last ones first: it runs and is wanted as it is. A move that
/// failed is not tried again.
fn movable<'a>(
    state: &'a State,
    service: &Service,
    slots: &BTreeMap<SlotPlace, Slot>,
) -> impl Iterator<Item = (&'a Node, SlotPlace)> {
    // Where tasks are to be started once and never again, none can move.
    let stays = is_packed(service) || service.spec.task_template.restart().condition == RestartCondition::None;
    let kinship = Kinship::default();
    slots.iter().rev().filter(move |_| !stays).filter_map(move |(place, slot)| {
        let task = slot.0.last()?;
        let settled = slot.live().count() == 1 && task.desired == DesiredState::Running;
        let runs = task.status.state == TaskState::Running && !kinship.is_dirty(state, service, task);
        let node = state.node(task.node.filter(|_| settled && runs)?)?;
        Some((&**node, *place))
    })
}
