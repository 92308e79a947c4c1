//! A cluster of daemons, and what tests ask of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use swarm_docker_api::view::Time;
use swarm_model::Timestamp;
use tempfile::TempDir;

use crate::{
    daemon::{Daemon, faketime},
    http::encode,
    wait::until,
};

/// A cluster; its first daemon is the manager.
pub struct Cluster {
    pub nodes: Vec<Daemon>,
    /// What `--engine` of further daemons is.
    engine: String,
    folder: TempDir,
}

/// A task as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: String,
    pub service: String,
    pub slot: u64,
    pub image: String,
    pub node: String,
    pub state: String,
    pub desired: String,
    pub container: String,
    pub err: String,
    pub created: Timestamp,
    /// When its agent saw it come into its state.
    pub since: Timestamp,
}

impl Task {
    /// Whether it should run and does.
    pub fn runs(&self) -> bool {
        self.state == "running" && self.desired == "running"
    }

    /// Whether nothing is to be done any more: it runs as it should, or has ended.
    fn rests(&self) -> bool {
        self.runs() || ["complete", "shutdown", "failed", "rejected", "orphaned"].contains(&self.state.as_str())
    }
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// It was acknowledged.
    Yes,
    /// It was refused.
    No(String),
    /// There was no answer, or none that tells: it may have happened or not.
    Unknown,
}

impl Cluster {
    /// Starts daemons and makes them one cluster, all ready.
    pub fn start(engine: &str, nodes: usize) -> Self {
        Self::begin(engine, nodes, None)
    }

