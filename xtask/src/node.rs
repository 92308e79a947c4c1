//! A swarmd that a demo or a benchmark runs: a node with folders, a name and an address of its own.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::http::{self, Address};
use crate::wait::{self, Look};
use crate::{process, ui};

/// A swarmd opens its socket at once; a machine under load may need longer.
const START_LIMIT: Duration = Duration::from_secs(30);
/// It says good-bye to its manager and closes its files.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// What each node says that it has, so that three of them do not promise the machine three times.
const RESOURCES: &str = "cpu=2,memory=2g";

/// A folder in memory for the files of secrets. Each node makes a folder of its own in it.
const SECRETS_DIR: &str = "/dev/shm/swarmd-demo";
/// The folder in which the engine that xtask starts shows the network namespaces of containers.
const SANDBOXES_DIR: &str = "/run/swarmd-demo/exec/netns";

/// A node: a swarmd with folders, a name and an address of its own.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its host name.
    pub name: String,
    /// Its address, on the loopback interface.
    pub ip: Ipv4Addr,
    program: PathBuf,
    engine: String,
    port: u16,
    folder: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// A node that is not running yet. `number` counts from 1; its folder will be in `folder`.
    pub(crate) fn new(number: u8, program: &Path, engine: &str, port: u16, folder: &Path) -> Result<Self> {
        let name = format!("node-{number}");
        let folder = folder.join(&name);
        fs::create_dir(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self {
            name,
            ip: Ipv4Addr::new(127, 0, 0, number),
            program: program.to_owned(),
            engine: engine.to_owned(),
            port,
            folder,
            process: None,
        })
    }

    /// Where its API listens.
    pub(crate) fn api(&self) -> Address {
        Address::Unix(self.folder.join("swarmd.sock"))
    }

    /// Where other nodes reach it.
    pub(crate) fn peer_address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Starts it and waits until its API answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = self.log();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SWARMD_")) {
            command.env_remove(name);
        }
        command
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .arg("--socket")
            .arg(self.folder.join("swarmd.sock"))
            .args(["--secrets-dir", SECRETS_DIR])
            .args([
                "--sandboxes-dir",
                SANDBOXES_DIR,
                "--engine",
                &self.engine,
                "--hostname",
                &self.name,
                "--resources",
                RESOURCES,
            ])
            .args(["--listen-addr", &self.peer_address(), "--advertise-addr", &self.peer_address()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot write the node's log")?)
            .stderr(log)
            // Ctrl-C is for us; nodes are stopped in order.
            .process_group(0);
        ui::command(&process::line(&command));
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut ended = None;
        let (what, api) = (format!("the API of {} answers", self.name), self.api());
        let started = wait::until(&what, START_LIMIT, || {
            ended = child.try_wait()?;
            if ended.is_some() {
                return Ok(Look::Done(()));
            }
            http::call(&api, "GET", "/_ping", None).map(|_| Look::Done(()))
        });
        self.process = Some(child);
        if let Some(status) = ended {
            bail!("swarmd of {} ended at its start: {status}", self.name);
        }
        started
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<u32> {
        let Some(mut child) = self.process.take() else { bail!("{} is not running", self.name) };
        child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot kill swarmd of {}", self.name))?;
        Ok(child.id())
    }

    /// Stops it in order; with SIGKILL if that takes too long, which is an error.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.process.take() else { return Ok(()) };
        if process::terminate(&mut child, &format!("swarmd of {} ends", self.name), STOP_LIMIT)? {
            return Ok(());
        }
        child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot kill swarmd of {}", self.name))?;
        bail!("swarmd of {} did not end within {} s after SIGTERM and was killed", self.name, STOP_LIMIT.as_secs());
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Leaves it running when we end. Returns its process id.
    pub(crate) fn release(&mut self) -> Option<u32> {
        self.process.take().map(|child| child.id())
    }

    /// Its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("swarmd.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            // Only on the way out of a panic; then there is nobody to tell.
            drop(child.kill().and_then(|()| child.wait()));
        }
    }
}

/// A port that is free at the addresses of all `nodes`: Swarm's own, or else one that nobody is known for.
pub(crate) fn free_port(nodes: u8) -> Result<u16> {
    let free = |port: &u16| {
        let listeners: std::io::Result<Vec<TcpListener>> =
            (1..=nodes).map(|number| TcpListener::bind((Ipv4Addr::new(127, 0, 0, number), *port))).collect();
        listeners.is_ok()
    };
    std::iter::once(2377).chain(23770..23800).find(free).context(
        "neither port 2377 nor one of 23770 to 23799 is free at 127.0.0.1 and the addresses after it; the nodes need one",
    )
}
