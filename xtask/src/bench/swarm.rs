//! Docker Swarm beside us, where hosts with engines can be made: the same calls of the same API.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Bench;
use crate::hosts::Engines;
use crate::http;
use crate::ui;
use crate::wait::{self, Look};

use super::host::LIMIT;

/// The port of Swarm's managers; swarmd's own is taken.
const PORT: u16 = 2378;

/// Engines that are managers of one swarm.
pub(super) struct Swarm {
    /// The hosts of the engines.
    pub engines: Engines,
}

impl Swarm {
    /// Makes so many managers; `None`, and a word about it, where that is impossible.
    pub(super) fn start(bench: &Bench, managers: u8) -> Result<Option<Self>> {
        let engines = match Engines::start(managers, &bench.programs.swarmd) {
            Ok(engines) => engines,
            Err(error) => {
                ui::warn(&format!("Docker Swarm is left out: {error:#}"));
                return Ok(None);
            }
        };
        let swarm = Self { engines };
        let first = swarm.address(0);
        swarm.post(0, "/swarm/init", &json!({ "ListenAddr": first, "AdvertiseAddr": first }))?;
        let state: Value = http::get(&swarm.engines.api(0), "/swarm")?;
        for number in 1..swarm.engines.count() {
            let address = swarm.address(number);
            let join = json!({
                "ListenAddr": address, "AdvertiseAddr": address,
                "RemoteAddrs": [first], "JoinToken": state["JoinTokens"]["Manager"],
            });
            swarm.post(number, "/swarm/join", &join)?;
        }
        Ok(Some(swarm))
    }

    /// The engine's version.
    pub(super) fn version(&self) -> Result<String> {
        let version: Value = http::get(&self.engines.api(0), "/version")?;
        Ok(version["Version"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until all are managers that can be reached. Returns the leader.
    pub(super) fn wait_whole(&self) -> Result<usize> {
        wait::until("all of Swarm's managers can be reached", LIMIT, || {
            let nodes =
                (0..self.engines.count()).find_map(|n| http::get::<Vec<Value>>(&self.engines.api(n), "/nodes").ok());
            let nodes = nodes.context("no manager answers")?;
            let reachable = |node: &&Value| node["ManagerStatus"]["Reachability"] == "reachable";
            if nodes.iter().filter(reachable).count() < self.engines.count() {
                return Ok(Look::NotYet("some cannot".to_owned()));
            }
            let leader = nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true);
            let name = leader.and_then(|leader| leader["Description"]["Hostname"].as_str()).unwrap_or_default();
            let at = (0..self.engines.count()).find(|number| self.engines.name(*number) == name);
            Ok(at.map_or_else(|| Look::NotYet("none leads".to_owned()), Look::Done))
        })
    }

    fn address(&self, number: usize) -> String {
        format!("{}:{PORT}", self.engines.ip(number))
    }

    fn post(&self, number: usize, target: &str, body: &Value) -> Result<()> {
        let body = body.to_string();
        let api = self.engines.api(number);
        http::call(&api, "POST", target, Some(("application/json", body.as_bytes()))).map(drop)
    }
}
