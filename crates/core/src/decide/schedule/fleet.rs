//! The nodes as one decision sees them: in the order in which the spread takes them.
//!
//! Made once for all services that a decision looks at, and kept in step with what it places. So a service looks at
//! as many nodes as it has tasks to place, not at all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use swarm_model::{Constraint, Node, NodeId};

use super::{
    bits::Bits,
    filter::{self, Request, Traits},
    label,
};
use crate::{Event, State, state::NOT_READY};

/// So many answers of each kind are remembered: services mostly share a few. One takes a bit or two for each node.
const REMEMBERED_MAX: usize = 64;
/// So many levels are filed one by one, each in a walk over all nodes: few tasks on many nodes need no more.
const LEVELS_SINGLE: usize = 2;
/// So many levels stand in a list while the nodes are filed; an empty one takes a bit for each node.
const LEVELS_DIRECT: usize = 256;

/// The nodes that take tasks. A node is known by the position of its row, which stays while a decision is made.
pub(in crate::decide) struct Fleet {
    /// Positions are below this.
    size: usize,
    /// The nodes with so many active tasks: those with fewer than `filed_to`, the others once they are asked for.
    levels: BTreeMap<u32, Bits>,
    filed_to: u32,
    filed_singly: usize,
    /// How many active tasks each node has, and is filed under.
    filed: Vec<u32>,
    /// Nodes whose tasks changed since.
    stale: Vec<usize>,
    /// Nodes that would take tasks, and which the leader has not heard from: left out.
    unheard: Vec<usize>,
    verdicts: Vec<Verdicts>,
    partitions: Vec<Rc<Partition>>,
}

impl Fleet {
    /// The nodes that take tasks, but for these; nodes do not change while a decision is made.
    pub(in crate::decide) fn new(state: &State, unheard: &BTreeSet<NodeId>) -> Self {
        let mut filed = state.loads.levels();
        let unheard: Vec<usize> = unheard.iter().filter_map(|id| state.loads.position(*id)).collect();
        let unheard =
            unheard.into_iter().filter(|n| std::mem::replace(&mut filed[*n], NOT_READY) != NOT_READY).collect();
        Self::of(state, filed, unheard)
    }

    /// Those that were left out, if there are such.
    pub(super) fn unheard(&self, state: &State) -> Option<Self> {
        if self.unheard.is_empty() {
            return None;
        }
        let levels = state.loads.levels();
        let mut filed = vec![NOT_READY; levels.len()];
        self.unheard.iter().for_each(|node| filed[*node] = levels[*node]);
        Some(Self::of(state, filed, Vec::new()))
    }

    fn of(state: &State, filed: Vec<u32>, unheard: Vec<usize>) -> Self {
        Self {
            size: state.loads.positions(),
            levels: BTreeMap::new(),
            filed_to: 0,
            filed_singly: 0,
            filed,
            stale: Vec::new(),
            unheard,
            verdicts: Vec::new(),
            partitions: Vec::new(),
        }
    }

    /// Files the nodes of the next level, or of all levels once some were asked for. Returns whether there was one.
    fn file_more(&mut self) -> bool {
        let from = self.filed_to;
        // Levels below wrap around and are far.
        let distance = self.filed.iter().map(|level| level.wrapping_sub(from)).min().unwrap_or(u32::MAX);
        if distance >= NOT_READY - from {
            self.filed_to = NOT_READY;
            return false;
        }
        let next = from + distance;
        if self.filed_singly < LEVELS_SINGLE {
            self.filed_singly += 1;
            self.levels.insert(next, Bits::of(&self.filed, |level| *level == next));
            self.filed_to = next + 1;
            return true;
        }
        // Most nodes have few tasks: their levels need no search.
        let mut low: Vec<Bits> = Vec::new();
        let rest = self.filed.iter().enumerate().filter(|(_, level)| (from..NOT_READY).contains(*level));
        for (node, level) in rest {
            let direct = (level - next) as usize;
            if direct < LEVELS_DIRECT {
                low.resize_with(low.len().max(direct + 1), || Bits::new(self.size));
                low[direct].insert_new(node);
            } else {
                self.levels.entry(*level).or_insert_with(|| Bits::new(self.size)).insert_new(node);
            }
        }
        self.levels.extend((next..).zip(low).filter(|(_, nodes)| !nodes.is_empty()));
        self.filed_to = NOT_READY;
        true
    }

    /// Says what changed: the nodes of these tasks have others than before.
    pub(in crate::decide) fn touch_all(&mut self, state: &State, events: &[Event]) {
        let node = |event: &Event| if let Event::Task { node, .. } = event { *node } else { None };
        self.stale.extend(events.iter().filter_map(node).filter_map(|node| state.loads.position(node)));
    }

