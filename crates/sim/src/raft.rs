//! The simulated consensus: three or five managers that run the code of `swarm_consensus` as it ships, on a simulated
//! network and disks, with clients that write and read through any of them.
//!
//! Everything of a run is on one thread with paused time, and its only randomness is the seed: a run comes out the same
//! byte for byte each time ([`Report::hash`]).

mod clients;
mod damage;
mod disk;
mod faults;
mod managers;
mod members;
mod network;
mod oracle;
mod pipe;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{Counts, Report, counts::Kinds};
use world::World;

/// Every kind of fault.
const FAULTS: [&str; 27] = [
    "all managers lose power",
    "clean stop",
    "clock jump",
    "connection reset",
    "disk full",
    "disk slow",
    "fsync fails",
    "kill",
    "lost end of a log",
    "message delayed for long",
    "message delivered twice",
    "message held back by a cut",
    "message lost",
    "messages overtake each other",
    "missing witness",
    "network lossy",
    "network slow",
    "older copy of a folder",
    "older copy of a log",
    "older copy of a witness",
    "one-way cut",
    "partition",
    "power cut",
    "silent death",
    "torn witness",
    "torn write",
    "unsynced write lost",
];

/// Every kind of operation.
const OPERATIONS: [&str; 13] = [
    "add manager",
    "hand over",
    "linearizable read",
    "refusal by the word of a leader",
    "refusal of damaged files",
    "remove manager",
    "replace manager",
    "snapshot",
    "start from a snapshot of another manager",
    "write by the leader",
    "write by way of a follower",
    "write for a leader's term",
    "writes that share an entry",
];

/// What of a run is counted.
pub const KINDS: Kinds = Kinds { faults: &FAULTS, operations: &OPERATIONS };

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Simulated minutes of faults. After them all is mended and has to settle.
    pub minutes: u64,
    /// Keep a line for each event.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { minutes: 10, trace: false }
    }
}

/// Runs one seed.
pub fn simulate(seed: u64, options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("no runtime: {error}")),
    };
    let world = runtime.block_on(async { World::new(seed, options.trace) });
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(world.run(Duration::from_secs(60 * options.minutes)));
    }));
    if panicked.is_err() {
        world.complain("a panic of the simulator itself".into());
    }
    // What is still running is dropped with the runtime, and with it the handles that go round in circles.
    let simulated_ms = runtime.block_on(async { world.now_ms() });
    world.clear();
    drop(runtime);
    world.report(simulated_ms)
}

fn failed(complaint: String) -> Report {
    let counts = Counts::of(&KINDS);
    Report { hash: 0, counts, simulated_ms: 0, complaint: Some(complaint), trace: Vec::new() }
}
