//! Waiting for a condition, and chance that can be repeated.

use std::time::{Duration, Instant};

/// No test waits longer than this for anything; reaching it is a failure. Far longer than anything takes, also on a
/// machine that builds something else at the same time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Looks until there is a value. An error says what there is instead; the last one is shown if time runs out.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > PATIENCE => {
                panic!("{what}: this did not happen within {} s; last seen: {seen}", PATIENCE.as_secs())
            }
            Err(_) => std::thread::park_timeout(POLL),
        }
    }
}

/// Lets time pass. For the few tests whose subject is time itself, and for faults at a random moment.
pub fn pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Random numbers from a seed (SplitMix64): the same in each run, or others with `SWARM_TEST_SEED`.
pub struct Rng(u64);

impl Rng {
    /// Chance from the seed of this run; `stream` tells independent users of it apart.
    pub fn new(stream: u64) -> Self {
        let seed = match std::env::var("SWARM_TEST_SEED") {
            Ok(text) => text.parse().expect("SWARM_TEST_SEED is a number"),
            Err(_) => 1,
        };
        Self(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15) ^ (stream << 32))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// A time below `end_ms`.
    pub fn time_below(&mut self, end_ms: u64) -> Duration {
        Duration::from_micros(self.below(end_ms * 1000))
    }
}
