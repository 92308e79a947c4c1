//! `cargo xtask hosts`: several hosts on this machine, each a set of namespaces with a Docker Engine and a swarmd of its
//! own, on a LAN whose cables can be pulled.

mod engines;
mod grow;
mod host;
mod init;
mod lan;
mod mesh;
mod trial;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::engine::{self, Engine};
use crate::wait::{self, Look};
use crate::{http, images, process, programs, ui};
pub(crate) use engines::Engines;
use host::Host;

/// What the hosts keep: images, containers, logs, sockets. Goes with `down`.
const FOLDER: &str = "/var/lib/swarmd-hosts";
/// Hosts on a LAN: an engine and a swarmd take 150 MB, and nobody has that many cores.
const HOSTS_MAX: u8 = 20;

/// What is to be done with hosts.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Make N hosts, those that are there already included, and one cluster of them
    Up {
        /// How many
        #[arg(value_parser = clap::value_parser!(u8).range(1..=i64::from(HOSTS_MAX)))]
        count: u8,
        /// How many of them are managers [default: all]
        #[arg(long)]
        managers: Option<u8>,
    },
    /// Run a command on a host, with its network, its processes and its swarmd
    Exec {
        /// Number of the host
        host: u8,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Pull a host's cable: nothing reaches it, nothing leaves it, and nobody is told
    Cut {
        /// Number of the host
        host: u8,
    },
    /// Plug a host's cable in again
    Heal {
        /// Number of the host
        host: u8,
    },
    /// Cut the power of a host: everything on it ends at once, without a word to the others
    Crash {
        /// Number of the host
        host: u8,
    },
    /// Switch a host on again that crashed
    Start {
        /// Number of the host
        host: u8,
    },
    /// Remove all hosts and everything that they kept
    Down,
    /// Make three hosts, cut the leader off under load, kill leaders, and check that nothing is lost and nothing runs twice
    Trial {
        /// Seconds that the leader is cut off
        #[arg(long, default_value_t = 60)]
        cut_secs: u64,
        /// How many leaders are killed
        #[arg(long, default_value_t = 20)]
        kills: u32,
        /// Leave the hosts at the end
        #[arg(long)]
        keep: bool,
    },
    /// Make five hosts, grow from one manager to five and shrink to one while 60 tasks are updated, and check that a client
    /// hardly notices and that nothing stops but what the update stops
    Grow {
        /// Leave the hosts at the end
        #[arg(long)]
        keep: bool,
    },
    /// Make three hosts, ask a published port of all of them without a pause while its service is updated, drained and scaled,
    /// and swarmd and its data plane are killed, restarted and replaced, and check that no request fails
    Mesh {
        /// How often all of it is done
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Leave the hosts at the end
        #[arg(long)]
        keep: bool,
    },
    /// The first process of a host
    #[command(hide = true)]
    Init { host: u8, swarmd: std::path::PathBuf },
}

/// Does it.
pub(crate) fn run(task: Task) -> Result<()> {
    if let Task::Init { host, swarmd } = task {
        return init::run(&Host::new(host), &swarmd);
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "`cargo xtask hosts` makes namespaces and starts Docker Engines: it needs root (sudo -E env PATH=$PATH …)"
        );
    }
    match task {
        Task::Up { count, managers } => up(count, managers.unwrap_or(count)).map(drop),
        Task::Exec { host, command } => exec(&existing(host)?, &command),
        Task::Cut { host } => lan::cut(&existing(host)?),
        Task::Heal { host } => lan::heal(&existing(host)?),
        Task::Crash { host } => existing(host)?.crash(),
        Task::Start { host } => existing(host)?.start(&programs::build()?.swarmd),
        Task::Down => down(),
        Task::Trial { cut_secs, kills, keep } => trial::run(cut_secs, kills, keep),
        Task::Grow { keep } => grow::run(keep),
        Task::Mesh { rounds, keep } => mesh::run(rounds, keep),
        Task::Init { .. } => Ok(()),
    }
}

/// A host that was made.
fn existing(number: u8) -> Result<Host> {
    let host = Host::new(number);
    if !host.folder().is_dir() {
        bail!("there is no host {number}: `cargo xtask hosts up {number}` makes it");
    }
    Ok(host)
}

