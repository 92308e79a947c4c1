//! `cargo xtask sim`: builds the simulator and runs it.

use std::process::Command;

use anyhow::Result;

use crate::{process, ui, workspace};

/// Runs the simulator with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "swarm-sim"]);
    if arguments.iter().any(|argument| argument.starts_with("--mutant")) {
        // Only then: a program without bugs on purpose is what the other runs are about.
        cargo.args(["--features", "mutants"]);
    }
    ui::command(&process::line(&cargo));
    process::run(&mut cargo)?;
    let program = workspace::metadata()?.target_directory.join("release/swarm-sim");
    process::run(Command::new(program).args(arguments))
}
