//! A sorted map whose clone costs nothing: a B+ tree in shared pages.
//!
//! Made for tables that mostly grow at their end, by many entries at once, and whose old values are read on meanwhile.
//! A change copies what it touches of a tree that has another reader, and nothing of one that has none. Pages that
//! fill from below stay full.

use std::{
    hint,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use swarm_model::ServiceId;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, V> {
    root: Arc<Node<K, V>>,
}

/// A value, which is copied with its page.
pub(crate) trait Value: Clone {
    /// Entries of a page, children of a branch. A change copies a page of each level, once for each reader's tree: larger
    /// pages make that dear, smaller ones the way to them.
    const PAGE_MAX: usize = 16;

    /// Reads the counter that a clone raises, if there is one. The counters of a page are all over the memory: raised one
    /// after the other, each is waited for; read before, they come at the same time.
    fn touch(&self) -> usize {
        0
    }
}

impl<T: ?Sized> Value for Arc<T> {
    fn touch(&self) -> usize {
        Arc::strong_count(self)
    }
}

impl Value for () {}
impl Value for u64 {}
impl Value for usize {}
impl Value for (ServiceId, u32) {}

#[derive(Debug)]
enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    /// Children, with a key that none in them is below and that all before them are.
    Branch(Vec<(K, Arc<Node<K, V>>)>),
}

impl<K: Clone, V: Value> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(copy(entries)),
            Self::Branch(children) => Self::Branch(copy(children)),
        }
    }
}

/// The right part of a page that was full.
type Split<K, V> = (K, Arc<Node<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())) }
    }
}

impl<K: Ord + Clone, V: Value> Table<K, V> {
    /// An entry's value.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => return find(entries, key).ok().map(|at| &entries[at].1),
                Node::Branch(children) => node = &children[child_of(children, key)].1,
            }
        }
    }

    /// An entry's value, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Leaf(entries) => return find(entries, key).ok().map(|at| &mut entries[at].1),
                Node::Branch(children) => {
                    let at = child_of(children, key);
                    node = Arc::make_mut(&mut children[at].1);
                }
            }
        }
    }

    /// Whether there is such an entry.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Puts an entry in. Returns the value that it replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let mut old = None;
        self.change(key, |found| match found {
            Some(found) => {
                old = Some(std::mem::replace(found, value));
                None
            }
            None => Some(value),
        });
        old
    }

    /// Changes an entry's value, which is the default if there is no such entry. One way through the tree, where a look and
    /// an insertion are two.
    pub(crate) fn change_or_default(&mut self, key: K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        self.change(key, |found| match found {
            Some(found) => {
                change(found);
                None
            }
            None => {
                let mut value = V::default();
                change(&mut value);
                Some(value)
            }
        });
    }

    /// Changes an entry's value, or puts the value in that the change returns if there is no such entry.
    fn change(&mut self, key: K, change: impl FnOnce(Option<&mut V>) -> Option<V>) {
        if let Some((first, right)) = change_below(&mut self.root, key, change) {
            let left = std::mem::take(self).root;
            let least = least(&left).expect("a page that was split has entries").clone();
            self.root = Arc::new(Node::Branch(page([(least, left), (first, right)])));
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let old = remove(&mut self.root, key);
        while let Node::Branch(children) = &*self.root
            && let [(_, only)] = children.as_slice()
        {
            self.root = only.clone();
        }
        old
    }

    /// All entries with keys in a range, in order.
    pub(crate) fn range(&self, range: impl RangeBounds<K>) -> Range<'_, K, V> {
        let (entries, leaves) = entries_from(&self.root, range.start_bound()).unwrap_or((&[], &[]));
        Range { table: self, entries: entries.iter(), leaves, end: range.end_bound().cloned() }
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> Range<'_, K, V> {
        self.range(..)
    }

    /// The entry with the highest key.
    pub(crate) fn last(&self) -> Option<&(K, V)> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(entries) => return entries.last(),
                Node::Branch(children) => node = &children.last()?.1,
            }
        }
    }

    /// The entry with the highest key that is not above this one.
    pub(crate) fn last_to(&self, key: &K) -> Option<&(K, V)> {
        last_to(&self.root, key)
    }
}

/// Entries of a table, in order.
pub(crate) struct Range<'a, K, V> {
    table: &'a Table<K, V>,
    /// What is left of a page.
    entries: std::slice::Iter<'a, (K, V)>,
    /// The pages behind it in its branch.
    leaves: &'a [(K, Arc<Node<K, V>>)],
    end: Bound<K>,
}

