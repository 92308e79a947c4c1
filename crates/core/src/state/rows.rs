//! A table of nodes: one flat row each, in order of their ids.
//!
//! Every task that is placed reads and changes a row, and every decision reads all of them. So rows stand side by side
//! in pages, which a clone shares until they change, and a row is found by its position as well as by its id.

use std::sync::Arc;

use swarm_model::NodeId;

use super::NodeLoad;

/// Rows of a page: copying one takes less than a microsecond.
const PAGE_ROWS: usize = 64;

/// See the module. A clone costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pages: Arc<Vec<Page>>,
}

/// Rows whose ids follow on each other; never empty.
#[derive(Clone, Debug)]
struct Page {
    first: NodeId,
    rows: Arc<Vec<(NodeId, NodeLoad)>>,
}

impl Rows {
    /// A row by id.
    pub(crate) fn get(&self, id: NodeId) -> Option<&NodeLoad> {
        self.position(id).map(|position| self.at(position).1)
    }

    /// Where a row stands; rows stand in order of their ids, with gaps. Holds until a row comes or goes.
    pub(crate) fn position(&self, id: NodeId) -> Option<usize> {
        let page = self.page_of(id)?;
        let row = self.pages[page].rows.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(page * PAGE_ROWS + row)
    }

    /// The row at a position.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn at(&self, position: usize) -> (NodeId, &NodeLoad) {
        let (id, load) = &self.pages[position / PAGE_ROWS].rows[position % PAGE_ROWS];
        (*id, load)
    }

    /// All positions are below this.
    pub(crate) fn positions(&self) -> usize {
        self.pages.len() * PAGE_ROWS
    }

    /// All rows with their positions, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &(NodeId, NodeLoad))> + '_ {
        let page = |(page, rows): (usize, &'_ Page)| page * PAGE_ROWS..page * PAGE_ROWS + rows.rows.len();
        let positions = self.pages.iter().enumerate().flat_map(page);
        positions.zip(self.pages.iter().flat_map(|page| page.rows.iter()))
    }

    /// Changes a row, if there is one.
    pub(crate) fn change(&mut self, id: NodeId, change: impl FnOnce(&mut NodeLoad)) {
        if let Some(position) = self.position(id) {
            let pages = Arc::make_mut(&mut self.pages);
            change(&mut Arc::make_mut(&mut pages[position / PAGE_ROWS].rows)[position % PAGE_ROWS].1);
        }
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, id: NodeId) {
        let Some(position) = self.position(id) else { return };
        let pages = Arc::make_mut(&mut self.pages);
        let rows = Arc::make_mut(&mut pages[position / PAGE_ROWS].rows);
        rows.remove(position % PAGE_ROWS);
        match rows.first() {
            Some((first, _)) => pages[position / PAGE_ROWS].first = *first,
            None => drop(pages.remove(position / PAGE_ROWS)),
        }
    }

    /// The page in which a row stands, or would stand; none if there is no page.
    fn page_of(&self, id: NodeId) -> Option<usize> {
        let after = self.pages.partition_point(|page| page.first <= id);
        (!self.pages.is_empty()).then(|| after.saturating_sub(1))
    }

    /// Puts a row in; there must be none for this node.
    pub(crate) fn insert(&mut self, id: NodeId, load: NodeLoad) {
        let new = |first, rows| Page { first, rows: Arc::new(rows) };
        let found = self.page_of(id);
        let pages = Arc::make_mut(&mut self.pages);
        let Some(page) = found else { return pages.push(new(id, vec![(id, load)])) };
        let rows = Arc::make_mut(&mut pages[page].rows);
        let row = rows.partition_point(|(known, _)| *known < id);
        if rows.len() == PAGE_ROWS {
            // New ids are mostly the highest: what is behind the new one moves to a page of its own, and a page that
            // fills from below stays full.
            let tail = rows.split_off(row);
            if let Some((first, _)) = tail.first() {
                pages.insert(page + 1, new(*first, tail));
            }
            if row == PAGE_ROWS {
                return pages.insert(page + 1, new(id, vec![(id, load)]));
            }
        }
        Arc::make_mut(&mut pages[page].rows).insert(row, (id, load));
        pages[page].first = pages[page].first.min(id);
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
                rows.change(id, |load| load.active = active);
                if active == 0 {
                    rows.remove(id);
                    map.remove(&id);
                } else if map.insert(id, active).is_none() {
                    rows.insert(id, NodeLoad::default());
                    rows.change(id, |load| load.active = active);
                }
                prop_assert_eq!(rows.get(id).map(|load| load.active), map.get(&id).copied());
            }
            earlier.push((rows, map));
            for (rows, map) in earlier {
                prop_assert!(rows.iter().map(|(_, (id, load))| (*id, load.active)).eq(map.into_iter()));
                for (position, (id, _)) in rows.iter() {
                    prop_assert_eq!(rows.position(*id), Some(position));
                    prop_assert_eq!(rows.at(position).0, *id);
                    prop_assert!(position < rows.positions());
                }
            }
        }
    }
}