    /// The same with clocks that are off, as `Daemon::clock` says; none, saying so, where there is no libfaketime. Under
    /// `CI=true` there must be one.
    pub fn start_at(engine: &str, nodes: usize, clock: Option<&str>) -> Option<Self> {
        if faketime().is_none() {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "CI needs libfaketime");
            eprintln!("SKIPPED: there is no libfaketime (package faketime)");
            return None;
        }
        Some(Self::begin(engine, nodes, clock))
    }

    fn begin(engine: &str, nodes: usize, clock: Option<&str>) -> Self {
        let folder = tempfile::Builder::new().prefix("swarmd-test-").tempdir().expect("a folder");
        let mut cluster = Self { nodes: Vec::new(), engine: engine.to_owned(), folder };
        let manager = cluster.daemon_at(clock);
        cluster.nodes.push(manager);
        cluster.manager().call("POST", "/swarm/init", Some(&json!({}))).expect("init");
        for _ in 1..nodes {
            let worker = cluster.daemon_at(clock);
            let request = cluster.join_request(&cluster.token("Worker"));
            worker.call("POST", "/swarm/join", Some(&request)).expect("join");
            cluster.nodes.push(worker);
        }
        cluster.wait_ready();
        cluster
    }

    /// One more daemon, which runs and is in no cluster.
    pub fn new_daemon(&self) -> Daemon {
        self.daemon_at(None)
    }

    fn daemon_at(&self, clock: Option<&str>) -> Daemon {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut daemon = Daemon::new(self.folder.path(), &format!("node-{number}"), &self.engine);
        daemon.clock = clock.map(str::to_owned);
        daemon.start();
        daemon
    }

    /// A daemon in the place of one that is gone: its address, but a name and folders of its own.
    pub fn replacement(&self, gone: &Daemon) -> Daemon {
        let mut daemon = Daemon::new(self.folder.path(), &format!("{}-anew", gone.name), &self.engine);
        daemon.ip = gone.ip;
        daemon.start();
        daemon
    }

    /// A clone of a machine that is off. It does not run yet.
    pub fn clone_machine(&self, daemon: &Daemon) -> Daemon {
        daemon.clone_machine(self.folder.path())
    }

    pub fn manager(&self) -> &Daemon {
        &self.nodes[0]
    }

    /// The token for a role, `Worker` or `Manager`.
    pub fn token(&self, role: &str) -> String {
        self.manager().get("/swarm")["JoinTokens"][role].as_str().expect("a token").to_owned()
    }

    /// The body of a request to join with a token.
    pub fn join_request(&self, token: &str) -> Value {
        json!({ "RemoteAddrs": [self.manager().addr()], "JoinToken": token })
    }

    /// Host name and state of each node.
    pub fn states(&self) -> Result<BTreeMap<String, String>, String> {
        let nodes = self.manager().call("GET", "/nodes", None)?;
        let states = nodes.as_array().into_iter().flatten();
        Ok(states.map(|n| (text(&n["Description"]["Hostname"]), text(&n["Status"]["State"]))).collect())
    }

    /// Waits for a node to be in a state.
    pub fn wait_state(&self, daemon: &Daemon, state: &str) {
        until(&format!("{} is {state}", daemon.name), || {
            let states = self.states()?;
            if states.get(&daemon.name).is_some_and(|s| s == state) { Ok(()) } else { Err(format!("{states:?}")) }
        });
    }

    /// Waits for all nodes to be ready.
    pub fn wait_ready(&self) {
        for daemon in &self.nodes {
            self.wait_state(daemon, "ready");
        }
    }

    /// Waits until so many tasks run on the nodes other than one that is down.
    pub fn wait_running_beside(&self, down: &Daemon, count: usize) {
        until(&format!("{count} tasks run beside {}", down.name), || {
            let nodes = self.manager().call("GET", "/nodes", None)?;
            let lost = |n: &Value| n["Description"]["Hostname"] == json!(down.name);
            let here = nodes.as_array().into_iter().flatten().filter(|n| !lost(n)).map(|n| n["ID"].clone());
            let here: Vec<_> = here.collect();
            let running = self.tasks()?.iter().filter(|t| t.runs() && here.contains(&json!(t.node))).count();
            if running == count { Ok(()) } else { Err(format!("{running} run")) }
        });
    }

    /// Creates a service.
    pub fn create(&self, spec: &Value) {
        self.manager().call("POST", "/services/create", Some(spec)).expect("the service is created");
    }

    /// Changes the spec of a service, again and again until that is acknowledged: an update under way changes its
    /// version as well.
    pub fn update(&self, name: &str, change: impl Fn(&mut Value)) {
        until(&format!("{name} is updated"), || {
            let mut service = self.service(name)?;
            change(&mut service["Spec"]);
            let target = format!("/services/{name}/update?version={}", service["Version"]["Index"]);
            self.manager().call("POST", &target, Some(&service["Spec"])).map(drop)
        });
    }

    /// Rolls a service back to its spec before the present one.
    pub fn roll_back(&self, name: &str) {
        until(&format!("{name} is to roll back"), || {
            let service = self.service(name)?;
            let target = format!("/services/{name}/update?version={}&rollback=previous", service["Version"]["Index"]);
            self.manager().call("POST", &target, Some(&service["Spec"])).map(drop)
        });
    }

    /// A service as the API shows it.
    pub fn service(&self, name: &str) -> Result<Value, String> {
        self.manager().call("GET", &format!("/services/{name}"), None)
    }

    /// Sets the availability of a node.
    pub fn set_availability(&self, daemon: &Daemon, availability: &str) {
        let id = daemon.id();
        until(&format!("{} gets {availability}", daemon.name), || {
            let mut node = self.manager().call("GET", &format!("/nodes/{id}"), None)?;
            node["Spec"]["Availability"] = json!(availability);
            let target = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
            self.manager().call("POST", &target, Some(&node["Spec"])).map(drop)
        });
    }

    /// Scales a service: reads it, changes it, writes it.
    pub fn scale(&self, name: &str, replicas: u64) -> Written {
        scale(self.manager(), name, replicas)
    }

    /// Scales a service, again and again until that is acknowledged.
    pub fn scale_surely(&self, name: &str, replicas: u64) {
        until(&format!("{name} is scaled to {replicas}"), || match self.scale(name, replicas) {
            Written::Yes => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// All tasks, those of the past included.
    pub fn tasks(&self) -> Result<Vec<Task>, String> {
        self.tasks_with(&json!({}))
    }

    /// Tasks that pass filters.
    pub fn tasks_with(&self, filters: &Value) -> Result<Vec<Task>, String> {
        let target = format!("/tasks?filters={}", encode(&filters.to_string()));
        let tasks = self.manager().call("GET", &target, None)?;
        let show = |t: &Value| Task {
            id: text(&t["ID"]),
            service: text(&t["ServiceID"]),
            slot: t["Slot"].as_u64().unwrap_or_default(),
            image: text(&t["Spec"]["ContainerSpec"]["Image"]),
            node: text(&t["NodeID"]),
            state: text(&t["Status"]["State"]),
            desired: text(&t["DesiredState"]),
            container: text(&t["Status"]["ContainerStatus"]["ContainerID"]),
            err: text(&t["Status"]["Err"]),
            created: time(&t["CreatedAt"]),
            since: time(&t["Status"]["Timestamp"]),
        };
        Ok(tasks.as_array().ok_or("no list")?.iter().map(show).collect())
    }

    /// Waits until each service has exactly so many running tasks, and nothing is still to be done. Returns the tasks
    /// that run.
    pub fn wait_settled(&self, services: &BTreeMap<String, u64>) -> Vec<Task> {
        let what = format!("{} services with {} replicas settle", services.len(), services.values().sum::<u64>());
        until(&what, || self.settled(services))
    }

    /// See [`Cluster::wait_settled`].
    pub fn settled(&self, services: &BTreeMap<String, u64>) -> Result<Vec<Task>, String> {
        let list = self.manager().call("GET", "/services?status=true", None)?;
        let mut expected = BTreeMap::new();
        for service in list.as_array().into_iter().flatten() {
            let name = service["Spec"]["Name"].as_str().unwrap_or_default();
            let replicas = *services.get(name).ok_or(format!("there is a service {name}"))?;
            let status = &service["ServiceStatus"];
            if (&status["RunningTasks"], &status["DesiredTasks"]) != (&json!(replicas), &json!(replicas)) {
                return Err(format!("{name} should have {replicas} tasks and has {status}"));
            }
            expected.insert(service["ID"].as_str().unwrap_or_default().to_owned(), replicas);
        }
        if expected.len() != services.len() {
            return Err(format!("there are {} services", expected.len()));
        }
        let tasks = self.tasks()?;
        if let Some(task) = tasks.iter().find(|t| !t.rests() || !expected.contains_key(&t.service)) {
            return Err(format!("{task:?}"));
        }
        let running: Vec<Task> = tasks.into_iter().filter(Task::runs).collect();
        for (id, replicas) in &expected {
            let count = running.iter().filter(|t| t.service == *id).count();
            if count as u64 != *replicas {
                return Err(format!("{count} tasks of service {id} run, not {replicas}"));
            }
        }
        Ok(running)
    }
}

/// A text of the API; empty if there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A time of the API.
pub fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(Time::parse).unwrap_or_else(|| panic!("{value} is no time")).0
}

/// See [`Cluster::scale`].
pub fn scale(manager: &Daemon, name: &str, replicas: u64) -> Written {
    let service = match manager.send("GET", &format!("/services/{name}"), None) {
        Ok(answer) if answer.is_ok() => answer.json(),
        Ok(answer) => return Written::No(answer.message()),
        Err(_) => return Written::Unknown,
    };
    let mut spec = service["Spec"].clone();
    spec["Mode"] = json!({ "Replicated": { "Replicas": replicas } });
    let version = &service["Version"]["Index"];
    write(manager, "POST", &format!("/services/{name}/update?version={version}"), Some(&spec))
}

/// Writes something.
pub fn write(manager: &Daemon, method: &str, target: &str, body: Option<&Value>) -> Written {
    match manager.send(method, target, body) {
        Ok(answer) if answer.is_ok() => Written::Yes,
        Ok(answer) if answer.message().contains("may or may not have happened") => Written::Unknown,
        Ok(answer) => Written::No(format!("{method} {target}: {} {}", answer.status, answer.message())),
        Err(_) => Written::Unknown,
    }
}

/// A service of `hello:1`, which restarts its tasks at once. Its process has no handler for signals.
pub fn service(name: &str, replicas: u64) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": { "Image": "hello:1", "StopSignal": "SIGKILL" },
            "RestartPolicy": { "Condition": "any", "Delay": 100_000_000 },
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
}