impl<'a, K: Ord + Clone, V: Value> Iterator for Range<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.entries.next()?;
        let is_in = match &self.end {
            Bound::Included(end) => key.cmp(end).is_le(),
            Bound::Excluded(end) => key.cmp(end).is_lt(),
            Bound::Unbounded => true,
        };
        if !is_in {
            self.entries = [].iter();
            return None;
        }
        if self.entries.as_slice().is_empty() {
            let (entries, leaves) = match self.leaves.split_first() {
                Some(((_, leaf), rest)) => (entries_of(leaf), rest),
                None => entries_from(&self.table.root, Bound::Excluded(key)).unwrap_or((&[], &[])),
            };
            (self.entries, self.leaves) = (entries.iter(), leaves);
        }
        Some((key, value))
    }
}

/// A page with room for all that it may hold.
fn page<K, V: Value>(entries: impl IntoIterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut page = Vec::with_capacity(V::PAGE_MAX);
    page.extend(entries);
    page
}

/// A page with the same entries and room for more: most are copied because one comes.
fn copy<K: Clone, V: Value>(entries: &[(K, V)]) -> Vec<(K, V)> {
    hint::black_box(entries.iter().map(|(_, value)| value.touch()).fold(0, usize::wrapping_add));
    page(entries.iter().cloned())
}

// Keys are mostly tuples, for which `cmp` is much faster than `<`.

/// Where an entry is, or would be. What is behind all others is found at once: tables grow at their end.
fn find<K: Ord, V>(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
    match entries.last() {
        Some((last, _)) if last.cmp(key).is_lt() => Err(entries.len()),
        _ => entries.binary_search_by(|(found, _)| found.cmp(key)),
    }
}

/// The child in which an entry is, or would be.
fn child_of<K: Ord, C>(children: &[(K, C)], key: &K) -> usize {
    match children.last() {
        Some((last, _)) if last.cmp(key).is_le() => children.len() - 1,
        _ => children.partition_point(|(first, _)| first.cmp(key).is_le()).saturating_sub(1),
    }
}

/// A key that no entry is below.
fn least<K, V>(node: &Node<K, V>) -> Option<&K> {
    match node {
        Node::Leaf(entries) => entries.first().map(|(key, _)| key),
        Node::Branch(children) => children.first().map(|(key, _)| key),
    }
}

/// Makes place for one more at `at`. Returns what is behind, if the page is full; what is put behind all others begins
/// a page of its own.
fn make_place<K, V: Value>(entries: &mut Vec<(K, V)>, at: usize) -> Option<Vec<(K, V)>> {
    if entries.len() < V::PAGE_MAX {
        return None;
    }
    let from = if at == V::PAGE_MAX { V::PAGE_MAX } else { V::PAGE_MAX / 2 };
    Some(page(entries.drain(from..)))
}

/// See [`Table::change`].
fn change_below<K: Ord + Clone, V: Value>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    change: impl FnOnce(Option<&mut V>) -> Option<V>,
) -> Option<Split<K, V>> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => match find(entries, &key) {
            Ok(at) => {
                change(Some(&mut entries[at].1));
                None
            }
            Err(at) => change(None).and_then(|value| put(entries, at, (key, value), Node::Leaf)),
        },
        Node::Branch(children) => {
            let at = child_of(children, &key);
            if key.cmp(&children[at].0).is_lt() {
                children[at].0 = key.clone();
            }
            let right = change_below(&mut children[at].1, key, change)?;
            put(children, at + 1, right, Node::Branch)
        }
    }
}

/// Puts something into a page, whose right part it returns if it was full.
fn put<K: Clone, T: Value, V>(
    entries: &mut Vec<(K, T)>,
    at: usize,
    new: (K, T),
    node: impl Fn(Vec<(K, T)>) -> Node<K, V>,
) -> Option<Split<K, V>> {
    let mut right = make_place(entries, at);
    match &mut right {
        Some(right) if at >= entries.len() => right.insert(at - entries.len(), new),
        _ => entries.insert(at, new),
    }
    right.map(|right| (right[0].0.clone(), Arc::new(node(right))))
}

fn remove<K: Ord + Clone, V: Value>(node: &mut Arc<Node<K, V>>, key: &K) -> Option<V> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => find(entries, key).ok().map(|at| entries.remove(at).1),
        Node::Branch(children) => {
            let at = child_of(children, key);
            let old = remove(&mut children[at].1, key);
            let (len, max) = size(&children[at].1);
            if len == 0 {
                children.remove(at);
            } else if len < max / 4 {
                let left = if at + 1 < children.len() { at } else { at.saturating_sub(1) };
                merge(children, left);
            }
            old
        }
    }
}

/// How many entries a page has, and how many it may have.
fn size<K, V: Value>(node: &Node<K, V>) -> (usize, usize) {
    match node {
        Node::Leaf(entries) => (entries.len(), V::PAGE_MAX),
        Node::Branch(children) => (children.len(), Arc::<Node<K, V>>::PAGE_MAX),
    }
}

