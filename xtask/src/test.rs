//! `cargo xtask test`: everything that has to hold before a change goes in.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::engine::Engine;
use crate::{images, interrupt, process, ui, verify, workspace};

/// Tells the tests which engine they may use; without it those that need one do nothing.
const ENGINE_VARIABLE: &str = "SWARM_TEST_DOCKER";

/// Where property tests begin. What they try is the same each time, so a change is not held up by luck; another number
/// in the environment tries something else.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

/// Runs all checks and tests, or with filters only the tests whose names contain one of them.
pub(crate) fn run(filters: &[String]) -> Result<()> {
    let mut summary = Summary::default();
    if filters.is_empty() {
        summary.stage("rules", || verify::run().map(|()| String::new()))?;
        summary.stage("format", || {
            checked(workspace::cargo().args(["fmt", "--all", "--check"]), "`cargo fmt` mends it")
        })?;
        summary.stage("lints", || {
            checked(
                workspace::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
                "mend what clippy found",
            )
        })?;
    }
    let engine = match Engine::ensure() {
        Ok(engine) => Some(engine),
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => {
            return Err(error.context("CI=true: the tests with a real Docker Engine may not be left out"));
        }
        Err(error) => {
            ui::warn(&format!("no Docker Engine, so the tests that need one are left out: {error:#}"));
            None
        }
    };
    if let Some(engine) = &engine {
        summary.stage("images", || {
            images::ensure(engine).map(|_| format!("engine {} at {}", engine.version(), engine.host()))
        })?;
    }
    summary.stage("tests", || tests(engine.as_ref(), filters))?;
    summary.print();
    if engine.is_none() {
        ui::warn("the tests with a real Docker Engine were LEFT OUT; see above what to install");
    }
    if let Some(hint) = engine.as_ref().and_then(Engine::stop_hint) {
        ui::say(&ui::dim(&format!("The Docker Engine that was started for this keeps running; `{hint}` ends it.")));
    }
    Ok(())
}

fn checked(command: &mut Command, advice: &str) -> Result<String> {
    ui::command(&process::line(command));
    process::run(command).with_context(|| advice.to_owned())?;
    Ok(String::new())
}

/// Runs the tests, shows what they print, and counts.
fn tests(engine: Option<&Engine>, filters: &[String]) -> Result<String> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--"]).args(filters);
    match engine {
        Some(engine) => command.env(ENGINE_VARIABLE, engine.host()),
        None => command.env_remove(ENGINE_VARIABLE),
    };
    if std::env::var_os(SEED.0).is_none() {
        command.env(SEED.0, SEED.1);
    }
    ui::command(&process::line(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        let line = String::from_utf8_lossy(&line);
        counts.add(&line);
        ui::say(&line);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    interrupt::check()?;
    if !status.success() {
        bail!("{} tests failed, {} passed; each failure is shown above ({status})", counts.failed, counts.passed);
    }
    if counts.passed == 0 {
        bail!("no test ran: no name contains {}", filters.join(" or "));
    }
    Ok(format!("{} passed", counts.passed))
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    /// Reads the line with which a test program ends: `test result: ok. 5 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, what)| (number.parse::<u64>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

#[derive(Default)]
struct Summary {
    lines: Vec<String>,
}

impl Summary {
    fn stage(&mut self, name: &str, run: impl FnOnce() -> Result<String>) -> Result<()> {
        interrupt::check()?;
        ui::heading(name);
        let start = Instant::now();
        let result = run().with_context(|| format!("{name} failed"))?;
        self.lines.push(format!("{name:<8} {:>5} s   {result}", start.elapsed().as_secs()));
        Ok(())
    }

    fn print(&self) {
        ui::heading("Summary");
        for line in &self.lines {
            ui::seen(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts_what_test_programs_report() {
        let mut counts = Counts::default();
        counts.add("running 5 tests");
        counts.add("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s");
        counts.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s");
        counts.add("test result: nonsense");
        assert_eq!((counts.passed, counts.failed), (7, 1));
    }
}
