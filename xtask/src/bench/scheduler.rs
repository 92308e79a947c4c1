//! The scheduler alone: crates/core/benches/scheduler.rs.

use anyhow::Result;

use super::result::{Figure, Goal};
use super::{Bench, program};

/// Runs it. With apply no shape is to be below the one goal, and the mean of all not below the other.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let figures = program::run(bench, "swarm-core", "scheduler", &[])?;
    let goal = |figure: Figure| match figure.name.as_str() {
        "scheduler.decide+apply" => figure.goal(Goal::AtLeast(300_000.0)),
        "scheduler.decide+apply geometric mean" => figure.goal(Goal::AtLeast(500_000.0)),
        _ => figure,
    };
    Ok(figures.into_iter().map(goal).collect())
}
