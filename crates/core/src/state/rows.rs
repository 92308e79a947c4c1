//! A table of nodes: one flat row each, in order of their ids.
//!
//! Every task that is placed reads and changes a row, and every decision reads all of them. So rows stand side by side
//! in pages, which a clone shares until they change, and a row is found by its position as well as by its id.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use swarm_model::NodeId;

use super::NodeLoad;

/// Rows of a page. A change copies one page and the list of them: with 100,000 nodes both are tens of microseconds.
const PAGE_ROWS: usize = 16;

/// What is not on so many pages is searched on all.
const NEAR_PAGES: usize = 4;

/// What [`Rows::levels`] says of a node that takes no tasks.
pub(crate) const NOT_READY: u32 = u32::MAX;

/// See the module. A clone costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pages: Arc<Vec<Page>>,
    /// The page that was looked into last: tasks that are placed together stand on nodes that do. Where a search begins
    /// makes no difference to what it finds.
    near: AtomicUsize,
}

impl Clone for Rows {
    fn clone(&self) -> Self {
        Self { pages: self.pages.clone(), near: AtomicUsize::new(self.near.load(Ordering::Relaxed)) }
    }
}

/// Rows whose ids follow on each other; never empty.
#[derive(Clone, Debug)]
struct Page {
    first: NodeId,
    body: Arc<Body>,
}

#[derive(Clone, Debug)]
struct Body {
    /// For each row the active tasks of a node that takes tasks, side by side: a decision begins with reading them all.
    levels: [u32; PAGE_ROWS],
    rows: Vec<(NodeId, NodeLoad)>,
}

impl Page {
    fn new(rows: Vec<(NodeId, NodeLoad)>) -> Self {
        let mut body = Body { levels: [NOT_READY; PAGE_ROWS], rows };
        body.set_levels();
        let first = body.rows.first().expect("a page is made with a row").0;
        Self { first, body: Arc::new(body) }
    }

    fn rows(&self) -> &[(NodeId, NodeLoad)] {
        &self.body.rows
    }
}

impl Body {
    fn set_levels(&mut self) {
        self.levels = [NOT_READY; PAGE_ROWS];
        for (level, (_, load)) in self.levels.iter_mut().zip(&self.rows) {
            *level = level_of(load);
        }
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
        let row = self.pages[page].rows().binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(page * PAGE_ROWS + row)
    }

    /// The page in which a row stands, if it is the one that was looked into last or a little behind.
    fn near_page_of(&self, id: NodeId) -> Option<usize> {
        let near = self.near.load(Ordering::Relaxed);
        let from = self.pages.get(near..)?;
        // The end of a page is known by the next one.
        let from = &from[..from.len().min(NEAR_PAGES + 1)];
        from.windows(2).position(|pages| pages[0].first <= id && id < pages[1].first).map(|found| near + found)
    }

    /// [`Rows::position`], at once if the row stands behind this one.
    pub(crate) fn position_after(&self, last: usize, id: NodeId) -> Option<usize> {
        let (page, row) = (last / PAGE_ROWS, last % PAGE_ROWS + 1);
        let next = self.pages.get(page).and_then(|page| page.rows().get(row));
        if next.is_some_and(|(found, _)| *found == id) { Some(last + 1) } else { self.position(id) }
    }

