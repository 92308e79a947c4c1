//! A cluster to measure: its logs on the disk of the workspace, not in a folder of memory.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Bench;
use crate::engine::Engine;
use crate::http::{self, Address};
use crate::node::{self, Node};
use crate::wait::{self, Look};
use crate::{ui, workspace};

/// Longer than anything here takes on two busy cores.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
/// Entries that a manager may lack and still count as one that has the whole log: those that are on their way.
const LAG_MAX: u64 = 64;
/// Between two looks at something that is timed: its resolution.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The folder for what benchmarks write.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = workspace::metadata()?.target_directory.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    Ok(folder)
}

/// A new folder in [`folder`], which goes when it is dropped.
pub(super) fn temporary() -> Result<TempDir> {
    let folder = folder()?;
    TempDir::with_prefix_in("b-", &folder).with_context(|| format!("cannot make a folder in {}", folder.display()))
}

/// A cluster: one manager, the first node, and workers, or managers alone. Ends when it is dropped.
pub(super) struct Host {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// A label for containers, `key` and `value`.
    pub label: (String, String),
    engine: Option<Engine>,
    _folder: TempDir,
}

/// A service, as far as benchmarks look at it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceView {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: VersionView,
    /// Its spec, as it came.
    pub spec: Value,
    /// Its update, if there was one.
    pub update_status: Option<UpdateView>,
}

/// The version of an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VersionView {
    /// Log index of its last change.
    pub index: u64,
}

/// The state of an update.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateView {
    /// Its state.
    pub state: String,
}

impl Host {
    /// Starts a manager and workers and waits until they are ready. Without an engine tasks run in memory.
    pub(super) fn start(bench: &Bench, count: u8, engine: Option<Engine>) -> Result<Self> {
        Self::start_as(bench, 1, count, engine)
    }

    /// Starts managers and workers, which run tasks in memory, and waits until all are ready.
    pub(super) fn start_both(bench: &Bench, managers: u8, workers: u8) -> Result<Self> {
        Self::start_as(bench, managers, managers + workers, None)
    }

    /// Starts managers, which run tasks in memory, and waits until all of them vote.
    pub(super) fn start_managers(bench: &Bench, count: u8) -> Result<Self> {
        let host = Self::start_as(bench, count, count, None)?;
        host.wait_managers()?;
        Ok(host)
    }

    /// So many nodes, of which the first ones are managers.
    fn start_as(bench: &Bench, managers: u8, count: u8, engine: Option<Engine>) -> Result<Self> {
        let folder = temporary()?;
        let port = node::free_port(count)?;
        let address = engine.as_ref().map_or_else(|| "simulated".to_owned(), Engine::host);
        let nodes = (1..=count)
            .map(|number| Node::new(number, &bench.programs.swarmd, &address, port, folder.path()))
            .collect::<Result<Vec<_>>>()?;
        let name = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let label = ("swarm.example.bench".to_owned(), name);
        let mut host = Self { nodes, label, engine, _folder: folder };
        for node in &mut host.nodes {
            node.start()?;
        }
        let manager = host.nodes[0].peer_address();
        host.post(0, "/swarm/init", &json!({ "ListenAddr": manager, "AdvertiseAddr": manager }))?;
        let swarm: Value = http::get(&host.api(), "/swarm")?;
        for number in 1..host.nodes.len() {
            let role = if number < managers.into() { "Manager" } else { "Worker" };
            let address = host.nodes[number].peer_address();
            let join = json!({
                "ListenAddr": address, "AdvertiseAddr": address,
                "RemoteAddrs": [manager], "JoinToken": swarm["JoinTokens"][role],
            });
            host.post(number, "/swarm/join", &join)?;
        }
        host.wait("all nodes are ready", || {
            let nodes: Vec<Value> = http::get(&host.api(), "/nodes")?;
            let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
            Ok((ready == host.nodes.len()).then_some(()))
        })?;
        Ok(host)
    }

