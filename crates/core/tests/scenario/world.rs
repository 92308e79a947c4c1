//! A small cluster that scripts drive: the real `apply` and `decide`, and agents that do as they are told.

mod describe;
mod explain;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use swarm_core::{Context, Dirty, ENTRY_VERSION, Entry, Op, Outcome, Place, State, Tx, apply, decide};
use swarm_model::{
    Availability, Cluster, ClusterId, ClusterSpec, DRAIN_TIMEOUT_DEFAULT_NS, DesiredState, GenericResource, Id,
    JoinTokens, NodeDescription, NodeId, NodeRole, NodeState, NodeStatus, Redacted, RootCa, ServiceId, ServiceMode,
    ServiceSpec, TaskId, TaskState, TaskStatus, Timestamp, parse_duration,
};

const SECOND_NS: i64 = 1_000_000_000;
/// Rounds after which a cluster that does not come to rest never will.
const ROUNDS_MAX: u32 = 1000;
const START: Timestamp = Timestamp::from_millis(1_000_000_000);

pub(crate) struct World {
    state: State,
    now: Timestamp,
    dirty: Dirty,
    led_since: Timestamp,
    deadlines: BTreeMap<ServiceId, Timestamp>,
    nodes: BTreeMap<String, NodeId>,
    services: BTreeMap<String, ServiceId>,
    names: BTreeMap<TaskId, String>,
    seed: u64,
    /// Whether a change is only to be planned, and the change.
    planning: bool,
    planned: Option<Op>,
}

impl Default for World {
    fn default() -> Self {
        let mut world = Self {
            state: State::default(),
            now: START,
            dirty: Dirty::default(),
            led_since: Timestamp::ZERO,
            deadlines: BTreeMap::new(),
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            names: BTreeMap::new(),
            seed: 1,
            planning: false,
            planned: None,
        };
        let mut spec = ClusterSpec::default();
        spec.fill_defaults();
        let cluster = Cluster {
            id: ClusterId(1),
            version: 0,
            created_at: START,
            updated_at: START,
            spec: Arc::new(spec),
            root_ca: Arc::new(RootCa::default()),
            join_tokens: Arc::new(JoinTokens { worker: Redacted::default(), manager: Redacted::default() }),
            removed_nodes: BTreeMap::new(),
            former_roots: Default::default(),
            unlock_key: None,
            overlay: Default::default(),
            root_rotation: None,
        };
        let level = Op::RaiseFeatureLevel { level: ENTRY_VERSION };
        world.commit(vec![Tx::new(vec![level, Op::CreateCluster(Arc::new(cluster))])]);
        world
    }
}

type Options<'a> = BTreeMap<&'a str, &'a str>;

impl World {
    /// Runs one command; what it says is part of the script.
    pub(crate) fn run(&mut self, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let options: Options = words.iter().filter_map(|word| word.split_once('=')).collect();
        let names: Vec<&str> = words.iter().copied().filter(|word| !word.contains('=')).collect();
        match (command, names.as_slice()) {
            ("nodes", [count]) => self.add_nodes(count.parse().map_err(|_| "a count")?, &options),
            ("node", [name, what]) => self.change_node(name, what),
            ("label", [name]) => self.label(name, &options),
            ("describe", [name]) => self.describe(name, &options),
            ("keep", [count]) => self.keep(count.parse().map_err(|_| "a count")?),
            ("offer", [name]) => self.offer(name, &options),
            ("create", [name]) => self.create(name, &options),
            ("scale", [name, count]) => self.scale(name, count.parse().map_err(|_| "a count")?),
            ("update", [name]) => self.update(name, &options),
            ("rollback", [name]) => {
                let service = self.service(name)?;
                let message = "manually requested rollback".into();
                let to = options.get("to").map(|to| to.parse().map_err(|_| "to is a number")).transpose()?;
                self.user(Op::RollBack { service, keep_previous: true, message, to })
            }
            ("revisions", [name]) => self.revisions(name),
            ("status", [name]) => {
                let service = self.state.service(self.service(name)?).ok_or("the service was removed")?;
                let image = &service.spec.task_template.container_spec.image;
                if let Some(job) = &service.job {
                    return Ok(format!("{image}, execution {}\n", job.iteration));
                }
                Ok(service.update.as_ref().map_or(format!("{image}, never updated\n"), |update| {
                    format!("{image}, {}: {}\n", update.state.as_str(), self.named(&update.message))
                }))
            }
            ("rebalance", [name]) => {
                let service = self.service(name)?;
                self.user(Op::SetRebalance { service, asked: true })
            }
            ("rm", [name]) => {
                let service = self.service(name)?;
                self.user(Op::RemoveService { service })
            }
            ("rmnode", [name]) => {
                let node = self.node(name)?;
                self.user(Op::RemoveNode { node, force: options.contains_key("force") })
            }
            ("decide", []) => Ok(self.decide()),
            ("decide-all", []) => {
                self.dirty = Dirty::everything();
                Ok(self.decide())
            }
            ("new-leader", []) => {
                self.dirty = Dirty::everything();
                self.led_since = self.now;
                Ok(self.decide())
            }
            ("report", [task, state]) => self.report(task, state, int(&options, "ago", 0)?),
            ("why", [name]) => self.why(name),
            ("plan", _) => self.plan(line),
            ("help", _) => self.help(line),
            ("fail", [task]) => self.fail(task, &options),
            ("break", [node]) => self.break_engine(node),
            ("agents", []) => {
                while self.agents_step() {}
                Ok(String::new())
            }
            ("settle", []) => Ok(self.settle()),
            ("advance", [time]) => {
                let seconds: i64 = time.trim_end_matches('s').parse().map_err(|_| "seconds")?;
                self.now = self.now.plus_ns(seconds * SECOND_NS);
                Ok(String::new())
            }
            ("ps", []) => Ok(self.ps()),
            _ => Err(format!("unknown command '{line}'")),
        }
    }

