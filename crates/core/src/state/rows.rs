//! A table of nodes: one flat row each, in order of their ids.
//!
//! Every task that is placed reads and changes a row, and every decision reads how full all of them are. So rows stand
//! side by side in pages, and pages in groups, which a clone shares until they change; a row is found by its position
//! as well as by its id. What a placed task does not change, the ids, and what is read of all at once stand in the group:
//! a page is small, for mostly one row of it changes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use swarm_model::NodeId;

use super::NodeLoad;

/// Rows of a page. A change copies one page, the levels and counters of its group, and the list of groups: with 100,000
/// nodes that is a kilobyte, two kilobytes, and some 230 counters. Counters are dear, for each is somewhere else.
const PAGE_ROWS: usize = 16;

/// Positions of a group: 32 pages.
const GROUP_ROWS: usize = 32 * PAGE_ROWS;

/// What is not in so many rows behind the last one is searched in all.
const NEAR_ROWS: usize = 64;

/// What [`Rows::levels`] says of a node that takes no tasks.
pub(crate) const NOT_READY: u32 = u32::MAX;

/// See the module. A clone costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Their ids follow on each other; none is empty.
    groups: Arc<Vec<Arc<Group>>>,
    /// The position that was asked for last: tasks that are placed together stand on nodes that do. Where a search
    /// begins makes no difference to what it finds.
    near: AtomicUsize,
}

impl Clone for Rows {
    fn clone(&self) -> Self {
        Self { groups: self.groups.clone(), near: AtomicUsize::new(self.near.load(Ordering::Relaxed)) }
    }
}

/// Rows whose ids follow on each other, without gaps.
#[derive(Clone, Debug)]
struct Group {
    ids: Arc<[NodeId]>,
    /// For each row the active tasks of a node that takes tasks: a decision begins with reading them all.
    levels: Vec<u32>,
    /// As many as the rows need; the rest of the last one means nothing.
    pages: Vec<Arc<[NodeLoad; PAGE_ROWS]>>,
}

impl Group {
    /// A group of so many rows, no more than it holds.
    fn new(rows: Vec<(NodeId, NodeLoad)>) -> Self {
        let (ids, loads): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let levels = loads.iter().map(level_of).collect();
        let mut loads = loads.into_iter().peekable();
        let mut pages = Vec::with_capacity(ids.len().div_ceil(PAGE_ROWS));
        while loads.peek().is_some() {
            pages.push(Arc::new(std::array::from_fn(|_| loads.next().unwrap_or_default())));
        }
        Self { ids: ids.into(), levels, pages }
    }

    fn first(&self) -> NodeId {
        *self.ids.first().expect("a group has a row")
    }

    fn load(&self, row: usize) -> &NodeLoad {
        &self.pages[row / PAGE_ROWS][row % PAGE_ROWS]
    }

    fn change(&mut self, row: usize, change: impl FnOnce(&mut NodeLoad)) {
        let load = &mut Arc::make_mut(&mut self.pages[row / PAGE_ROWS])[row % PAGE_ROWS];
        change(load);
        self.levels[row] = level_of(load);
    }

    /// Puts a row behind all others; there must be room.
    fn push(&mut self, id: NodeId, load: NodeLoad) {
        let row = self.ids.len();
        if row.is_multiple_of(PAGE_ROWS) {
            self.pages.push(Arc::default());
        }
        self.ids = self.ids.iter().copied().chain([id]).collect();
        self.levels.push(NOT_READY);
        self.change(row, |known| *known = load);
    }

    fn rows(&self) -> impl Iterator<Item = (NodeId, &NodeLoad)> {
        self.ids.iter().copied().zip(self.pages.iter().flat_map(|page| page.iter()))
    }

    fn to_vec(&self) -> Vec<(NodeId, NodeLoad)> {
        self.rows().map(|(id, load)| (id, load.clone())).collect()
    }
}

fn level_of(load: &NodeLoad) -> u32 {
    if load.is_ready { load.active } else { NOT_READY }
}

impl Rows {
    /// A row by id.
    pub(crate) fn get(&self, id: NodeId) -> Option<&NodeLoad> {
        self.position(id).map(|position| self.at(position).1)
    }

    /// Where a row stands; rows stand in order of their ids, with gaps. Holds until a row comes or goes.
    pub(crate) fn position(&self, id: NodeId) -> Option<usize> {
        let position = self.near_position(id).or_else(|| {
            let group = self.group_of(id);
            let row = self.groups.get(group)?.ids.binary_search(&id).ok()?;
            Some(group * GROUP_ROWS + row)
        })?;
        self.near.store(position, Ordering::Relaxed);
        Some(position)
    }

    /// The position of a row, if it is the one that was asked for last or a little behind.
    fn near_position(&self, id: NodeId) -> Option<usize> {
        let near = self.near.load(Ordering::Relaxed);
        let ids = self.groups.get(near / GROUP_ROWS)?.ids.get(near % GROUP_ROWS..)?;
        // Steps that double find the part in which it is.
        let mut to = 1;
        while ids.get(to).is_some_and(|next| *next <= id) {
            to *= 2;
            if to > NEAR_ROWS {
                return None;
            }
        }
        let from = to / 2;
        let row = ids.get(from..to.min(ids.len()))?.binary_search(&id).ok()?;
        Some(near + from + row)
    }

    /// The group in which a row stands, or would stand; the first one if there is none.
    fn group_of(&self, id: NodeId) -> usize {
        self.groups.partition_point(|group| group.first() <= id).saturating_sub(1)
    }

