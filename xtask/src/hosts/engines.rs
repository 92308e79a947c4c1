//! Hosts for what else can be measured on their engines.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::host::Host;
use super::{FOLDER, down, lan};
use crate::engine::{self, Engine};
use crate::http::Address;
use crate::{images, ui};

/// Hosts that go when this is dropped.
pub(crate) struct Engines {
    hosts: Vec<Host>,
    swarmd: PathBuf,
}

impl Engines {
    /// Makes hosts. Leaves those that somebody else made alone.
    pub(crate) fn start(count: u8, swarmd: &Path) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("hosts need root");
        }
        if Path::new(FOLDER).exists() {
            bail!("there are hosts already: `cargo xtask hosts down` removes them");
        }
        engine::ensure_installed()?;
        let engines = Self { hosts: (1..=count).map(Host::new).collect(), swarmd: swarmd.to_owned() };
        lan::ensure(&engines.hosts)?;
        for host in &engines.hosts {
            host.start(swarmd)?;
            images::ensure(&Engine::at(&host.engine_socket())?)?;
        }
        Ok(engines)
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.hosts.len()
    }

    /// The name of a host.
    pub(crate) fn name(&self, host: usize) -> String {
        self.hosts[host].name()
    }

    /// The address of a host for others.
    pub(crate) fn ip(&self, host: usize) -> String {
        self.hosts[host].ip().to_string()
    }

    /// The API of a host's engine.
    pub(crate) fn api(&self, host: usize) -> Address {
        Address::Unix(self.hosts[host].engine_socket())
    }

    /// `kill -9` of everything on a host; its network stays.
    pub(crate) fn kill(&self, host: usize) -> Result<()> {
        self.hosts[host].end()
    }

    /// Starts a host that was killed.
    pub(crate) fn restart(&self, host: usize) -> Result<()> {
        self.hosts[host].start(&self.swarmd)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        if let Err(error) = down() {
            ui::warn(&format!("the hosts of a benchmark did not end in order: {error:#}"));
        }
    }
}