    /// Waits until all nodes are managers that vote, answer and have the whole log. Returns the index of the leader.
    pub(super) fn wait_managers(&self) -> Result<usize> {
        self.wait("all managers vote and have the whole log", || {
            // Any of them tells: one may just have been killed or started.
            let status = self.nodes.iter().find_map(|node| http::get::<Value>(&node.api(), "/swarmd/managers").ok());
            let status = status.context("no manager answers")?;
            let members = status["Managers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let whole = |member: &&Value| {
                (member["Role"] == "leader" || member["Role"] == "voter")
                    && member["Reachability"] == "reachable"
                    && member["LagEntries"].as_u64().is_some_and(|lag| lag <= LAG_MAX)
            };
            if members.iter().filter(whole).count() != self.nodes.len() {
                return Ok(None);
            }
            let leader = members.iter().find(|member| member["Role"] == "leader");
            let name = leader.and_then(|leader| leader["Hostname"].as_str());
            Ok(self.nodes.iter().position(|node| Some(node.name.as_str()) == name))
        })
    }

    /// The API of the manager.
    pub(super) fn api(&self) -> Address {
        self.nodes[0].api()
    }

    fn post(&self, node: usize, target: &str, body: &Value) -> Result<Vec<u8>> {
        let body = body.to_string();
        http::call(&self.nodes[node].api(), "POST", target, Some(("application/json", body.as_bytes())))
    }

    /// Creates a service of hello tasks, and returns its id. `image` may be an id: then no registry is asked.
    pub(super) fn create_service(&self, name: &str, image: &str, replicas: u64) -> Result<String> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let (key, value) = &self.label;
        let spec = json!({
            "Name": name,
            "TaskTemplate": { "ContainerSpec": { "Image": image, "Labels": { key.clone(): value }, "Init": true } },
            "Mode": { "Replicated": { "Replicas": replicas } },
            "UpdateConfig": { "Parallelism": 10, "FailureAction": "pause", "Order": "stop-first" },
        });
        let created: Created = serde_json::from_slice(&self.post(0, "/services/create", &spec)?)?;
        Ok(created.id)
    }

    /// A service.
    pub(super) fn service(&self, id: &str) -> Result<ServiceView> {
        http::get(&self.api(), &format!("/services/{id}"))
    }

    /// Writes a service's spec.
    pub(super) fn update_service(&self, service: &ServiceView, spec: &Value) -> Result<()> {
        let ServiceView { id, version, .. } = service;
        self.post(0, &format!("/services/{id}/update?version={}", version.index), spec).map(drop)
    }

    /// Sets what a node is available for.
    pub(super) fn drain(&self, hostname: &str) -> Result<()> {
        let node: Value = http::get(&self.api(), &format!("/nodes/{hostname}"))?;
        let (Some(id), Some(version)) = (node["ID"].as_str(), node["Version"]["Index"].as_u64()) else {
            bail!("node {hostname} has no id or no version");
        };
        let mut spec = node["Spec"].clone();
        spec["Availability"] = "drain".into();
        self.post(0, &format!("/nodes/{id}/update?version={version}"), &spec).map(drop)
    }

    /// How many tasks of all services run.
    pub(super) fn running(&self) -> Result<u64> {
        let services: Vec<Value> = http::get(&self.api(), "/services?status=true")?;
        Ok(services.iter().filter_map(|service| service["ServiceStatus"]["RunningTasks"].as_u64()).sum())
    }

    /// Removes a service and waits until nothing of it is left.
    pub(super) fn remove_service(&self, id: &str) -> Result<()> {
        http::call(&self.api(), "DELETE", &format!("/services/{id}"), None)?;
        let (key, value) = &self.label;
        self.wait("the service's containers are removed", || {
            let left = match &self.engine {
                Some(engine) => engine.containers(&format!("{key}={value}"))?.len(),
                None => 0,
            };
            Ok((left == 0).then_some(()))
        })
    }

    /// Waits for something that is not timed.
    pub(super) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        wait::until(what, LIMIT, || Ok(look()?.map_or_else(|| Look::NotYet("not yet".to_owned()), Look::Done)))
    }

    fn stop(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().rev() {
            node.stop()?;
        }
        let Some(engine) = &self.engine else { return Ok(()) };
        let (key, value) = &self.label;
        for container in engine.containers(&format!("{key}={value}"))? {
            engine.remove_container(&container.id)?;
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            ui::warn(&format!("a benchmark's cluster did not end in order: {error:#}"));
        }
    }
}
