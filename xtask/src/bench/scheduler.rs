//! The scheduler alone: crates/core/benches/scheduler.rs.

use anyhow::Result;

use super::result::Figure;
use super::{Bench, program};

/// Runs it.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    program::run(bench, "swarm-core", "scheduler", &[])
}
