//! A short run of the simulated consensus, and that it finds what it is there to find.

use swarm_model::mutant::{RAFT_MUTANTS, activate};
use swarm_sim::raft::{Options, simulate};

/// Short enough for an unoptimised build; `cargo xtask sim` runs ten minutes a seed.
const SHORT: Options = Options { minutes: 2, trace: false };

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
    let traced = [1, 1].map(|seed| simulate(seed, Options { trace: true, ..SHORT }));
    for (line, again) in traced[0].trace.iter().zip(&traced[1].trace) {
        assert_eq!(line, again, "a seed is a whole history");
    }
    assert_eq!(traced[0].hash, runs[0].hash, "to look on changes nothing");
    assert!(traced[0].trace.len() > 1_000, "the trace has a line for each event");
}

#[test]
fn a_manager_that_applies_an_entry_in_another_way_finds_out_by_its_digest() {
    activate(Some("apply-differently"));
    let complaints: Vec<String> = (1..=6).filter_map(|seed| simulate(seed, SHORT).complaint).collect();
    activate(None);
    let by_digest = complaints.iter().filter(|complaint| {
        complaint.starts_with("manager 2 stopped: this manager has something else than most managers: at entry")
    });
    assert!(by_digest.count() > 0, "{complaints:#?}");
}

#[test]
fn every_mutant_is_found() {
    for (mutant, mistake) in RAFT_MUTANTS {
        activate(Some(mutant));
        let found = (1..=SEEDS_MAX).find_map(|seed| Some((seed, simulate(seed, SHORT).complaint?)));
        activate(None);
        let (seed, complaint) = found.unwrap_or_else(|| panic!("{mutant} ({mistake}) is not found"));
        println!("{mutant}: seed {seed}: {}", complaint.lines().next().unwrap_or_default());
    }
}
