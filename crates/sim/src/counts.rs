//! How often what happened in a run: a fault that never occurs tests nothing.

use std::collections::BTreeMap;

/// Every kind of fault.
const FAULTS: [&str; 31] = [
    "agent crash",
    "agent clock jump",
    "answer of the log lost",
    "assignments late",
    "connection cut",
    "container disappears",
    "container event lost",
    "container exits",
    "container restarted by hand",
    "container started by hand",
    "container unhealthy",
    "data plane ends",
    "data plane refuses a table",
    "data plane stands still",
    "disk write lost",
    "engine call lost",
    "engine outage",
    "engine outage with its containers",
    "image cannot be had",
    "leader change",
    "leader clock jump",
    "leader with a table made anew",
    "log stalls",
    "network cut for many",
    "node fills up",
    "node shrinks",
    "power cut",
    "proposal applied twice",
    "proposal lost",
    "reports late",
    "start refused",
];

/// Every kind of operation, and every setting that a service is given with one.
const OPERATIONS: [&str; 30] = [
    "activate node",
    "change constraints",
    "change policies",
    "change settings",
    "create global job",
    "create global service",
    "create replicated job",
    "create replicated service",
    "drain node",
    "force update",
    "join node",
    "label node",
    "leave and remove node",
    "pause node",
    "publish free ports",
    "publish ports",
    "rebalance",
    "remove service",
    "reserve generic resources",
    "roll back",
    "scale",
    "swarmd.max-unavailable",
    "swarmd.placement",
    "swarmd.placement.prefer",
    "swarmd.rebalance",
    "swarmd.restart.backoff",
    "swarmd.update.deadline",
    "update",
    "use secrets",
    "withdraw ports",
];

/// What can be counted.
#[derive(Debug)]
pub struct Kinds {
    /// Every kind of fault.
    pub faults: &'static [&'static str],
    /// Every kind of operation.
    pub operations: &'static [&'static str],
}

/// What of a run of the plane is counted.
pub const KINDS: Kinds = Kinds { faults: &FAULTS, operations: &OPERATIONS };

/// Counts by name.
#[derive(Clone, Debug)]
pub struct Counts {
    /// What can be counted.
    pub kinds: &'static Kinds,
    /// Of [`FAULTS`].
    pub faults: BTreeMap<&'static str, u64>,
    /// Of [`OPERATIONS`], those that were committed; settings as often as they were asked for.
    pub operations: BTreeMap<&'static str, u64>,
    /// Of what else is worth knowing.
    pub others: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Nothing yet.
    pub fn of(kinds: &'static Kinds) -> Self {
        Self { kinds, faults: BTreeMap::new(), operations: BTreeMap::new(), others: BTreeMap::new() }
    }

    pub(crate) fn fault(&mut self, name: &'static str) {
        debug_assert!(self.kinds.faults.contains(&name), "{name} is not in the list");
        *self.faults.entry(name).or_default() += 1;
    }

    pub(crate) fn operation(&mut self, name: &'static str) {
        debug_assert!(self.kinds.operations.contains(&name), "{name} is not in the list");
        *self.operations.entry(name).or_default() += 1;
    }

    /// A service is given this setting.
    pub(crate) fn setting(&mut self, key: &str) {
        let name = OPERATIONS.iter().copied().find(|name| *name == key);
        self.operation(name.expect("the list has every setting of the generator"));
    }

    pub(crate) fn other(&mut self, name: &'static str) {
        *self.others.entry(name).or_default() += 1;
    }

    /// Adds those of another run.
    pub fn add(&mut self, more: &Self) {
        for (into, from) in [
            (&mut self.faults, &more.faults),
            (&mut self.operations, &more.operations),
            (&mut self.others, &more.others),
        ] {
            for (name, count) in from {
                *into.entry(name).or_default() += count;
            }
        }
    }

    /// All faults together.
    pub fn faults_total(&self) -> u64 {
        self.faults.values().sum()
    }

    /// The faults and operations that never occurred.
    pub fn missing(&self) -> Vec<&'static str> {
        let faults = self.kinds.faults.iter().filter(|name| !self.faults.contains_key(*name));
        faults
            .chain(self.kinds.operations.iter().filter(|name| !self.operations.contains_key(*name)))
            .copied()
            .collect()
    }
}
