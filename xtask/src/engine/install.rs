//! Installing the distribution's Docker Engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::{self, Look};
use crate::{process, ui};

/// Debian's switch for services that packages want to start.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// A service of systemd starts within it, on a slow machine too.
const SERVICE_START_LIMIT: Duration = Duration::from_secs(90);

/// The path of `dockerd`, if it is installed.
pub(super) fn dockerd() -> Option<PathBuf> {
    find("dockerd")
}

/// Whether systemd runs this machine.
pub(super) fn systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Looks where root's programs are, which is not always in a user's PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Installs what is missing to run an engine, or says what to install.
pub(super) fn ensure_installed() -> Result<()> {
    let packages: Vec<&str> = [("dockerd", "docker.io"), ("iptables", "iptables")]
        .into_iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| package)
        .collect();
    let root = rustix::process::geteuid().is_root();
    if packages.is_empty() && root {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !root {
        if packages.is_empty() && Path::new("/var/run/docker.sock").exists() {
            bail!(
                "a Docker Engine is installed, but does not answer to this user: start it \
                 (`sudo systemctl start docker`), or join its group (`sudo usermod -aG docker $USER`, then log in again)"
            );
        }
        if packages.is_empty() {
            bail!("a Docker Engine is installed, but not running: start it (`sudo systemctl start docker`)");
        }
        bail!("installing a Docker Engine needs root: {}", advice(&release));
    }
    let Some(apt) = find("apt-get").filter(|_| debian_like(&release)) else { bail!("{}", advice(&release)) };
    ui::say(&format!("Installing the distribution's packages: {}.", packages.join(", ")));
    let policy = Policy::forbid_services()?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new(&apt);
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        ui::command(&process::line(&command));
        process::run(&mut command)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())?;
    drop(policy);
    match dockerd() {
        Some(_) => Ok(()),
        None => bail!("the package docker.io is installed, but there is no dockerd in PATH"),
    }
}

/// Starts the package's service and waits until the engine answers.
pub(super) fn start_service(answers: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut command = Command::new("systemctl");
    command.args(["start", "docker"]);
    ui::command(&process::line(&command));
    process::run(&mut command).context("cannot start the Docker Engine; `journalctl -u docker` tells why")?;
    wait::until("the Docker Engine answers", SERVICE_START_LIMIT, || answers().map(Look::Done))
}

fn debian_like(release: &str) -> bool {
    release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .any(|id| id == "debian" || id == "ubuntu")
}

fn advice(release: &str) -> String {
    if debian_like(release) {
        "`sudo apt-get install docker.io iptables`, then `sudo systemctl start docker`".to_owned()
    } else {
        "install a Docker Engine (https://docs.docker.com/engine/install/; Fedora: `dnf install moby-engine`, \
         Arch: `pacman -S docker`) and start it (`sudo systemctl start docker`)"
            .to_owned()
    }
}

/// While it lives, packages start no services where there is no systemd: in a container their start scripts fail or
/// hang, and the engine is started by hand anyway. A policy that is there already stays as it is.
struct Policy {
    ours: bool,
}

impl Policy {
    fn forbid_services() -> Result<Self> {
        if systemd() || Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        let policy = Self { ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {POLICY} executable"))?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            ui::warn(&format!("cannot remove {POLICY}: {error}; packages will start no services until it is gone"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_debian_and_what_descends_from_it() {
        assert!(debian_like("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(debian_like("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!debian_like("ID=fedora\n"));
        assert!(!debian_like("ID=rocky\nID_LIKE=\"rhel centos fedora\"\nNAME=\"not debian\"\n"));
        assert!(!debian_like(""));
    }

    #[test]
    fn advice_fits_the_distribution() {
        assert!(advice("ID=ubuntu").contains("apt-get install docker.io"));
        assert!(advice("ID=fedora").contains("docs.docker.com"));
    }
}