    /// [`Rows::position`], at once if the row stands behind this one.
    pub(crate) fn position_after(&self, last: usize, id: NodeId) -> Option<usize> {
        let next = self.groups.get(last / GROUP_ROWS).and_then(|group| group.ids.get(last % GROUP_ROWS + 1));
        if next == Some(&id) { Some(last + 1) } else { self.position(id) }
    }

    /// The row at a position.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn at(&self, position: usize) -> (NodeId, &NodeLoad) {
        let group = &self.groups[position / GROUP_ROWS];
        let row = position % GROUP_ROWS;
        (group.ids[row], group.load(row))
    }

    /// All positions are below this.
    pub(crate) fn positions(&self) -> usize {
        self.groups.last().map_or(0, |last| (self.groups.len() - 1) * GROUP_ROWS + last.ids.len())
    }

    /// The active tasks of the node at each position; [`NOT_READY`] where there is none that takes tasks.
    pub(crate) fn levels(&self) -> Vec<u32> {
        let mut levels = Vec::with_capacity(self.positions());
        for (number, group) in self.groups.iter().enumerate() {
            levels.resize(number * GROUP_ROWS, NOT_READY);
            levels.extend_from_slice(&group.levels);
        }
        levels
    }

    /// The nodes that take no tasks, in order of their ids.
    pub(crate) fn not_ready(&self) -> impl Iterator<Item = NodeId> + '_ {
        let rows = self.groups.iter().flat_map(|group| group.ids.iter().zip(&group.levels));
        rows.filter(|(_, level)| **level == NOT_READY).map(|(id, _)| *id)
    }

    /// All rows with their positions, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, NodeId, &NodeLoad)> + '_ {
        let groups = (0..).step_by(GROUP_ROWS).zip(self.groups.iter());
        groups.flat_map(|(at, group)| (at..).zip(group.rows()).map(|(at, (id, load))| (at, id, load)))
    }

    /// Changes a row, if there is one.
    pub(crate) fn change(&mut self, id: NodeId, change: impl FnOnce(&mut NodeLoad)) {
        if let Some(position) = self.position(id) {
            self.group_mut(position / GROUP_ROWS).change(position % GROUP_ROWS, change);
        }
    }

    fn group_mut(&mut self, group: usize) -> &mut Group {
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups)[group])
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, id: NodeId) {
        let Some(position) = self.position(id) else { return };
        let group = position / GROUP_ROWS;
        let mut rows = self.groups[group].to_vec();
        rows.remove(position % GROUP_ROWS);
        self.replace(group, [rows, Vec::new()]);
    }

    /// Puts a row in; there must be none for this node.
    pub(crate) fn insert(&mut self, id: NodeId, load: NodeLoad) {
        let at = self.group_of(id);
        let Some(group) = self.groups.get(at) else {
            return Arc::make_mut(&mut self.groups).push(Arc::new(Group::new(vec![(id, load)])));
        };
        let (row, len) = (group.ids.partition_point(|known| *known < id), group.ids.len());
        if row == len && len < GROUP_ROWS {
            return self.group_mut(at).push(id, load);
        }
        let mut rows = group.to_vec();
        // New ids are mostly the highest: what is behind the new one moves to a group of its own, and a group that fills
        // from below stays full.
        let mut tail = if len == GROUP_ROWS { rows.split_off(row) } else { Vec::new() };
        if rows.len() == GROUP_ROWS {
            tail.push((id, load));
        } else {
            rows.insert(row, (id, load));
        }
        self.replace(at, [rows, tail]);
    }

    /// Puts the groups of these rows where one stands.
    fn replace(&mut self, group: usize, new: [Vec<(NodeId, NodeLoad)>; 2]) {
        let new = new.into_iter().filter(|rows| !rows.is_empty()).map(|rows| Arc::new(Group::new(rows)));
        Arc::make_mut(&mut self.groups).splice(group..=group, new);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))] // Each is large.
        #[test]
        fn keeps_what_an_ordinary_map_keeps(
            grown in 0..2_500_u128,
            changes in prop::collection::vec((0..3_000_u128, 0..3_u32), 0..900),
        ) {
            let (mut rows, mut map) = (Rows::default(), BTreeMap::new());
            for number in 0..grown {
                rows.insert(NodeId(number), NodeLoad::default());
                map.insert(NodeId(number), 0);
            }
            let mut earlier = Vec::new();
            for (number, active) in changes {
                if number % 64 == 0 {
                    earlier.push((rows.clone(), map.clone()));
                    earlier.truncate(3);
                }
                let id = NodeId(number);
                let change = |load: &mut NodeLoad| (load.active, load.is_ready) = (active, active != 2);
                rows.change(id, change);
                if active == 0 {
                    rows.remove(id);
                    map.remove(&id);
                } else if map.insert(id, active).is_none() {
                    rows.insert(id, NodeLoad::default());
                    rows.change(id, change);
                }
                prop_assert_eq!(rows.get(id).map(|load| load.active), map.get(&id).copied());
            }
            earlier.push((rows, map));
            for (rows, map) in earlier {
                prop_assert!(rows.iter().map(|(_, id, load)| (id, load.active)).eq(map.into_iter()));
                let levels = rows.levels();
                prop_assert_eq!(levels.len(), rows.positions());
                let ready = levels.iter().filter(|level| **level != NOT_READY).count();
                prop_assert_eq!(ready, rows.iter().filter(|(_, _, load)| load.is_ready).count());
                for (position, id, load) in rows.iter() {
                    prop_assert_eq!(levels[position], level_of(load));
                    prop_assert_eq!(rows.position(id), Some(position));
                    prop_assert_eq!(rows.position_after(position.saturating_sub(1), id), Some(position));
                    prop_assert_eq!(rows.at(position).0, id);
                    prop_assert!(position < rows.positions());
                }
            }
        }
    }
}