    fn commit(&mut self, txs: Vec<Tx>) -> Vec<Outcome> {
        let entry = Entry { v: ENTRY_VERSION, at: self.now, txs };
        let index = self.state.revision() + 1;
        let (outcomes, events) = apply(&mut self.state, index, &entry);
        events.iter().for_each(|event| self.dirty.mark(event));
        outcomes
    }

    fn user(&mut self, op: Op) -> Result<String, String> {
        if self.planning {
            self.planned = Some(op);
            return Ok(String::new());
        }
        self.commit(vec![Tx::new(vec![op])]).remove(0).map(|()| String::new()).map_err(|refusal| refusal.to_string())
    }

    fn node(&self, name: &str) -> Result<NodeId, String> {
        self.nodes.get(name).copied().ok_or_else(|| format!("no node {name}"))
    }

    fn service(&self, name: &str) -> Result<ServiceId, String> {
        self.services.get(name).copied().ok_or_else(|| format!("no service {name}"))
    }

    fn add_nodes(&mut self, count: usize, options: &Options<'_>) -> Result<String, String> {
        for _ in 0..count {
            let number = self.nodes.len() + 1;
            let id = NodeId::make(self.now, number as u128);
            let mut description = NodeDescription { hostname: format!("n{number}"), ..NodeDescription::default() };
            description.platform.os = "linux".into();
            description.platform.architecture = options.get("arch").unwrap_or(&"x86_64").to_string();
            description.resources.nano_cpus = int(options, "cpu", 4)? * SECOND_NS;
            description.resources.memory_bytes = int(options, "mem", 8)? << 30;
            description.resources.generic_resources = offered(options)?;
            self.nodes.insert(format!("n{number}"), id);
            let admit = Op::AdmitNode {
                node: id,
                role: NodeRole::Worker,
                cert_expires_at: self.now,
                manager_addr: None,
                availability: Availability::Active,
            };
            self.user(admit)?;
            self.user(Op::ReportNode {
                node: id,
                status: status(NodeState::Ready),
                description: Some(description.into()),
            })?;
        }
        Ok(String::new())
    }

    fn change_node(&mut self, name: &str, what: &str) -> Result<String, String> {
        let node = self.node(name)?;
        let state = match what {
            "ready" => NodeState::Ready,
            "down" => NodeState::Down,
            "unknown" => NodeState::Unknown,
            "left" => {
                let status = NodeStatus { message: swarm_core::NODE_LEFT.into(), ..status(NodeState::Down) };
                return self.user(Op::ReportNode { node, status, description: None });
            }
            _ => {
                let now = self.now;
                // `drain` as by Docker's clients; `drain:policy` as by `node drain`; `drain:60s` with a deadline.
                let (availability, drain_deadline) = match what.split_once(':').unwrap_or((what, "")) {
                    ("active", "") => (Availability::Active, None),
                    ("pause", "") => (Availability::Pause, None),
                    ("drain", "") => (Availability::Drain, None),
                    ("drain", "policy") if self.planning => (Availability::Drain, Some(Timestamp::MAX)),
                    ("drain", "policy") => (Availability::Drain, Some(now.plus_ns(DRAIN_TIMEOUT_DEFAULT_NS))),
                    ("drain", timeout) => (Availability::Drain, Some(now.plus_ns(parse_duration(timeout)?))),
                    _ => return Err(format!("a node cannot be {what}")),
                };
                let mut spec = (*self.state.node(node).ok_or("the node was removed")?.spec).clone();
                spec.availability = availability;
                return self.user(Op::UpdateNode { node, spec: spec.into(), drain_deadline });
            }
        };
        self.user(Op::ReportNode { node, status: status(state), description: None })
    }

