//! Bugs that stay in the program on purpose, to show that its tests would find them.
//!
//! A mutant is one condition at the place where the mistake could be made: `|| mutant("name")`. They are compiled in
//! with the feature `mutants` alone, which only tests of the simulator switch on; without it [`mutant`] is a constant.

/// The mutants, with what is wrong in each.
#[cfg(feature = "mutants")]
pub const MUTANTS: [(&str, &str); 8] = [
    ("skip-node-epoch", "a task is placed on a node that changed since the decision"),
    ("status-goes-down", "a late report lowers the state of a task"),
    ("skip-restart-delay", "a replacement runs before its restart delay ends"),
    ("skip-predecessor", "a replacement runs while the task before it is still stopping"),
    ("uncounted-update", "an update does not count the places that are under way"),
    ("stop-before-ack", "a task is told to stop while nodes still send it connections"),
    ("keep-ended-endpoint", "a task that has ended stays in the endpoint table"),
    ("adopt-nothing", "an agent that starts again takes its containers for gone"),
];

/// Those of Raft, which the simulated consensus has to find.
#[cfg(feature = "mutants")]
pub const RAFT_MUTANTS: [(&str, &str); 11] = [
    ("ack-before-fsync", "the log says that entries are durable before they are"),
    ("vote-not-persisted", "a vote is forgotten in a crash"),
    ("truncate-not-persisted", "entries that another leader overwrote come back"),
    ("snapshot-not-stored", "a snapshot counts as taken, and the log is purged, before it is durable"),
    ("stale-read-of-leader", "a leader that may be deposed reads without asking the others"),
    ("stale-read-index", "a leader tells followers how far to read without asking the others"),
    ("read-before-applied", "a follower reads before it has applied what the leader said"),
    ("apply-differently", "one manager applies an entry in another way; its digest alone tells"),
    ("retry-lost-write", "a write whose answer was lost is made again"),
    ("witness-ignored", "a log that lost its end starts, whatever its witness says"),
    ("leader-not-asked", "a manager takes part before a leader has said what it had acknowledged"),
];

#[cfg(feature = "mutants")]
mod active {
    use std::cell::Cell;

    thread_local! {
        pub(super) static ACTIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
    }
}

/// Whether this mutant is active in this thread.
#[cfg(feature = "mutants")]
pub fn mutant(name: &str) -> bool {
    active::ACTIVE.get() == Some(name)
}

/// Whether this mutant is active: never, the program is built without them.
#[cfg(not(feature = "mutants"))]
pub const fn mutant(_name: &str) -> bool {
    false
}

/// Makes one mutant active in this thread, or none.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<&'static str>) {
    active::ACTIVE.set(mutant);
}
