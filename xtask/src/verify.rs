//! `cargo xtask verify`: rules that the compiler does not check.

mod coverage;
mod dependencies;
mod files;

use anyhow::{Result, bail};

use crate::{ui, workspace};

/// Checks everything and prints what broke and where.
pub(crate) fn run() -> Result<()> {
    let metadata = workspace::metadata()?;
    let mut broken = dependencies::check(&metadata.packages);
    broken.extend(files::check(workspace::root())?);
    broken.extend(coverage::check(workspace::root())?);
    for line in &broken {
        ui::say(&format!("{} {line}", ui::red("✗")));
    }
    if !broken.is_empty() {
        bail!("{} of the project's rules are broken (ARCHITECTURE.md has them, with their reasons)", broken.len());
    }
    ui::seen("imports, file sizes and the other rules hold");
    Ok(())
}