    /// The agent of a node says that it has other generic resources.
    fn offer(&mut self, name: &str, options: &Options<'_>) -> Result<String, String> {
        let node = self.state.node(self.node(name)?).ok_or("the node was removed")?.clone();
        let mut description = (**node.description.as_ref().ok_or("it was never described")?).clone();
        description.resources.generic_resources = offered(options)?;
        let description = Some(description.into());
        self.user(Op::ReportNode { node: node.id, status: node.status.clone(), description })
    }

    fn label(&mut self, name: &str, labels: &Options<'_>) -> Result<String, String> {
        let node = self.node(name)?;
        let mut spec = (*self.state.node(node).ok_or("the node was removed")?.spec).clone();
        spec.labels.extend(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let drain_deadline = self.state.node(node).and_then(|node| node.drain_deadline);
        self.user(Op::UpdateNode { node, spec: spec.into(), drain_deadline })
    }

    fn create(&mut self, name: &str, options: &Options<'_>) -> Result<String, String> {
        let constraint = options.get("constraint").map(|c| vec![c.replace(':', "==")]).unwrap_or_default();
        let spread: Vec<_> = options
            .get("spread")
            .map(|s| s.split(',').map(|s| serde_json::json!({"Spread": {"SpreadDescriptor": s}})).collect())
            .unwrap_or_default();
        let platforms = describe::platforms(options);
        let port = int(options, "port", 0)?;
        let ports = if port == 0 {
            serde_json::json!([])
        } else {
            let mode = options.get("publish").unwrap_or(&"host");
            serde_json::json!([{"TargetPort": 80, "PublishedPort": port, "PublishMode": mode}])
        };
        let settings: BTreeMap<&str, &str> =
            options.iter().filter(|(key, _)| key.starts_with("swarmd.")).map(|(key, value)| (*key, *value)).collect();
        let spec: ServiceSpec = serde_json::from_value(serde_json::json!({
            "Name": name,
            "Labels": settings,
            "Mode": mode(options)?,
            "UpdateConfig": policy(options, "")?,
            "RollbackConfig": policy(options, "rb-")?,
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": options.get("image").unwrap_or(&"hello:1"), "Mounts": describe::mounts(options),
                    "StopGracePeriod": int(options, "grace", 10)? * SECOND_NS,
                    "Healthcheck": {"StartInterval": int(options, "start-interval", 0)? * SECOND_NS},
                },
                "LogDriver": options.get("log").map(|name| serde_json::json!({"Name": name})),
                "Resources": {"Reservations": {
                    "NanoCPUs": int(options, "cpu", 0)? * SECOND_NS, "MemoryBytes": int(options, "mem", 0)? << 30,
                    "GenericResources": counted(options, "gpu")?,
                }},
                "RestartPolicy": {
                    "Condition": options.get("restart").unwrap_or(&"any"),
                    "Delay": int(options, "delay", 5)? * SECOND_NS,
                    "MaxAttempts": int(options, "attempts", 0)?,
                    "Window": int(options, "window", 0)? * SECOND_NS,
                },
                "Placement": {
                    "Constraints": constraint, "Preferences": spread, "Platforms": platforms,
                    "MaxReplicas": int(options, "max-per-node", 0)?,
                },
            },
            "EndpointSpec": {"Ports": ports},
        }))
        .map_err(|error| error.to_string())?;
        let service = ServiceId::make(self.now, self.services.len() as u128 + 1);
        self.services.insert(name.to_owned(), service);
        self.user(Op::CreateService { service, spec: spec.into(), registry_auth: None })
    }

    fn scale(&mut self, name: &str, replicas: u64) -> Result<String, String> {
        let service = self.service(name)?;
        let old = self.state.service(service).ok_or("the service was removed")?.clone();
        let mut spec = (*old.spec).clone();
        match &mut spec.mode {
            ServiceMode::ReplicatedJob(job) => job.total_completions = Some(replicas),
            mode => *mode = ServiceMode::Replicated { replicas },
        }
        self.user(Op::update_service(&self.state, &old, spec.into(), None))
    }

    fn update(&mut self, name: &str, options: &Options<'_>) -> Result<String, String> {
        let service = self.service(name)?;
        let old = self.state.service(service).ok_or("the service was removed")?.clone();
        let mut spec = (*old.spec).clone();
        let template = &mut spec.task_template;
        if let Some(image) = options.get("image") {
            template.container_spec.image = image.to_string();
        }
        if let Some(constraint) = options.get("constraint") {
            template.placement.get_or_insert_default().constraints = vec![constraint.replace(':', "==")];
        }
        if let Some(condition) = options.get("restart") {
            template.restart_policy.get_or_insert_default().condition =
                serde_json::from_value((*condition).into()).map_err(|_| "a restart condition")?;
        }
        if options.contains_key("reserve") {
            let reserved = serde_json::json!({"Reservations": {"NanoCPUs": int(options, "reserve", 0)? * SECOND_NS}});
            template.resources = serde_json::from_value(reserved).map_err(|error| error.to_string())?;
        }
        if options.contains_key("force") {
            template.force_update += 1;
        }
        let policy = policy(options, "")?;
        if !policy.is_null() {
            spec.update_config = serde_json::from_value(policy).map_err(|error| error.to_string())?;
        }
        if let Some(label) = options.get("label") {
            spec.labels.insert("label".into(), label.to_string());
        }
        let settings = options.iter().filter(|(key, _)| key.starts_with("swarmd."));
        spec.labels.extend(settings.map(|(key, value)| (key.to_string(), value.to_string())));
        self.user(Op::update_service(&self.state, &old, spec.into(), None))
    }

    fn revisions(&self, name: &str) -> Result<String, String> {
        let service = self.state.service(self.service(name)?).ok_or("the service was removed")?;
        let previous = service.previous.as_ref().map(|previous| previous.revision);
        let mut out = String::new();
        for revision in &service.history {
            let mark = match revision.number {
                number if number == service.revision => " current",
                number if Some(number) == previous => " previous",
                _ => "",
            };
            let spec = &revision.spec;
            let (image, replicas) = (&spec.task_template.container_spec.image, spec.replicas());
            let replicas = replicas.map_or("global".to_owned(), |replicas| format!("replicas={replicas}"));
            let _ = writeln!(out, "{} from {}: {image} {replicas}{mark}", revision.number, revision.base);
        }
        Ok(out)
    }

    /// A text with the names of tasks in the place of their ids.
    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(&id.to_string(), name))
    }

    /// Decides, applies the plan, and tells it. A plan that does not settle the state is a defect.
    fn decide(&mut self) -> String {
        let due: Vec<ServiceId> =
            self.deadlines.iter().filter(|(_, at)| **at <= self.now).map(|(service, _)| *service).collect();
        self.dirty.services.extend(due);
        let dirty = std::mem::take(&mut self.dirty);
        self.seed += 1;
        let context = Context { led_since: self.led_since, ..Context::at(self.now, self.seed) };
        let plan = decide(&self.state, &dirty, &context);
        assert_eq!(plan.refused, [], "a plan that its own clone refuses");
        assert!(plan.unfinished.is_empty(), "a small cluster's plan has one piece");
        plan.renew(&mut self.deadlines);
        let mut out: String = plan.txs.iter().flat_map(|tx| &tx.ops).map(|op| self.tell(op)).collect();
        for (service, at) in &plan.deadlines {
            let seconds = at.since_ns(self.now) / SECOND_NS;
            let _ = writeln!(out, "look at {} again in {seconds}s", self.service_name(*service));
        }
        if !plan.txs.is_empty() {
            for outcome in self.commit(plan.txs) {
                assert_eq!(outcome, Ok(()), "a fresh plan applies");
            }
            let again = decide(&self.state, &self.dirty, &Context { seed: self.seed + 1, ..context });
            assert_eq!(again.txs, [], "deciding again right after the plan was applied gives an empty plan");
        }
        if out.is_empty() { "nothing to do\n".into() } else { out }
    }

    fn tell(&mut self, op: &Op) -> String {
        let mut out = String::new();
        match op {
            Op::CreateTasks { service, desired, tasks, .. } => {
                for task in tasks {
                    let service = self.service_name(*service);
                    let slot = match &task.place {
                        Place::On(node) | Place::PendingOn(node, _) if task.slot == 0 => {
                            self.node_name(*node).to_owned()
                        }
                        _ => task.slot.to_string(),
                    };
                    let name = self.name(task.id, &format!("{service}.{slot}"));
                    let _ = writeln!(out, "create {name} {desired} {}", self.place(&task.place));
                }
            }
            Op::SetUpdate { service, update } => {
                let (service, state) = (self.service_name(*service), update.state.as_str());
                let failed = update.failed.len();
                let _ = writeln!(out, "update of {service} is {state}: {failed} of {} failed", update.slots);
            }
            Op::RollBack { service, message, .. } => {
                let _ = writeln!(out, "roll back {}: {}", self.service_name(*service), self.named(message));
            }
            Op::SetRebalance { service, .. } => {
                let _ = writeln!(out, "{} is even", self.service_name(*service));
            }
            Op::PlaceTask { task, place, .. } => {
                let _ = writeln!(out, "place {} {}", self.names[task], self.place(place));
            }
            Op::SetDesired { desired, tasks } => {
                for task in tasks {
                    let _ = writeln!(out, "want {} {desired}", self.names[task]);
                }
            }
            Op::EndTasks { status, tasks } => {
                let err = status.err.as_deref().unwrap_or_default();
                for task in tasks {
                    let _ = writeln!(out, "end {} {} ({err})", self.names[task], status.state);
                }
            }
            Op::DeleteTasks { tasks } => {
                for task in tasks {
                    let _ = writeln!(out, "delete {}", self.names[task]);
                }
            }
            other => {
                let _ = writeln!(out, "{other:?}");
            }
        }
        out
    }

    fn place(&self, place: &Place) -> String {
        match place {
            Place::On(node) => format!("on {}", self.node_name(*node)),
            Place::Pending(reason) => format!("pending: {reason}"),
            Place::PendingOn(node, reason) => format!("pending on {}: {reason}", self.node_name(*node)),
        }
    }

    fn node_name(&self, id: NodeId) -> &str {
        self.nodes.iter().find(|(_, node)| **node == id).map_or("?", |(name, _)| name)
    }

    fn service_name(&self, id: ServiceId) -> String {
        self.services.iter().find(|(_, service)| **service == id).map_or("?", |(name, _)| name).to_owned()
    }

    /// Names the first task of a slot `web.1`, the next one `web.1'2`, and so on.
    fn name(&mut self, id: TaskId, slot: &str) -> String {
        let number = self.names.values().filter(|name| name.split('\'').next() == Some(slot)).count() + 1;
        let name = if number == 1 { slot.to_owned() } else { format!("{slot}'{number}") };
        self.names.entry(id).or_insert(name).clone()
    }

    /// A report of an agent, which saw this so many seconds ago.
    fn report(&mut self, name: &str, state: &str, ago: i64) -> Result<String, String> {
        let id = *self.names.iter().find(|(_, n)| *n == name).ok_or_else(|| format!("no task {name}"))?.0;
        let state = *TaskState::ALL.iter().find(|s| s.as_str() == state).ok_or("no such state")?;
        let node = self.state.task(id).and_then(|task| task.node).ok_or("the task has no node")?;
        let status = TaskStatus::new(state, self.now.plus_ns(-ago * SECOND_NS));
        self.user(Op::ReportTasks { node, reports: vec![(id, status)] })
    }

    /// Every agent that answers takes each task one state further. False when there is nothing left to do.
    fn agents_step(&mut self) -> bool {
        let mut reports: BTreeMap<NodeId, Vec<(TaskId, TaskStatus)>> = BTreeMap::new();
        for task in self.state.tasks() {
            let Some(node) = task.node.and_then(|id| self.state.node(id)) else { continue };
            let state = task.status.state;
            let next = match task.desired {
                _ if node.status.state != NodeState::Ready || state == TaskState::Pending || state.is_terminal() => {
                    continue;
                }
                DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
                DesiredState::Ready if state >= TaskState::Ready => continue,
                DesiredState::Ready | DesiredState::Running | DesiredState::Complete => {
                    match TaskState::ALL.iter().find(|s| **s > state && **s <= TaskState::Running) {
                        Some(next) => *next,
                        None => continue,
                    }
                }
            };
            reports.entry(node.id).or_default().push((task.id, TaskStatus::new(next, self.now)));
        }
        let any = !reports.is_empty();
        let txs = reports.into_iter().map(|(node, reports)| Tx::new(vec![Op::ReportTasks { node, reports }])).collect();
        self.commit(txs);
        any
    }

    /// Decides and lets the agents work until nothing happens any more at this time.
    fn settle(&mut self) -> String {
        for _ in 0..ROUNDS_MAX {
            let planned = self.decide() != "nothing to do\n";
            let worked = self.agents_step();
            if !worked && (!planned || self.dirty.is_empty()) {
                return self.ps();
            }
        }
        panic!("it never comes to rest; the last decision: {}{}", self.decide(), self.ps())
    }

    fn ps(&mut self) -> String {
        let mut rows: Vec<(String, u32, TaskId)> =
            self.state.tasks().map(|t| (self.service_name(t.service), t.slot, t.id)).collect();
        rows.sort();
        let mut out = String::new();
        for (_, _, id) in rows {
            let task = self.state.task(id).expect("listed a moment ago");
            let node = task.node.map_or("-", |node| self.node_name(node));
            let _ = write!(out, "{} {node} {} (want {})", self.names[&id], task.status.state, task.desired);
            for resource in task.generic_resources.iter() {
                let _ = match resource {
                    GenericResource::Discrete { kind, value } => write!(out, " {kind}={value}"),
                    GenericResource::Named { kind, value } => write!(out, " {kind}={value}"),
                };
            }
            out.push('\n');
        }
        if out.is_empty() { "no tasks\n".into() } else { out }
    }
}

