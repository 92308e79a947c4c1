//! Docker Engines for tests: that of the machine, and one that a test may kill.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    http::{self, Answer, encode},
    wait::until,
};

/// Held by each test whose swarm has networks on the engine of the machine: two swarms would choose the same VXLANs.
pub fn networks_alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the engine that tests may use.
const VARIABLE: &str = "SWARM_TEST_DOCKER";
const ADDRESS_DEFAULT: &str = "unix:///var/run/docker.sock";
/// What services of tests run. `cargo xtask test` makes it.
const IMAGE: &str = "hello:1";

/// An engine.
pub struct Engine {
    socket: PathBuf,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    pub id: String,
    pub task: String,
    pub runs: bool,
}

impl Engine {
    /// The engine that the environment names, or none, saying so. Under `CI=true` there must be one.
    pub fn of_this_machine() -> Option<Self> {
        let address = std::env::var(VARIABLE).unwrap_or_else(|_| ADDRESS_DEFAULT.to_owned());
        let socket =
            address.strip_prefix("unix://").unwrap_or_else(|| panic!("{VARIABLE}={address} is no Unix socket"));
        let engine = Self { socket: socket.into() };
        if let Err(error) = http::send(&engine.socket, "GET", "/_ping", None) {
            assert!(!ci(), "no Docker Engine at {address}, and CI needs one: {error}");
            eprintln!("SKIPPED: no Docker Engine at {address}; set {VARIABLE}=unix:///… ({error})");
            return None;
        }
        let image = engine.send("GET", &format!("/images/{IMAGE}/json"), None);
        assert!(image.is_ok(), "the engine at {address} has no image {IMAGE}; `cargo xtask test` makes it");
        Some(engine)
    }

    /// The ids of the networks whose parts the engine has.
    pub fn networks(&self) -> Vec<String> {
        let networks = self.send("GET", "/networks", None).json();
        let ids = networks.as_array().into_iter().flatten().map(network_of);
        ids.filter(|id| !id.is_empty()).map(str::to_owned).collect()
    }

    /// What `--engine` takes.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn send(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        http::send(&self.socket, method, target, body).unwrap_or_else(|e| panic!("engine: {method} {target}: {e}"))
    }

    /// Kills a container behind the swarm's back.
    pub fn kill(&self, id: &str) {
        let answer = self.send("POST", &format!("/containers/{id}/kill"), None);
        assert!(answer.is_ok(), "{}", answer.message());
    }

    /// Stops a container behind the swarm's back, as `docker stop` does.
    pub fn stop(&self, id: &str) {
        let answer = self.send("POST", &format!("/containers/{id}/stop"), None);
        assert!(answer.is_ok(), "{}", answer.message());
    }

    /// Starts a container behind the swarm's back, as `docker start` does.
    pub fn start(&self, id: &str) {
        let answer = self.send("POST", &format!("/containers/{id}/start"), None);
        assert!(answer.is_ok(), "{}", answer.message());
    }

    /// Restarts a container behind the swarm's back, as `docker restart` does.
    pub fn restart(&self, id: &str) {
        let answer = self.send("POST", &format!("/containers/{id}/restart"), None);
        assert!(answer.is_ok(), "{}", answer.message());
    }

    /// Removes a container, if it is there.
    pub fn remove(&self, id: &str) {
        let _ = http::send(&self.socket, "DELETE", &format!("/containers/{id}?force=1&v=1"), None);
    }

    /// Inspects a container.
    pub fn inspect(&self, id: &str) -> Value {
        self.send("GET", &format!("/containers/{id}/json"), None).json()
    }

    /// All containers of a node, also those that do not run.
    pub fn containers(&self, node: &str) -> Result<BTreeSet<Container>, String> {
        let filters = json!({ "label": [format!("com.docker.swarm.node.id={node}")] }).to_string();
        let target = format!("/containers/json?all=1&filters={}", encode(&filters));
        let answer = http::send(&self.socket, "GET", &target, None).map_err(|e| format!("the engine: {e}"))?;
        let list = answer.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let show = |c: &Value| Container {
            id: text(&c["Id"]),
            task: text(&c["Labels"]["com.docker.swarm.task.id"]),
            runs: c["State"] == "running",
        };
        Ok(list.as_array().ok_or(format!("the engine: {}", answer.message()))?.iter().map(show).collect())
    }

    /// Waits until the cluster has settled and `docker ps` says the very same for each node: the containers that run
    /// are those of the tasks that run, and what else there is belongs to a task that has ended. Returns the
    /// containers that run, and when each was started.
    pub fn wait_agrees(&self, cluster: &Cluster, services: &[(&str, u64)]) -> BTreeMap<Container, String> {
        let services = services.iter().map(|(name, replicas)| ((*name).to_owned(), *replicas)).collect();
        let running = until("docker ps and the tasks agree", || self.agrees(cluster, &services));
        let started = |c: &Container| self.inspect(&c.id)["State"]["StartedAt"].as_str().expect("a time").to_owned();
        running.into_iter().map(|c| (c.clone(), started(&c))).collect()
    }

    fn agrees(&self, cluster: &Cluster, services: &BTreeMap<String, u64>) -> Result<BTreeSet<Container>, String> {
        let running = cluster.settled(services)?;
        let known: BTreeSet<String> = cluster.tasks()?.into_iter().map(|t| t.id).collect();
        let mut all = BTreeSet::new();
        for daemon in &cluster.nodes {
            let node = daemon.id();
            let containers = self.containers(&node)?;
            let (there, ended): (BTreeSet<_>, BTreeSet<_>) = containers.into_iter().partition(|c| c.runs);
            let tasks = running.iter().filter(|t| t.node == node);
            let expected: BTreeSet<_> =
                tasks.map(|t| Container { id: t.container.clone(), task: t.id.clone(), runs: true }).collect();
            if there != expected {
                let more: Vec<_> = there.difference(&expected).collect();
                let less: Vec<_> = expected.difference(&there).collect();
                return Err(format!("{}: without a task {more:?}, tasks without {less:?}", daemon.name));
            }
            if let Some(orphan) = ended.iter().find(|c| !known.contains(&c.task)) {
                return Err(format!("{}: {orphan:?} belongs to no task", daemon.name));
            }
            all.extend(there);
        }
        Ok(all)
    }

    /// Removes the containers of nodes, and networks of swarms that have no container.
    fn clean_up(&self, nodes: &BTreeSet<String>) {
        for container in nodes.iter().flat_map(|node| self.containers(node).unwrap_or_default()) {
            let target = format!("/containers/{}?force=1&v=1", container.id);
            let _ = http::send(&self.socket, "DELETE", &target, None);
        }
        let networks = self.send("GET", "/networks", None).json();
        let of_swarms = networks.as_array().into_iter().flatten().filter(|network| !network_of(network).is_empty());
        for network in of_swarms.filter_map(|network| network["Id"].as_str()) {
            // One with containers stays: it is another test's.
            let _ = http::send(&self.socket, "DELETE", &format!("/networks/{network}"), None);
        }
    }
}

