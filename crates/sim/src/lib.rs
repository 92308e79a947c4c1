//! The simulator of the whole plane: a leader, the agents of a cluster, operators and faults in one deterministic,
//! single-threaded world with simulated time, and an oracle that watches it.
//!
//! It runs the code that ships: `apply` and `decide`, the leader's step, the dispatcher's sessions, liveness and
//! reports, the agent's worker. What it replaces are the thin shells around them: clocks, sockets, disks, engines.
//! The log is a plain sequence with a model of leadership; Raft itself has a world of its own, [`raft`].
//!
//! A seed is a whole history and comes out the same byte for byte each time ([`Report::hash`]).

mod converged;
mod counts;
mod data;
mod engine;
mod event;
mod faults;
mod host;
mod jobs;
mod lead;
#[cfg(test)]
mod leaders;
mod log;
mod operator;
mod oracle;
mod peers;
mod ports;
pub mod raft;
mod rng;
mod specs;
mod stops;
mod tables;
mod updates;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use counts::{Counts, KINDS, Kinds};
use world::World;

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Nodes at the start; more join.
    pub nodes: u32,
    /// Simulated minutes of operations and faults. After them all is mended and has to settle.
    pub minutes: u64,
    /// Keep a line for each event.
    pub trace: bool,
}

impl Default for Options {
    /// What counts as a seed: at least an hour of at least 50 nodes.
    fn default() -> Self {
        Self { nodes: 50, minutes: 60, trace: false }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of all events and log entries: two runs of a seed have the same.
    pub hash: u64,
    /// How often what happened.
    pub counts: Counts,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// What the oracle found wrong, if anything.
    pub complaint: Option<String>,
    /// A line for each event, if asked for.
    pub trace: Vec<String>,
}

/// Runs one seed.
pub fn simulate(seed: u64, options: Options) -> Report {
    let mut world = World::new(seed, options);
    // What the code under test asserts is a finding like any other.
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err().map(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        format!("a panic: {text}")
    });
    world.report(panicked)
}
