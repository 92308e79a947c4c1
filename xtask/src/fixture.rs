//! `cargo xtask fixture`: keeps a state folder of the present version, which later versions have to open.

use anyhow::Result;

use crate::{process, ui, workspace};

/// The test that opens the folders, and writes the newest when it is told to.
const TEST: &str = "state_folders_of_every_release_are_opened";
/// Tells it to.
const VARIABLE: &str = "SWARM_TEST_WRITE_FIXTURE";

/// Writes `node/tests/fixtures/<version>` and opens it again.
pub(crate) fn run() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "swarmd", "--test", "e2e", TEST]).env(VARIABLE, "1");
    ui::command(&process::line(&cargo));
    process::run(&mut cargo)
}
