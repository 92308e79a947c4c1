//! A short run of the simulator, and that it finds what it is there to find.

use swarm_model::mutant::{MUTANTS, activate};
use swarm_sim::{Options, simulate};

/// Small enough for an unoptimised build; `cargo xtask sim` runs whole hours of whole clusters.
const SHORT: Options = Options { nodes: 12, minutes: 6, trace: false };

/// A mutant has to be found within so many seeds.
const SEEDS_MAX: u64 = 200;

#[test]
fn a_few_seeds_are_clean_and_come_out_the_same_again() {
    for seed in 1..=4 {
        let first = simulate(seed, SHORT);
        assert_eq!(first.complaint, None, "seed {seed}");
        assert!(first.counts.faults_total() > 50, "seed {seed} has faults");
        if seed == 1 {
            assert_eq!(simulate(seed, SHORT).hash, first.hash, "a seed is a whole history");
            let traced = simulate(seed, Options { trace: true, ..SHORT });
            assert_eq!(traced.hash, first.hash, "to look on changes nothing");
        } else {
            assert_ne!(simulate(1, SHORT).hash, first.hash, "each seed is another history");
        }
    }
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
