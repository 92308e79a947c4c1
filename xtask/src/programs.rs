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

/// The folder that [`FOLDER_VARIABLE`] names.
fn named_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// The folder of the programs, which are perhaps not built yet.
pub(crate) fn folder() -> Result<PathBuf> {
    match named_folder() {
        Some(folder) => Ok(folder),
        None => Ok(workspace::metadata()?.target_directory.join("release")),
    }
}

/// Builds them in release mode, unless a folder with others is given.
pub(crate) fn build() -> Result<Programs> {
    let folder = folder()?;
    let programs = Programs { swarmd: folder.join("swarmd"), swarmctl: folder.join("swarmctl") };
    if named_folder().is_some() {
        ui::say(&format!("Running the programs in {} ({FOLDER_VARIABLE}).", folder.display()));
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
    Ok(programs)
}
