//! Memory of swarmd: a manager without anything to do, and with 10,000 tasks, which run in memory on four workers.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bench;
use super::host::Host;
use super::result::{Figure, Goal};
use crate::node::Node;
use crate::{interrupt, ui};

const TASKS: u64 = 10_000;
const WORKERS: u8 = 4;
/// Time for what the start allocated to be freed again.
const SETTLE: Duration = Duration::from_secs(5);
/// What an idle swarmd may take.
const GOAL_MB: f64 = 30.0;

/// Runs it.
pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let host = Host::start(bench, 1 + WORKERS, None)?;
    settle()?;
    let mut figures = vec![
        rss(&host.nodes[0], "memory.manager", 0)?.goal(Goal::AtMost(GOAL_MB)),
        rss(&host.nodes[1], "memory.worker", 0)?.goal(Goal::AtMost(GOAL_MB)),
    ];
    // Then the manager's figure is the manager's alone.
    host.drain(&host.nodes[0].name)?;
    let start = Instant::now();
    host.create_service("bench", "hello:1", TASKS)?;
    host.wait(&format!("{TASKS} tasks run"), || Ok((host.running()? == TASKS).then_some(())))?;
    ui::say(&format!("{TASKS} tasks ran after {:.1} s.", start.elapsed().as_secs_f64()));
    settle()?;
    figures.push(rss(&host.nodes[0], "memory.manager", TASKS)?);
    figures.push(rss(&host.nodes[1], "memory.worker", TASKS / u64::from(WORKERS))?);
    Ok(figures)
}

fn settle() -> Result<()> {
    let end = Instant::now() + SETTLE;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        interrupt::check()?;
        thread::park_timeout(left);
    }
    Ok(())
}

/// What of a swarmd is in memory now; its program's own pages are among it.
fn rss(node: &Node, name: &str, tasks: u64) -> Result<Figure> {
    let pid = node.pid().with_context(|| format!("{} does not run", node.name))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read its memory")?;
    let mb = |field: &str| kib(&status, field).map(|kib| (kib * 1024) as f64 / 1e6);
    let (all, file) = (mb("VmRSS:")?, mb("RssFile:")?);
    Ok(Figure::new(name, all, "MB").with("tasks", tasks).with("of it program", format!("{file:.1} MB")))
}

fn kib(status: &str, field: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse().ok());
    number.with_context(|| format!("/proc has no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_says() {
        let status = "Name:\tswarmd\nVmRSS:\t   12345 kB\nRssFile:\t7 kB\n";
        assert_eq!(kib(status, "VmRSS:").unwrap(), 12_345);
        assert!(kib(status, "VmSwap:").is_err());
    }
}
