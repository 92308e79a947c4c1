//! Benchmarks that are programs of a crate: they print figures, one JSON object a line.

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::result::Figure;
use crate::{process, ui, workspace};

/// Builds and runs a benchmark of a package.
pub(super) fn run(bench: &Bench, package: &str, program: &str, arguments: &[&str]) -> Result<Vec<Figure>> {
    let mut cargo = workspace::cargo();
    cargo.args(["bench", "--quiet", "--package", package, "--bench", program, "--"]).args(arguments);
    if bench.quick {
        cargo.arg("--quick");
    }
    ui::command(&process::line(&cargo));
    let printed = process::output(&mut cargo)?;
    let printed = String::from_utf8_lossy(&printed);
    let figures: Vec<Figure> = printed
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{program} printed no figure: {line:?}")))
        .collect::<Result<_>>()?;
    ensure!(!figures.is_empty(), "{program} printed no figures");
    Ok(figures)
}
