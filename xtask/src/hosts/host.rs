//! One host: network, mount, process and name namespaces of its own, and the folder in which it keeps its things.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{FOLDER, lan};
use crate::engine::Engine;
use crate::http::{self, Address};
use crate::wait::{self, Look};
use crate::{process, ui};

/// An engine needs half a second, two after a crash; a machine under load, or its first start, needs more.
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);
/// The kernel ends what is left of a host at once.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Parent of the containers' groups, of all hosts.
pub(super) const CGROUP: &str = "swarmd-hosts";
/// The port of managers.
const PORT: u16 = 2377;

/// A host, running or not.
#[derive(Clone, Debug)]
pub(super) struct Host {
    number: u8,
}

impl Host {
    /// The host with a number, from 1.
    pub(super) fn new(number: u8) -> Self {
        Self { number }
    }

    /// Its number.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        format!("host-{}", self.number)
    }

    /// The name of its network namespace.
    pub(super) fn namespace(&self) -> String {
        format!("swarmd-{}", self.name())
    }

    /// Its address on the LAN.
    pub(super) fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + self.number)
    }

    /// Where other hosts reach its swarmd.
    pub(super) fn peer_address(&self) -> String {
        format!("{}:{PORT}", self.ip())
    }

    /// What it keeps.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(self.number.to_string())
    }

    /// Where its engine listens.
    pub(super) fn engine_socket(&self) -> PathBuf {
        self.folder().join("docker.sock")
    }

    /// The folder of its swarmd's socket: `/run/swarmd` on the host.
    pub(super) fn run_folder(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// The API of its swarmd. Files are the machine's, so that it answers also while the host's cable is out.
    pub(super) fn api(&self) -> Address {
        Address::Unix(self.run_folder().join("swarmd.sock"))
    }

    /// Starts it unless it runs, and waits until its engine and its swarmd answer.
    pub(super) fn start(&self, swarmd: &Path) -> Result<()> {
        lan::heal(self)?;
        if self.pid().is_none() {
            self.spawn(swarmd)?;
        }
        wait::until(&format!("engine and swarmd of {} answer", self.name()), START_LIMIT, || {
            if self.pid().is_none() {
                bail!("it ended at its start: see the logs in {}", self.folder().display());
            }
            Engine::at(&self.engine_socket())?;
            http::call(&self.api(), "GET", "/_ping", None).map(|_| Look::Done(()))
        })
    }

    fn spawn(&self, swarmd: &Path) -> Result<()> {
        let folder = self.folder();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let log = folder.join("host.log");
        let log = File::options().create(true).append(true).open(&log).context("cannot write the host's log")?;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", lan::namespace_file(&self.namespace())))
            // The end of the helper, or of the first process, is the end of the host.
            .args(["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"])
            .arg(std::env::current_exe().context("cannot find this program")?)
            .args(["hosts", "init", &self.number.to_string()])
            .arg(swarmd)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot write the host's log")?)
            .stderr(log)
            .process_group(0);
        ui::command(&process::line(&command));
        let child = command.spawn().context("cannot run nsenter")?;
        let first = wait::until(&format!("{} runs", self.name()), START_LIMIT, || {
            let first = children(child.id()).into_iter().next();
            Ok(first.map_or_else(|| Look::NotYet("no process yet".to_owned()), Look::Done))
        })?;
        fs::write(self.pid_file(), first.to_string()).context("cannot write the host's process id")
    }

    /// Its first process, seen from outside, while it runs.
    pub(super) fn pid(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        // The number may be another process's by now.
        let ours = line.contains(&format!("hosts\0init\0{}\0", self.number));
        Pid::from_raw(pid).filter(|_| ours)
    }

    /// Its swarmd, seen from outside.
    pub(super) fn swarmd(&self) -> Result<Pid> {
        let found = self.programs("--config")?.first().copied();
        found.with_context(|| format!("{} has no swarmd now", self.name()))
    }

    /// Its data planes, seen from outside: one, or while it is replaced, two.
    pub(super) fn data_planes(&self) -> Result<Vec<Pid>> {
        self.programs("data")
    }

    /// The processes of swarmd with this first argument.
    fn programs(&self, argument: &str) -> Result<Vec<Pid>> {
        let first = self.pid().with_context(|| format!("{} does not run", self.name()))?;
        let is_meant = |pid: &u32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut arguments = line.split('\0');
            arguments.next().is_some_and(|program| program.ends_with("/swarmd")) && arguments.next() == Some(argument)
        };
        // A data plane stays below the swarmd that started it, and the next data plane below the one before.
        let mut found = children(first.as_raw_nonzero().get().unsigned_abs());
        let mut looked_at = 0;
        while let Some(pid) = found.get(looked_at).copied() {
            found.extend(children(pid));
            looked_at += 1;
        }
        Ok(found.into_iter().filter(is_meant).filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect())
    }

    /// A command on this host; its arguments follow.
    pub(super) fn enter(&self) -> Result<Command> {
        let Some(pid) = self.pid() else {
            bail!("{} does not run: `cargo xtask hosts start {}`", self.name(), self.number)
        };
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.as_raw_nonzero().to_string(), "--mount", "--pid", "--net", "--uts", "--"]);
        Ok(command)
    }

    /// Cuts its power: the cable first, so that nobody hears of the end.
    pub(super) fn crash(&self) -> Result<()> {
        lan::cut(self)?;
        self.end()
    }

    /// Ends everything on it at once.
    pub(super) fn end(&self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        kill_process(pid, Signal::KILL).with_context(|| format!("cannot end {}", self.name()))?;
        wait::until(&format!("{} ends", self.name()), END_LIMIT, || {
            Ok(if self.pid().is_none() { Look::Done(()) } else { Look::NotYet("it runs".to_owned()) })
        })
    }

    fn pid_file(&self) -> PathBuf {
        self.folder().join("init.pid")
    }
}

/// The children of a process. The kernel lists those of each of its threads.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests;
