//! A table of nodes: one flat row each, in order of their ids.
//!
//! Every task that is placed reads and changes a row, and every decision reads all of them. So rows stand side by side
//! in pages, and pages in groups, which a clone shares until they change; a row is found by its position as well as by
//! its id.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use swarm_model::NodeId;

use super::NodeLoad;

/// Rows of a page. A change copies one page, its group and the list of groups: with 100,000 nodes that is a page of a
/// kilobyte and less than 200 counters.
const PAGE_ROWS: usize = 16;

/// Pages of a group.
const GROUP_PAGES: usize = 64;

/// Positions of a group.
const GROUP_ROWS: usize = GROUP_PAGES * PAGE_ROWS;

/// What is not on so many pages is searched on all.
const NEAR_PAGES: usize = 4;

/// What [`Rows::levels`] says of a node that takes no tasks.
pub(crate) const NOT_READY: u32 = u32::MAX;

/// See the module. A clone costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    groups: Arc<Vec<Group>>,
    /// Where the page begins that was looked into last: tasks that are placed together stand on nodes that do. Where a
    /// search begins makes no difference to what it finds.
    near: AtomicUsize,
}

impl Clone for Rows {
    fn clone(&self) -> Self {
        Self { groups: self.groups.clone(), near: AtomicUsize::new(self.near.load(Ordering::Relaxed)) }
    }
}

/// Pages whose ids follow on each other; never empty.
#[derive(Clone, Debug)]
struct Group {
    first: NodeId,
    pages: Arc<Vec<Page>>,
}

/// Rows whose ids follow on each other; never empty.
#[derive(Clone, Debug)]
struct Page {
    first: NodeId,
    body: Arc<Body>,
}

/// The first `len` of each list are rows.
#[derive(Clone, Debug)]
struct Body {
    /// For each row the active tasks of a node that takes tasks, side by side: a decision begins with reading them all.
    levels: [u32; PAGE_ROWS],
    len: usize,
    ids: [NodeId; PAGE_ROWS],
    loads: [NodeLoad; PAGE_ROWS],
}

impl Group {
    fn new(pages: Vec<Page>) -> Self {
        Self { first: pages.first().expect("a group is made with a page").first, pages: Arc::new(pages) }
    }
}

impl Page {
    /// A page of so many rows, no more than it holds.
    fn new(rows: Vec<(NodeId, NodeLoad)>) -> Self {
        let (levels, ids) = ([NOT_READY; PAGE_ROWS], [NodeId(0); PAGE_ROWS]);
        let mut body = Body { levels, len: rows.len(), ids, loads: Default::default() };
        for (row, (id, load)) in rows.into_iter().enumerate() {
            body.levels[row] = level_of(&load);
            (body.ids[row], body.loads[row]) = (id, load);
        }
        Self { first: *body.ids().first().expect("a page is made with a row"), body: Arc::new(body) }
    }
}

impl Body {
    fn ids(&self) -> &[NodeId] {
        &self.ids[..self.len]
    }

    fn rows(&self) -> impl Iterator<Item = (NodeId, &NodeLoad)> {
        self.ids().iter().copied().zip(&self.loads)
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
        let page = self.near_page_of(id).or_else(|| self.page_of(id))?;
        self.near.store(page, Ordering::Relaxed);
        let row = self.body(page)?.ids().binary_search(&id).ok()?;
        Some(page + row)
    }

    /// The position of the page in which a row stands, if it is the one that was looked into last or a little behind.
    fn near_page_of(&self, id: NodeId) -> Option<usize> {
        let near = self.near.load(Ordering::Relaxed);
        let from = self.groups.get(near / GROUP_ROWS)?.pages.get(near % GROUP_ROWS / PAGE_ROWS..)?;
        // The end of a page is known by the next one.
        let from = &from[..from.len().min(NEAR_PAGES + 1)];
        let found = from.windows(2).position(|pages| pages[0].first <= id && id < pages[1].first)?;
        Some(near + found * PAGE_ROWS)
    }

    /// The position of the page in which a row stands, or would stand; none if there is no page.
    fn page_of(&self, id: NodeId) -> Option<usize> {
        let group = self.groups.partition_point(|group| group.first <= id).saturating_sub(1);
        let page = self.groups.get(group)?.pages.partition_point(|page| page.first <= id).saturating_sub(1);
        Some(group * GROUP_ROWS + page * PAGE_ROWS)
    }

    /// The page that has a position.
    fn body(&self, position: usize) -> Option<&Body> {
        let group = self.groups.get(position / GROUP_ROWS)?;
        group.pages.get(position % GROUP_ROWS / PAGE_ROWS).map(|page| &*page.body)
    }