/// Makes what is missing. Returns the hosts.
fn up(count: u8, managers: u8) -> Result<Vec<Host>> {
    for program in ["ip", "nsenter", "unshare", "mount"] {
        let found = Command::new(program).arg("--help").output();
        found.with_context(|| format!("`{program}` is needed (Debian: packages iproute2, util-linux, mount)"))?;
    }
    engine::ensure_installed()?;
    let programs = programs::build()?;
    let hosts: Vec<Host> = (1..=count).map(Host::new).collect();
    lan::ensure(&hosts)?;
    for host in &hosts {
        host.start(&programs.swarmd)?;
    }
    for host in &hosts {
        let engine = Engine::at(&host.engine_socket())?;
        images::ensure(&engine)?;
    }
    for host in &hosts {
        let role = if host.number() <= managers { "Manager" } else { "Worker" };
        join(host, &hosts[0], role)?;
    }
    wait_ready(&hosts)?;
    ui::seen(&format!("{count} hosts are one cluster, {} of them managers", managers.min(count)));
    ui::say("`cargo xtask hosts exec 1 swarmctl node ls` shows them, `cargo xtask hosts down` removes them.");
    Ok(hosts)
}

/// Makes a host part of the cluster whose first host is `first`, unless it is in one.
fn join(host: &Host, first: &Host, role: &str) -> Result<()> {
    let info: Value = http::get(&host.api(), "/info")?;
    if info["Swarm"]["LocalNodeState"] != "inactive" {
        return Ok(());
    }
    let addr = host.peer_address();
    let (target, body) = if host.number() == first.number() {
        ("/swarm/init", json!({ "ListenAddr": addr, "AdvertiseAddr": addr }))
    } else {
        let swarm: Value = http::get(&first.api(), "/swarm")?;
        let body = json!({
            "ListenAddr": addr, "AdvertiseAddr": addr,
            "RemoteAddrs": [first.peer_address()], "JoinToken": swarm["JoinTokens"][role],
        });
        ("/swarm/join", body)
    };
    let body = body.to_string();
    http::call(&host.api(), "POST", target, Some(("application/json", body.as_bytes()))).map(drop)
}

/// Waits until all hosts are ready, by the word of the first that answers.
fn wait_ready(hosts: &[Host]) -> Result<()> {
    wait::until("all hosts are ready", host::START_LIMIT, || {
        let nodes = hosts.iter().find_map(|host| http::get::<Vec<Value>>(&host.api(), "/nodes").ok());
        let nodes = nodes.context("no manager answers")?;
        let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
        Ok(if ready >= hosts.len() { Look::Done(()) } else { Look::NotYet(format!("{ready} are")) })
    })
}

fn exec(host: &Host, command: &[String]) -> Result<()> {
    let folder = programs::folder()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path)))?;
    process::run(host.enter()?.args(command).env("PATH", path).env_remove("DOCKER_HOST"))
}

fn down() -> Result<()> {
    let mut hosts = Vec::new();
    for number in 1..=HOSTS_MAX {
        let host = Host::new(number);
        host.end()?;
        hosts.push(host);
    }
    lan::remove(&hosts)?;
    remove_cgroups(Path::new("/sys/fs/cgroup"));
    match fs::remove_dir_all(FOLDER) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {FOLDER}"))
        }
        _ => {
            ui::seen("no host is left");
            Ok(())
        }
    }
}

/// Groups that containers left when their host crashed: in the one tree, or in that of each controller.
fn remove_cgroups(root: &Path) {
    let folders = |folder: &Path| -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect()
    };
    fn remove(folder: &Path, folders: &dyn Fn(&Path) -> Vec<std::path::PathBuf>) {
        folders(folder).iter().for_each(|below| remove(below, folders));
        // One that is still in use, or is gone, is of no interest.
        drop(fs::remove_dir(folder));
    }
    for tree in std::iter::once(root.to_owned()).chain(folders(root)) {
        let ours = tree.join(host::CGROUP);
        if ours.is_dir() {
            remove(&ours, &folders);
        }
    }
}
