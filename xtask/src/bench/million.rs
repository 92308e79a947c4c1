//! A million tasks in the core alone: crates/core/benches/million.rs; and services that are large by themselves:
//! crates/core/benches/one_service.rs.

use anyhow::Result;

use super::result::{Figure, Goal};
use super::{Bench, program};

/// Runs it. The goals are those of the full size.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = program::run(bench, "swarm-core", "million", &[])?;
    figures.extend(program::run(bench, "swarm-core", "one_service", &[])?);
    let goal = |figure: Figure| match figure.name.as_str() {
        "million.all_running" => figure.goal(Goal::AtMost(20.0)),
        "million.memory" => figure.goal(Goal::AtMost(1024.0)),
        "million.decisions_at_rest" => figure.goal(Goal::AtMost(0.0)),
        "million.lost_node" => figure.goal(Goal::AtMost(10.0)),
        _ => figure,
    };
    Ok(figures.into_iter().map(goal).collect())
}