    /// [`Rows::position`], at once if the row stands behind this one.
    pub(crate) fn position_after(&self, last: usize, id: NodeId) -> Option<usize> {
        let next = self.body(last).and_then(|body| body.ids().get(last % PAGE_ROWS + 1));
        if next == Some(&id) { Some(last + 1) } else { self.position(id) }
    }

    /// The row at a position.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn at(&self, position: usize) -> (NodeId, &NodeLoad) {
        let body = &self.groups[position / GROUP_ROWS].pages[position % GROUP_ROWS / PAGE_ROWS].body;
        let row = position % PAGE_ROWS;
        (body.ids()[row], &body.loads[row])
    }

    /// All positions are below this.
    pub(crate) fn positions(&self) -> usize {
        let end = |last: &Group| (self.groups.len() - 1) * GROUP_ROWS + last.pages.len() * PAGE_ROWS;
        self.groups.last().map_or(0, end)
    }

    /// The active tasks of the node at each position; [`NOT_READY`] where there is none that takes tasks.
    pub(crate) fn levels(&self) -> Vec<u32> {
        let mut levels = Vec::with_capacity(self.positions());
        for (number, group) in self.groups.iter().enumerate() {
            levels.resize(number * GROUP_ROWS, NOT_READY);
            group.pages.iter().for_each(|page| levels.extend_from_slice(&page.body.levels));
        }
        levels
    }

    /// The nodes that take no tasks, in order of their ids.
    pub(crate) fn not_ready(&self) -> impl Iterator<Item = NodeId> + '_ {
        let pages = self.groups.iter().flat_map(|group| group.pages.iter());
        let rows = pages.flat_map(|page| page.body.ids().iter().zip(page.body.levels));
        rows.filter(|(_, level)| *level == NOT_READY).map(|(id, _)| *id)
    }

    /// All rows with their positions, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, NodeId, &NodeLoad)> + '_ {
        let pages = (0..).step_by(GROUP_ROWS).zip(self.groups.iter());
        let pages = pages.flat_map(|(at, group)| (at..).step_by(PAGE_ROWS).zip(group.pages.iter()));
        pages.flat_map(|(at, page)| (at..).zip(page.body.rows()).map(|(at, (id, load))| (at, id, load)))
    }

    /// Changes a row, if there is one.
    pub(crate) fn change(&mut self, id: NodeId, change: impl FnOnce(&mut NodeLoad)) {
        if let Some(position) = self.position(id) {
            let pages = self.pages_mut(position / GROUP_ROWS);
            let body = Arc::make_mut(&mut pages[position % GROUP_ROWS / PAGE_ROWS].body);
            let row = position % PAGE_ROWS;
            change(&mut body.loads[row]);
            body.levels[row] = level_of(&body.loads[row]);
        }
    }

    fn pages_mut(&mut self, group: usize) -> &mut Vec<Page> {
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups)[group].pages)
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, id: NodeId) {
        let Some(position) = self.position(id) else { return };
        let mut rows = self.body(position).map_or_else(Vec::new, Body::to_vec);
        rows.remove(position % PAGE_ROWS);
        self.replace(position, if rows.is_empty() { vec![] } else { vec![Page::new(rows)] });
    }

    /// Puts a row in; there must be none for this node.
    pub(crate) fn insert(&mut self, id: NodeId, load: NodeLoad) {
        let Some(position) = self.page_of(id) else {
            let group = Group::new(vec![Page::new(vec![(id, load)])]);
            return Arc::make_mut(&mut self.groups).push(group);
        };
        let mut rows = self.body(position).map_or_else(Vec::new, Body::to_vec);
        let row = rows.partition_point(|(known, _)| *known < id);
        // New ids are mostly the highest: what is behind the new one moves to a page of its own, and a page that fills
        // from below stays full.
        let mut tail = if rows.len() == PAGE_ROWS { rows.split_off(row) } else { Vec::new() };
        if rows.len() == PAGE_ROWS {
            tail.push((id, load));
        } else {
            rows.insert(row, (id, load));
        }
        self.replace(position, [rows, tail].into_iter().filter(|rows| !rows.is_empty()).map(Page::new).collect());
    }

    /// Puts these pages, two at most, where one stands. Groups fill as pages do.
    fn replace(&mut self, position: usize, new: Vec<Page>) {
        let group = position / GROUP_ROWS;
        let page = position % GROUP_ROWS / PAGE_ROWS;
        let mut pages = self.groups[group].pages.to_vec();
        pages.splice(page..=page, new);
        let tail = if pages.len() > GROUP_PAGES { pages.split_off(page + 1) } else { Vec::new() };
        let changed = [pages, tail].into_iter().filter(|pages| !pages.is_empty()).map(Group::new);
        Arc::make_mut(&mut self.groups).splice(group..=group, changed);
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