/// Puts a child and the one behind it together, if there is one and they fill no more than half a page.
fn merge<K: Clone, V: Value>(children: &mut Vec<(K, Arc<Node<K, V>>)>, left: usize) {
    let Some([(_, a), (_, b)]) = children.get(left..left + 2) else { return };
    let ((len, max), (more, _)) = (size(a), size(b));
    if len + more > max / 2 {
        return;
    }
    let (_, right) = children.remove(left + 1);
    match (Arc::make_mut(&mut children[left].1), Arc::unwrap_or_clone(right)) {
        (Node::Leaf(entries), Node::Leaf(more)) => entries.extend(more),
        (Node::Branch(children), Node::Branch(more)) => children.extend(more),
        (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {
            unreachable!("all leaves are on one level")
        }
    }
}

/// The rest of a page, and the pages behind it in its branch.
type Rest<'a, K, V> = (&'a [(K, V)], &'a [(K, Arc<Node<K, V>>)]);

/// What comes from this bound on; none if there is nothing.
fn entries_from<'a, K: Ord, V>(node: &'a Node<K, V>, from: Bound<&K>) -> Option<Rest<'a, K, V>> {
    match node {
        Node::Leaf(entries) => {
            let at = match from {
                Bound::Included(from) => entries.partition_point(|(key, _)| key.cmp(from).is_lt()),
                Bound::Excluded(from) => entries.partition_point(|(key, _)| key.cmp(from).is_le()),
                Bound::Unbounded => 0,
            };
            (at < entries.len()).then(|| (&entries[at..], [].as_slice()))
        }
        Node::Branch(children) => {
            let at = match from {
                Bound::Included(from) | Bound::Excluded(from) => child_of(children, from),
                Bound::Unbounded => 0,
            };
            (at..children.len()).find_map(|at| {
                let (entries, leaves) = entries_from(&children[at].1, from)?;
                let is_above_leaves = matches!(*children[at].1, Node::Leaf(_));
                Some((entries, if is_above_leaves { &children[at + 1..] } else { leaves }))
            })
        }
    }
}

/// The entries of a leaf.
fn entries_of<K, V>(node: &Node<K, V>) -> &[(K, V)] {
    match node {
        Node::Leaf(entries) => entries,
        Node::Branch(_) => unreachable!("all leaves are on one level"),
    }
}

fn last_to<'a, K: Ord, V>(node: &'a Node<K, V>, key: &K) -> Option<&'a (K, V)> {
    match node {
        Node::Leaf(entries) => entries[..entries.partition_point(|(found, _)| found.cmp(key).is_le())].last(),
        // A child may begin with a key that was taken out since.
        Node::Branch(children) => {
            children[..=child_of(children, key)].iter().rev().find_map(|(_, child)| last_to(child, key))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Value for u32 {}

    /// How deep the leaves are. Panics if they are not all on one level, or a page is empty or too large.
    fn depth(node: &Node<u32, u32>, is_root: bool) -> usize {
        let (len, max) = size(node);
        assert!(is_root || len > 0);
        assert!(len <= max);
        match node {
            Node::Leaf(_) => 0,
            Node::Branch(children) => {
                let depths: Vec<usize> = children.iter().map(|(_, child)| depth(child, false)).collect();
                assert!(children.len() > 1 || !is_root, "a root with one child is that child");
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                depths[0] + 1
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))] // Each is large.
        #[test]
        fn keeps_what_an_ordinary_map_keeps(
            grown in 0..3_000_u32,
            changes in prop::collection::vec((0..3_500_u32, 0..4_u32), 0..4_000),
            (from, to) in (0..3_500_u32, 0..3_500_u32),
        ) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for key in 0..grown {
                table.insert(key, key);
                map.insert(key, key);
            }
            let (earlier, earlier_map) = (table.clone(), map.clone());
            for (key, what) in changes {
                match what {
                    0 => prop_assert_eq!(table.insert(key, what), map.insert(key, what)),
                    1 if key % 2 == 0 => {
                        table.change_or_default(key, |value| *value += 1);
                        *map.entry(key).or_default() += 1;
                    }
                    1 => {
                        let found = table.get_mut(&key).map(|value| *value += 1);
                        prop_assert_eq!(found, map.get_mut(&key).map(|value| *value += 1));
                    }
                    _ => prop_assert_eq!(table.remove(&key), map.remove(&key)),
                }
                prop_assert_eq!(table.get(&key), map.get(&key));
            }
            for (table, map) in [(table, map), (earlier, earlier_map)] {
                depth(&table.root, true);
                prop_assert!(table.iter().eq(map.iter()));
                prop_assert_eq!(table.last().map(|(key, _)| key), map.keys().last());
                prop_assert_eq!(table.last_to(&to).map(|(key, _)| key), map.range(..=to).next_back().map(|(key, _)| key));
                let (from, to) = (from.min(to), from.max(to));
                prop_assert!(table.range(from..to).eq(map.range(from..to)));
                let after = (Bound::Excluded(from), Bound::Unbounded);
                prop_assert!(table.range(after).eq(map.range(after)));
                let to_end = from..=to;
                prop_assert!(table.range(to_end.clone()).eq(map.range(to_end)));
            }
        }
    }
}
