//! Names for services that were given none.

const ADJECTIVES: [&str; 32] = [
    "able", "amber", "bold", "brave", "brisk", "calm", "clear", "crisp", "eager", "fair", "fleet", "fond", "gentle",
    "glad", "golden", "happy", "keen", "kind", "lively", "lucid", "merry", "mild", "noble", "polite", "proud", "quick",
    "quiet", "sunny", "swift", "tidy", "warm", "wise",
];

const SURNAMES: [&str; 32] = [
    "ampere", "babbage", "bell", "bohr", "carson", "cauchy", "cerf", "curie", "darwin", "dijkstra", "erdos", "euler",
    "fermat", "franklin", "galois", "gauss", "hamilton", "hopper", "kepler", "knuth", "lamport", "leibniz", "liskov",
    "lovelace", "maxwell", "meitner", "newton", "noether", "pascal", "ritchie", "shannon", "turing",
];

/// Names that are tried before one gets a number: with a thousand of them, that many in a row are hardly all taken.
const TRIES: u32 = 8;

/// A name like `calm_turing` that is not taken.
pub(super) fn random_name(random: u128, is_taken: impl Fn(&str) -> bool) -> String {
    let pick = |n: u128| {
        let (adjective, surname) = (ADJECTIVES[(n % 32) as usize], SURNAMES[(n / 32 % 32) as usize]);
        format!("{adjective}_{surname}")
    };
    (0..TRIES)
        .map(|i| pick(random >> (10 * i)))
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| format!("{}_{}", pick(random), random >> 96))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::{ServiceSpec, TaskSpec, validate_service_spec};

    use super::*;

    proptest! {
        #[test]
        fn names_are_valid(random: u128, all_taken: bool) {
            let name = random_name(random, |_| all_taken);
            let mut spec = ServiceSpec { name, task_template: TaskSpec::default(), ..ServiceSpec::default() };
            spec.task_template.container_spec.image = "x".into();
            prop_assert_eq!(validate_service_spec(&spec), Ok(()));
        }
    }

    #[test]
    fn a_name_that_is_taken_is_not_used() {
        let first = random_name(7, |_| false);
        assert_ne!(random_name(7, |name| name == first), first);
    }
}