    /// Takes over what changed.
    pub(super) fn refresh(&mut self, state: &State) {
        for node in std::mem::take(&mut self.stale) {
            let active = state.loads.at(node).1.active;
            let known = self.filed[node];
            if known == active || known == NOT_READY {
                continue;
            }
            self.filed[node] = active;
            // What is not in `levels` yet is filed later.
            if let Some(level) = self.levels.get_mut(&known) {
                level.remove(node);
                if level.is_empty() {
                    self.levels.remove(&known);
                }
            }
            if active < self.filed_to {
                self.levels.entry(active).or_insert_with(|| Bits::new(self.size)).insert(node);
            }
        }
    }

    /// Whether a node takes tasks at all.
    pub(super) fn is_ready(&self, node: usize) -> bool {
        self.filed[node] != NOT_READY
    }

    /// The next node in the order of active tasks, then ids, that is in all of these sets and not to be left out. The
    /// cursor starts as the default and is behind the node that was found.
    pub(super) fn next(&mut self, cursor: &mut Cursor, sets: &[Option<&Bits>], but: Option<&Bits>) -> Option<usize> {
        loop {
            for (level, nodes) in self.levels.range(cursor.level..) {
                let from = if *level == cursor.level { cursor.node } else { 0 };
                if let Some(node) = nodes.next_in(from, sets, but) {
                    *cursor = Cursor { level: *level, node: node + 1 };
                    return Some(node);
                }
            }
            *cursor = Cursor { level: self.filed_to, node: 0 };
            if self.filed_to == NOT_READY || !self.file_more() {
                return None;
            }
        }
    }

    /// What a request says of each node itself, as far as it is known; to be given back.
    pub(super) fn take_verdicts(&mut self, request: &Request<'_>) -> Verdicts {
        let asks_same = |verdicts: &Verdicts| verdicts.traits == request.traits;
        if let Some(known) = self.verdicts.iter().position(asks_same) {
            return self.verdicts.swap_remove(known);
        }
        let size = if request.traits.is_empty() { 0 } else { self.size };
        Verdicts { traits: request.traits.clone(), possible: Bits::full(size), known: Bits::new(size) }
    }

    /// Remembers it for the next service.
    pub(super) fn give_back(&mut self, verdicts: Verdicts) {
        if verdicts.traits.is_empty() {
            return;
        }
        if self.verdicts.len() == REMEMBERED_MAX {
            self.verdicts.clear();
        }
        self.verdicts.push(verdicts);
    }

    /// The nodes in groups that differ in the labels to spread over, or in how many preferred constraints they miss.
    pub(super) fn partition(&mut self, state: &State, descriptors: &[String], prefer: &[Constraint]) -> Rc<Partition> {
        if let Some(known) = self.partitions.iter().find(|p| p.descriptors == descriptors && p.prefer == prefer) {
            return known.clone();
        }
        let mut groups: BTreeMap<(Vec<String>, u32), Bits> = BTreeMap::new();
        for (position, node) in state.loads.iter().filter_map(|(n, id, _)| Some((n, state.node(id)?))) {
            let key = (path(descriptors, node), filter::missed(prefer, node));
            groups.entry(key).or_insert_with(|| Bits::new(self.size)).insert(position);
        }
        let partition = Rc::new(Partition { descriptors: descriptors.to_vec(), prefer: prefer.to_vec(), groups });
        if self.partitions.len() == REMEMBERED_MAX {
            self.partitions.clear();
        }
        self.partitions.push(partition.clone());
        partition
    }
}

/// The labels of a node that a service is spread over, outermost first.
pub(super) fn path(descriptors: &[String], node: &Node) -> Vec<String> {
    descriptors.iter().map(|descriptor| label(descriptor, node).to_owned()).collect()
}

/// How far a walk over the nodes is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    level: u32,
    node: usize,
}

/// See [`Fleet::partition`].
pub(super) struct Partition {
    descriptors: Vec<String>,
    prefer: Vec<Constraint>,
    /// By labels, outermost first, and missed constraints.
    pub(super) groups: BTreeMap<(Vec<String>, u32), Bits>,
}

/// Which nodes have what is asked of them. Each is asked when it comes up.
pub(super) struct Verdicts {
    traits: Traits,
    /// Nodes that are not known to fail.
    possible: Bits,
    /// Of those the ones that are known to pass.
    known: Bits,
}

impl Verdicts {
    /// The nodes that are not known to fail; none if nothing is asked of them.
    pub(super) fn possible(&self) -> Option<&Bits> {
        (!self.traits.is_empty()).then_some(&self.possible)
    }

    /// Whether a node passes.
    pub(super) fn pass(&mut self, state: &State, request: &Request<'_>, node: usize, id: NodeId) -> bool {
        if self.possible().is_none() || self.known.contains(node) {
            return true;
        }
        let passes =
            self.possible.contains(node) && state.node(id).is_some_and(|node| request.traits.suit(node).is_ok());
        if passes {
            self.known.insert(node);
        } else {
            self.possible.remove(node);
        }
        passes
    }
}
