//! Bugs that stay in the program on purpose, to show that its tests would find them.
//!
//! A mutant is one condition at the place where the mistake could be made: `|| mutant("name")`. They are compiled in
//! with the feature `mutants` alone, which only tests of the simulator switch on; without it [`mutant`] is a constant.

/// The mutants, with what is wrong in each.
#[cfg(feature = "mutants")]
pub const MUTANTS: [(&str, &str); 6] = [
    ("skip-node-epoch", "a task is placed on a node that changed since the decision"),
    ("status-goes-down", "a late report lowers the state of a task"),
    ("skip-restart-delay", "a replacement runs before its restart delay ends"),
    ("skip-predecessor", "a replacement runs while the task before it is still stopping"),
    ("uncounted-update", "an update does not count the places that are under way"),
    ("adopt-nothing", "an agent that starts again takes its containers for gone"),
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