/// The swarm's network whose part this is; empty for any other network.
fn network_of(network: &Value) -> &str {
    network["Labels"]["com.docker.swarm.network.id"].as_str().unwrap_or_default()
}

/// Removes the containers of a cluster at the end of a test, also when it failed. Made before the cluster, so that the
/// daemons have ended by then.
pub struct CleanUp<'a> {
    engine: &'a Engine,
    nodes: BTreeSet<String>,
}

impl<'a> CleanUp<'a> {
    pub fn new(engine: &'a Engine) -> Self {
        Self { engine, nodes: BTreeSet::new() }
    }

    /// Notes the nodes of a cluster.
    pub fn note(&mut self, cluster: &Cluster) {
        self.nodes.extend(cluster.nodes.iter().map(|daemon| daemon.id()));
    }
}

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        self.engine.clean_up(&self.nodes);
    }
}

/// Whether this is a run that must not skip anything.
fn ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// An engine of the test's own, which it may kill. Its containerd is started apart, so that a killed engine can be
/// started again at once.
pub struct PrivateEngine {
    pub engine: Engine,
    containerd: Child,
    dockerd: Option<Child>,
    folder: tempfile::TempDir,
}

impl PrivateEngine {
    /// Starts one with the image of another one, or says why it cannot. Needs root, `dockerd` and `containerd`.
    pub fn start() -> Option<Self> {
        let source = Engine::of_this_machine()?;
        let available =
            |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
        if !(getuid().is_root() && available("dockerd") && available("containerd")) {
            assert!(!ci(), "CI needs root, dockerd and containerd for this test");
            eprintln!("SKIPPED: an engine of the test's own needs root, dockerd and containerd");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("swarmd-test-").tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let mut containerd = Command::new("containerd");
        containerd.arg("--root").arg(at("c-root")).arg("--state").arg(at("c-state")).arg("--address").arg(at("c.sock"));
        let containerd = quiet(&mut containerd).spawn().expect("containerd starts");
        let mut this = Self { engine: Engine { socket: at("docker.sock") }, containerd, dockerd: None, folder };
        let socket = this.folder.path().join("c.sock");
        until("containerd listens", || socket.exists().then_some(()).ok_or_else(String::new));
        this.start_dockerd();
        let image = source.send("GET", &format!("/images/{IMAGE}/get"), None);
        let kind = Some("application/x-tar");
        let loaded = http::send_bytes(&this.engine.socket, "POST", "/images/load", kind, &image.body).expect("load");
        assert!(loaded.is_ok(), "{}", loaded.message());
        Some(this)
    }

    /// Starts the engine in a network namespace of its own: one without a bridge would take away that of the others.
    pub fn start_dockerd(&mut self) {
        let at = |name: &str| self.folder.path().join(name);
        let mut dockerd = Command::new("unshare");
        dockerd.args(["--net", "dockerd", "--data-root"]).arg(at("data")).arg("--exec-root").arg(at("exec"));
        dockerd.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--pidfile"]).arg(at("docker.pid"));
        dockerd.arg("--containerd").arg(at("c.sock")).arg("--host").arg(self.engine.address());
        self.dockerd = Some(quiet(&mut dockerd).spawn().expect("dockerd starts"));
        until("dockerd answers", || http::send(&self.engine.socket, "GET", "/_ping", None).map_err(|e| e.to_string()));
    }

    /// Sends the engine a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.dockerd.as_ref().expect("a running engine")), signal).expect("our child");
    }

    /// Kills the engine with SIGKILL. Its containers stay.
    pub fn kill(&mut self) {
        let mut dockerd = self.dockerd.take().expect("a running engine");
        dockerd.kill().and_then(|()| dockerd.wait()).expect("our child");
        let _ = std::fs::remove_file(self.folder.path().join("docker.pid"));
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if let Some(dockerd) = &mut self.dockerd {
            // Let it end its containers and mounts itself; a stopped one has to go on for that.
            let pid = Pid::from_child(dockerd);
            let _ = kill_process(pid, Signal::CONT);
            let _ = kill_process(pid, Signal::TERM);
            let _ = dockerd.wait();
        }
        let _ = self.containerd.kill().and_then(|()| self.containerd.wait());
        // A killed engine leaves mounts, and those would keep the folder.
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(place).starts_with(self.folder.path()) {
                let _ = Command::new("umount").args(["-l", place]).output();
            }
        }
    }
}
