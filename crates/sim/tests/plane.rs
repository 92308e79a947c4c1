//! A short run of the simulator, and that it finds what it is there to find.

use swarm_model::mutant::{MUTANTS, activate};
use swarm_sim::{Options, simulate};

/// Small enough for an unoptimised build; `cargo xtask sim` runs whole hours of whole clusters.
const SHORT: Options = Options { nodes: 10, minutes: 5, trace: false };

/// A mutant has to be found within so many seeds.
const SEEDS_MAX: u64 = 200;

#[test]
fn a_few_seeds_are_clean_and_come_out_the_same_again() {
    let runs: Vec<_> = (1..=3).map(|seed| simulate(seed, SHORT)).collect();
    for (run, seed) in runs.iter().zip(1..) {
        assert_eq!(run.complaint, None, "seed {seed}");
        assert!(run.counts.faults_total() > 30, "seed {seed} has faults");
    }
    assert_ne!(runs[0].hash, runs[1].hash, "each seed is another history");
    let traced = simulate(1, Options { trace: true, ..SHORT });
    assert_eq!(traced.hash, runs[0].hash, "a seed is a whole history, and to look on changes nothing");
    assert!(traced.trace.len() > 1_000, "the trace has a line for each event");
}

#[test]
fn every_mutant_is_found() {
    for (mutant, mistake) in MUTANTS {
        activate(Some(mutant));
        let found = (1..=SEEDS_MAX).find_map(|seed| Some((seed, simulate(seed, SHORT).complaint?)));
        activate(None);
        let (seed, complaint) = found.unwrap_or_else(|| panic!("{mutant} ({mistake}) is not found"));
        println!("{mutant}: seed {seed}: {}", complaint.lines().next().unwrap_or_default());
    }
}
