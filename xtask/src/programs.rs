//! The programs that demos and benchmarks run.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{process, ui, workspace};

/// The programs under show.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The daemon.
    pub swarmd: PathBuf,
    /// The command line.
    pub swarmctl: PathBuf,
}

/// Names a folder whose programs are run instead of new ones, to compare with another version.
const FOLDER_VARIABLE: &str = "SWARM_PROGRAMS";

/// Builds them in release mode, unless a folder with others is given.
pub(crate) fn build() -> Result<Programs> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        ui::say(&format!("Running the programs in {} ({FOLDER_VARIABLE}).", folder.display()));
        let programs = Programs { swarmd: folder.join("swarmd"), swarmctl: folder.join("swarmctl") };
        for program in [&programs.swarmd, &programs.swarmctl] {
            ensure!(program.is_file(), "{FOLDER_VARIABLE}: there is no program {}", program.display());
        }
        return Ok(programs);
    }
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "swarmd", "--package", "swarmctl"]);
    ui::say("Building swarmd and swarmctl in release mode; the first time takes some minutes.");
    ui::command(&process::line(&cargo));
    process::run(&mut cargo)?;
    let folder = workspace::metadata()?.target_directory.join("release");
    Ok(Programs { swarmd: folder.join("swarmd"), swarmctl: folder.join("swarmctl") })
}
