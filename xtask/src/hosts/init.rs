//! The first process of a host: private mounts, an engine, and a swarmd that is started again when it ends, as systemd
//! would.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitOptions, wait};

use super::host::{CGROUP, Host, START_LIMIT};
use crate::engine::Engine;
use crate::wait::{self as waiting, Look};
use crate::{interrupt, process};

/// Pause before swarmd is started again: that of deploy/swarmd.service.
const RESTART: Duration = Duration::from_secs(1);
/// The folder for the files of secrets: the default of swarmd.
const SECRETS_DIR: &str = "/run/swarmd/secrets";
/// Between two looks at processes that ended.
const POLL: Duration = Duration::from_millis(50);

/// Runs until the host ends.
pub(super) fn run(host: &Host, swarmd: &Path) -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is the first process of a host, which `cargo xtask hosts start` starts");
    }
    rustix::system::sethostname(host.name().as_bytes()).context("cannot set the host's name")?;
    mounts(host)?;
    let engine = engine(host)?;
    let mut daemon = Some(start(host, swarmd)?);
    let mut down_since = Instant::now();
    loop {
        interrupt::check()?;
        // All that lost their parents are ours.
        match wait(WaitOptions::NOHANG).context("cannot wait for processes")? {
            Some((pid, status)) if pid == engine => bail!("the engine ended: {status:?}"),
            Some((pid, _)) if Some(pid) == daemon => (daemon, down_since) = (None, Instant::now()),
            Some(_) => continue,
            None => thread::park_timeout(POLL),
        }
        if daemon.is_none() && down_since.elapsed() >= RESTART {
            daemon = Some(start(host, swarmd)?);
        }
    }
}

/// What engines of one machine must not share. A pull must fail at once: there is no way out of the LAN, and a name
/// server that does not answer takes 20 s.
fn mounts(host: &Host) -> Result<()> {
    let folder = host.folder();
    let mount = |arguments: &[&str]| process::output(Command::new("mount").args(arguments)).map(drop);
    mount(&["-t", "tmpfs", "tmpfs", "/run/netns"])?;
    for (ours, place) in [("etc", "/etc/docker"), ("plugins", "/run/docker"), ("run", "/run/swarmd")] {
        let ours = folder.join(ours);
        for folder in [ours.as_path(), Path::new(place)] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        mount(&["--bind", &ours.to_string_lossy(), place])?;
    }
    // The files of secrets are in memory only.
    fs::create_dir_all(SECRETS_DIR).with_context(|| format!("cannot make the folder {SECRETS_DIR}"))?;
    mount(&["-t", "tmpfs", "-o", "mode=0700", "tmpfs", SECRETS_DIR])?;
    let resolver = folder.join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\n").context("cannot write resolv.conf")?;
    mount(&["--bind", &resolver.to_string_lossy(), "/etc/resolv.conf"])
}

fn engine(host: &Host) -> Result<Pid> {
    let folder = host.folder();
    // What an engine that crashed left would keep the next one waiting for a minute.
    for remains in ["exec", "docker.pid", "docker.sock"] {
        let path = folder.join(remains);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    let log = log(host, "dockerd.log")?;
    let mut command = Command::new("dockerd");
    command
        .arg("--data-root")
        .arg(folder.join("data"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("--pidfile")
        .arg(folder.join("docker.pid"))
        .arg("--host")
        .arg(format!("unix://{}", host.engine_socket().display()))
        .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--log-level", "warn"])
        .args(["--cgroup-parent", &format!("/{CGROUP}/{}", host.name())])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot write the engine's log")?)
        .stderr(log);
    let engine = command.spawn().context("cannot start dockerd")?;
    waiting::until("the engine answers", START_LIMIT, || Engine::at(&host.engine_socket()).map(|_| Look::Done(())))?;
    Ok(Pid::from_child(&engine))
}

fn start(host: &Host, swarmd: &Path) -> Result<Pid> {
    let log = log(host, "swarmd.log")?;
    let mut command = Command::new(swarmd);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SWARMD_")) {
        command.env_remove(name);
    }
    command
        .args(["--config", "/dev/null", "--hostname", &host.name()])
        .arg("--state-dir")
        .arg(host.folder().join("state"))
        .args(["--socket", "/run/swarmd/swarmd.sock"])
        .arg("--engine")
        .arg(format!("unix://{}", host.engine_socket().display()))
        .arg("--sandboxes-dir")
        .arg(host.folder().join("exec/netns"))
        .args(["--listen-addr", &host.peer_address(), "--advertise-addr", &host.peer_address()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot write swarmd's log")?)
        .stderr(log);
    Ok(Pid::from_child(&command.spawn().with_context(|| format!("cannot start {}", swarmd.display()))?))
}

fn log(host: &Host, name: &str) -> Result<File> {
    let path = host.folder().join(name);
    File::options().create(true).append(true).open(&path).with_context(|| format!("cannot write {}", path.display()))
}
