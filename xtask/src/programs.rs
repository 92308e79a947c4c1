//! The programs that demos and benchmarks run.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, ui, workspace};

/// The programs under show.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The daemon.
    pub swarmd: PathBuf,
    /// The command line.
    pub swarmctl: PathBuf,
}

/// Builds them in release mode.
pub(crate) fn build() -> Result<Programs> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "swarmd", "--package", "swarmctl"]);
    ui::say("Building swarmd and swarmctl in release mode; the first time takes some minutes.");
    ui::command(&process::line(&cargo));
    process::run(&mut cargo)?;
    let folder = workspace::metadata()?.target_directory.join("release");
    Ok(Programs { swarmd: folder.join("swarmd"), swarmctl: folder.join("swarmctl") })
}
