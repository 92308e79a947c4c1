//! What the figures were measured on.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// How long the processors are watched.
const WATCH: Duration = Duration::from_secs(1);

/// A machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// Of the folder in which the logs are.
    filesystem: String,
}

impl Machine {
    /// Looks at this machine and at the file system of a folder.
    pub(super) fn look(folder: &Path) -> Result<Self> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        let name = rustix::system::uname();
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism().context("cannot count the processors")?.get(),
            memory_gib: (memory_kib + (1 << 19)) >> 20,
            kernel: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
            filesystem: filesystem(folder)?,
        })
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let Self { processor, cores, memory_gib, kernel, filesystem } = self;
        json!({
            "processor": processor, "cores": cores, "memory_gib": memory_gib,
            "kernel": kernel, "filesystem": filesystem,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_gib, kernel, filesystem } = self;
        write!(f, "{cores} cores ({processor}), {memory_gib} GiB, {kernel}, logs on {filesystem}")
    }
}

/// The type of the file system that a folder is on: that of the longest mount point that leads to it.
fn filesystem(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (point, kind) = (words.nth(1)?, words.next()?);
            folder.starts_with(point).then_some((point.len(), kind))
        })
        // Of two at the same place the later one counts.
        .max_by_key(|(length, _)| *length);
    Ok(found.map(|(_, kind)| kind.to_owned()).unwrap_or_default())
}

/// Share of the processors' time in which they have nothing to do, over a moment from now on.
pub(super) fn idle_share() -> Result<f64> {
    let before = Times::read()?;
    thread::park_timeout(WATCH);
    let after = Times::read()?;
    let all = after.all.saturating_sub(before.all).max(1);
    Ok(after.idle.saturating_sub(before.idle) as f64 / all as f64)
}

/// Processor time since the start of the machine, in ticks.
struct Times {
    all: u64,
    idle: u64,
}

impl Times {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text).context("cannot understand /proc/stat")
    }

    /// The first line: `cpu user nice system idle iowait irq softirq steal …`.
    fn parse(text: &str) -> Option<Self> {
        let words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let times: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { all: times.iter().sum(), idle: times.get(3)? + times.get(4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_disk_is_idle() {
        let times = Times::parse("cpu  10 1 20 60 5 1 1 2 7 8\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!((times.all, times.idle), (100, 65));
        assert!(Times::parse("cpu0 1 2").is_none());
        assert!(Times::parse("").is_none());
    }

    #[test]
    fn this_machine_has_a_core_and_a_kernel() {
        let machine = Machine::look(Path::new("/")).unwrap();
        assert!(machine.cores > 0 && machine.kernel.contains("Linux") && !machine.filesystem.is_empty());
    }
}
