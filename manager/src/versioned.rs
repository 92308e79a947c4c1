//! Records with versions: a holder of an earlier version is told the difference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use swarm_wire::{
    agent::Shared,
    endpoints::{RecordHash, TableVersion},
};

/// Changed records that are remembered. A holder that was away for longer gets all records: beside so many changes they are
/// not many more.
const CHANGES_MAX: usize = 16_384;

/// Records with versions.
#[derive(Clone, Debug)]
pub(crate) struct Versioned<K, R> {
    records: BTreeMap<K, Shared<R>>,
    version: TableVersion,
    /// The earlier versions, the oldest first, each with the records that the next change made anew.
    changes: VecDeque<(TableVersion, Vec<K>)>,
    /// Number of the records that `changes` names.
    changed: usize,
}

impl<K, R> Default for Versioned<K, R> {
    fn default() -> Self {
        Self { records: BTreeMap::new(), version: TableVersion::default(), changes: VecDeque::new(), changed: 0 }
    }
}

/// The way from an earlier version to the present one.
pub(crate) enum Since<K, R> {
    /// The version is the present one.
    Nothing,
    /// These records changed; those without a value are gone.
    Changed(Vec<(K, Option<Shared<R>>)>),
    /// The version is not remembered: all records.
    All(Vec<Shared<R>>),
}

impl<K: Copy + Ord, R: Serialize> Versioned<K, R> {
    /// The version.
    pub(crate) fn version(&self) -> TableVersion {
        self.version
    }

    /// A record.
    pub(crate) fn get(&self, key: K) -> Option<&Shared<R>> {
        self.records.get(&key)
    }

    /// Whether there is no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Puts these records at a revision, and takes away those without a value. Records that are as they were do not count.
    pub(crate) fn set(&mut self, revision: u64, records: impl IntoIterator<Item = (K, Option<R>)>) {
        let (before, mut changed) = (self.version, Vec::new());
        for (key, record) in records {
            // A record of ids, numbers and texts can always be encoded.
            let now = record.and_then(|record| Shared::new(&record).ok());
            let old = match now {
                None => self.records.remove(&key),
                Some(ref now) if self.records.get(&key) == Some(now) => continue,
                Some(now) => {
                    self.version.digest = RecordHash::of(&now).added_to(self.version.digest);
                    let old = self.records.insert(key, now);
                    changed.push(key);
                    old
                }
            };
            if let Some(old) = old {
                self.version.digest = RecordHash::of(&old).taken_from(self.version.digest);
                if changed.last() != Some(&key) {
                    changed.push(key);
                }
            }
        }
        if changed.is_empty() {
            return;
        }
        self.version.revision = revision;
        self.changed += changed.len();
        self.changes.push_back((before, changed));
        while self.changed > CHANGES_MAX
            && let Some((_, keys)) = self.changes.pop_front()
        {
            self.changed -= keys.len();
        }
    }

    /// The changes that bring a holder of a version to the present one.
    pub(crate) fn since(&self, held: Option<TableVersion>) -> Since<K, R> {
        if held == Some(self.version) {
            return Since::Nothing;
        }
        // Holders are mostly near the end.
        let at = held.and_then(|held| self.changes.iter().rposition(|(before, _)| *before == held));
        let Some(at) = at else { return Since::All(self.records.values().cloned().collect()) };
        let keys: BTreeSet<K> = self.changes.iter().skip(at).flat_map(|(_, keys)| keys).copied().collect();
        Since::Changed(keys.into_iter().map(|key| (key, self.records.get(&key).cloned())).collect())
    }
}