    /// The row at a position.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn at(&self, position: usize) -> (NodeId, &NodeLoad) {
        let (id, load) = &self.pages[position / PAGE_ROWS].rows()[position % PAGE_ROWS];
        (*id, load)
    }

    /// All positions are below this.
    pub(crate) fn positions(&self) -> usize {
        self.pages.len() * PAGE_ROWS
    }

    /// The active tasks of the node at each position; [`NOT_READY`] where there is none that takes tasks.
    pub(crate) fn levels(&self) -> Vec<u32> {
        let mut levels = Vec::with_capacity(self.positions());
        self.pages.iter().for_each(|page| levels.extend_from_slice(&page.body.levels));
        levels
    }

    /// The nodes that take no tasks, in order of their ids.
    pub(crate) fn not_ready(&self) -> impl Iterator<Item = NodeId> + '_ {
        let rows = self.pages.iter().flat_map(|page| page.rows().iter().zip(page.body.levels));
        rows.filter(|(_, level)| *level == NOT_READY).map(|((id, _), _)| *id)
    }

    /// All rows with their positions, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &(NodeId, NodeLoad))> + '_ {
        let page = |(number, page): (usize, &'_ Page)| number * PAGE_ROWS..number * PAGE_ROWS + page.rows().len();
        let positions = self.pages.iter().enumerate().flat_map(page);
        positions.zip(self.pages.iter().flat_map(|page| page.rows()))
    }

    /// Changes a row, if there is one.
    pub(crate) fn change(&mut self, id: NodeId, change: impl FnOnce(&mut NodeLoad)) {
        if let Some(position) = self.position(id) {
            let (page, row) = (position / PAGE_ROWS, position % PAGE_ROWS);
            let body = Arc::make_mut(&mut Arc::make_mut(&mut self.pages)[page].body);
            change(&mut body.rows[row].1);
            body.levels[row] = level_of(&body.rows[row].1);
        }
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, id: NodeId) {
        let Some(position) = self.position(id) else { return };
        let pages = Arc::make_mut(&mut self.pages);
        let page = position / PAGE_ROWS;
        let mut rows = pages[page].rows().to_vec();
        rows.remove(position % PAGE_ROWS);
        if rows.is_empty() {
            pages.remove(page);
        } else {
            pages[page] = Page::new(rows);
        }
    }

    /// The page in which a row stands, or would stand; none if there is no page.
    fn page_of(&self, id: NodeId) -> Option<usize> {
        let after = self.pages.partition_point(|page| page.first <= id);
        (!self.pages.is_empty()).then(|| after.saturating_sub(1))
    }

    /// Puts a row in; there must be none for this node.
    pub(crate) fn insert(&mut self, id: NodeId, load: NodeLoad) {
        let found = self.page_of(id);
        let pages = Arc::make_mut(&mut self.pages);
        let Some(page) = found else { return pages.push(Page::new(vec![(id, load)])) };
        let mut rows = pages[page].rows().to_vec();
        let row = rows.partition_point(|(known, _)| *known < id);
        if rows.len() == PAGE_ROWS {
            // New ids are mostly the highest: what is behind the new one moves to a page of its own, and a page that
            // fills from below stays full.
            let tail = rows.split_off(row);
            if row == PAGE_ROWS {
                return pages.insert(page + 1, Page::new(vec![(id, load)]));
            }
            pages.insert(page + 1, Page::new(tail));
        }
        rows.insert(row, (id, load));
        pages[page] = Page::new(rows);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_what_an_ordinary_map_keeps(changes in prop::collection::vec((0..400_u128, 0..3_u32), 0..900)) {
            let (mut rows, mut map) = (Rows::default(), BTreeMap::new());
            let mut earlier = Vec::new();
            for (number, active) in changes {
                earlier.push((rows.clone(), map.clone()));
                earlier.truncate(3);
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
                prop_assert!(rows.iter().map(|(_, (id, load))| (*id, load.active)).eq(map.into_iter()));
                let levels = rows.levels();
                prop_assert_eq!(levels.len(), rows.positions());
                let ready = levels.iter().filter(|level| **level != NOT_READY).count();
                prop_assert_eq!(ready, rows.iter().filter(|(_, (_, load))| load.is_ready).count());
                for (position, (id, load)) in rows.iter() {
                    prop_assert_eq!(levels[position], level_of(load));
                    prop_assert_eq!(rows.position(*id), Some(position));
                    prop_assert_eq!(rows.position_after(position.saturating_sub(1), *id), Some(position));
                    prop_assert_eq!(rows.at(position).0, *id);
                    prop_assert!(position < rows.positions());
                }
            }
        }
    }
}