fn mode(options: &Options<'_>) -> Result<serde_json::Value, String> {
    let replicas = int(options, "replicas", 1)?;
    Ok(match options.get("mode") {
        Some(&"global") => serde_json::json!({"Global": {}}),
        Some(&"global-job") => serde_json::json!({"GlobalJob": {}}),
        Some(&"replicated-job") => serde_json::json!({"ReplicatedJob": {
            "MaxConcurrent": int(options, "concurrent", replicas)?, "TotalCompletions": replicas,
        }}),
        _ => serde_json::json!({"Replicated": {"Replicas": replicas}}),
    })
}

fn status(state: NodeState) -> NodeStatus {
    NodeStatus { state, engine_reachable: true, addr: "10.0.0.1".into(), ..NodeStatus::default() }
}

/// The options of an update or rollback; none if there is none.
fn policy(options: &Options<'_>, prefix: &str) -> Result<serde_json::Value, String> {
    let get = |key: &str| options.get(format!("{prefix}{key}").as_str()).copied();
    let keys = ["parallelism", "delay", "monitor", "action", "ratio", "order"];
    if prefix.is_empty() && keys.iter().filter(|key| **key != "delay").all(|key| get(key).is_none())
        || keys.iter().all(|key| get(key).is_none())
    {
        return Ok(serde_json::Value::Null);
    }
    let number =
        |key: &str, default: i64| get(key).map_or(Ok(default), |t| t.parse().map_err(|_| format!("{key}: number")));
    Ok(serde_json::json!({
        "Parallelism": number("parallelism", 1)?,
        "Delay": number("wait", 0)? * SECOND_NS,
        "Monitor": number("monitor", 5)? * SECOND_NS,
        "FailureAction": get("action").unwrap_or("pause"),
        "MaxFailureRatio": get("ratio").unwrap_or("0").parse::<f32>().map_err(|_| "ratio: number")?,
        "Order": get("order").unwrap_or("stop-first"),
    }))
}

/// So many of a kind of generic resource, if the option is there.
fn counted(options: &Options<'_>, kind: &str) -> Result<Vec<GenericResource>, String> {
    let value = int(options, kind, 0)?;
    Ok((value > 0).then(|| GenericResource::Discrete { kind: kind.into(), value }).into_iter().collect())
}

/// What a node offers: `gpu=2` a count, `gpus=a,b` names.
fn offered(options: &Options<'_>) -> Result<Vec<GenericResource>, String> {
    let mut offered = counted(options, "gpu")?;
    let names = options.get("gpus").into_iter().flat_map(|names| names.split(','));
    offered.extend(names.map(|value| GenericResource::Named { kind: "gpu".into(), value: value.into() }));
    Ok(offered)
}

fn int(options: &Options<'_>, key: &str, default: i64) -> Result<i64, String> {
    options.get(key).map_or(Ok(default), |text| text.parse().map_err(|_| format!("{key} is a number")))
}
