//! The shell around an agent's worker: its streams, its disk, its clock (`agent/src/agent.rs` does the same on tokio).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_agent::{
    Change, DataInput, Input, LocalTask, NodeIdentity, Now, Operation, Output, Stored, Worker, WorkerOptions,
};
use swarm_model::{DataAddress, Labels, NodeId, ServiceId, TaskId, TaskState};
use swarm_wire::agent::{AssignedSpec, ToAgent, ToManager};

use crate::{
    data::DataPlane,
    engine::Engine,
    event::{ConnId, Event, Unwritten},
    peers::{Conn, is_old},
    rng::Rng,
    stops::Stops,
    world::World,
};

/// After so long a manager that does not answer is no longer waited for (`node/src/connector.rs`).
const NEXT_MANAGER_MS: u64 = 500;

/// The port at which data planes take connections of other nodes.
const DATA_PORT: u16 = 4790;

/// A machine with an agent and a container engine.
pub(crate) struct Host {
    pub(crate) hostname: String,
    /// Counts the starts of the agent: what an earlier one asked for is not heard by the next.
    pub(crate) boot: u64,
    pub(crate) worker: Option<Worker>,
    started_ms: u64,
    pub(crate) skew_ms: i64,
    token: u64,
    wake_ms: u64,
    pub(crate) conn: Option<ConnId>,
    streams: u64,
    /// A manager named the leader.
    knows_leader: bool,
    pub(crate) tasks_on_disk: BTreeMap<TaskId, LocalTask>,
    specs_on_disk: BTreeMap<(ServiceId, u64), (AssignedSpec, bool)>,
    pub(crate) unwritten: Unwritten,
    /// Tasks whose files are there: in memory, as secrets are.
    pub(crate) files: BTreeSet<TaskId>,
    pub(crate) engine: Engine,
    pub(crate) data: DataPlane,
    pub(crate) stops: Stops,
    /// Until then nothing that it sends arrives; it arrives late.
    pub(crate) up_stuck_ms: u64,
    /// Until then nothing that is sent to it arrives.
    pub(crate) down_stuck_ms: u64,
    /// It left the cluster, or is lost for good.
    pub(crate) gone: bool,
    pub(crate) left: bool,
}

impl Host {
    pub(crate) fn new(hostname: String, engine: Engine) -> Self {
        Self {
            hostname,
            boot: 0,
            worker: None,
            started_ms: 0,
            skew_ms: 0,
            token: 0,
            wake_ms: u64::MAX,
            conn: None,
            streams: 0,
            knows_leader: false,
            tasks_on_disk: BTreeMap::new(),
            specs_on_disk: BTreeMap::new(),
            unwritten: Unwritten::new(),
            files: BTreeSet::new(),
            engine,
            data: DataPlane::default(),
            stops: Stops::default(),
            up_stuck_ms: 0,
            down_stuck_ms: 0,
            gone: false,
            left: false,
        }
    }

    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::PutTask(task) => drop(self.tasks_on_disk.insert(task.assigned.id, task)),
                Change::DeleteTask(task) => drop(self.tasks_on_disk.remove(&task)),
                Change::PutSpec(spec) => {
                    let had_credentials = spec.registry_auth.is_some();
                    let kept = AssignedSpec { registry_auth: None, ..AssignedSpec::clone(&spec) };
                    self.specs_on_disk.insert((spec.service, spec.version), (kept, had_credentials));
                }
                Change::DeleteSpec(service, version) => drop(self.specs_on_disk.remove(&(service, version))),
            }
        }
    }
}

impl World {
    /// The agent of a node starts with what is on its disk.
    pub(crate) fn start(&mut self, node: NodeId) {
        let seed = self.rng.next();
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.worker.is_none() && !host.gone) else { return };
        let identity =
            NodeIdentity { id: node, hostname: host.hostname.clone(), platform: Default::default(), bind_addr: None };
        let options = WorkerOptions {
            node: Arc::new(identity),
            program: "sim".into(),
            resources: None,
            engine_labels: Labels::new(),
            seed,
            data_address: (!is_old(node)).then_some(DataAddress { addr: None, port: DATA_PORT }),
            has_networks: false,
            sandboxes: "/run/docker/netns".into(),
        };
        let stored = Stored {
            tasks: host.tasks_on_disk.values().cloned().collect(),
            specs: host.specs_on_disk.values().cloned().collect(),
        };
        // As the shell of an agent does it at its start.
        let keeps = |task: &LocalTask| !task.status.state.is_terminal();
        host.files.retain(|task| host.tasks_on_disk.get(task).is_some_and(keeps));
        host.worker = Some(Worker::new(options, stored));
        host.boot += 1;
        host.started_ms = self.now_ms;
        host.wake_ms = u64::MAX;
        host.engine.told = None;
        host.stops = Stops::default();
        let (boot, finds_data) = (host.boot, host.data.runs());
        if finds_data {
            self.hear(node, boot, Input::Data(DataInput::Found));
        }
        self.look_at_engine(node, 5, false);
    }

    /// The agent dies at once. Changes that are not on its disk are lost, and its stream ends.
    pub(crate) fn kill_agent(&mut self, node: NodeId, told: bool) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.worker = None;
        // Answers to this agent find nobody.
        host.boot += 1;
        let lost = !host.unwritten.is_empty();
        host.unwritten.clear();
        let conn = host.conn.take();
        host.data.lose_agent();
        if lost {
            self.counts.fault("disk write lost");
        }
        if let Some(conn) = conn {
            self.drop_conn(conn, false, told);
        }
    }

    /// Something that an agent hears of, if it still runs.
    pub(crate) fn hear(&mut self, node: NodeId, boot: u64, input: Input) {
        if self.hosts.get(&node).is_some_and(|host| host.boot == boot) {
            self.step_agent(node, Some(input));
        }
    }

    pub(crate) fn wake_agent(&mut self, node: NodeId, boot: u64, token: u64) {
        if self.hosts.get(&node).is_some_and(|host| host.boot == boot && host.token == token) {
            self.step_agent(node, None);
        }
    }

    fn step_agent(&mut self, node: NodeId, input: Option<Input>) {
        let now_ms = self.now_ms;
        let Some(skew_ms) = self.hosts.get(&node).map(|host| host.skew_ms) else { return };
        let wall = self.wall_off(skew_ms);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(worker) = &mut host.worker else { return };
        host.stops.hear(input.as_ref(), now_ms);
        let outputs = worker.step(Now { wall, mono_ms: now_ms - host.started_ms }, input);
        host.stops.follow(worker, now_ms);
        let deadline = worker.deadline_ms().saturating_add(host.started_ms);
        let boot = host.boot;
        if deadline != host.wake_ms || host.wake_ms <= now_ms {
            host.token += 1;
            host.wake_ms = deadline;
            let token = host.token;
            if deadline < u64::MAX {
                self.at(deadline.max(now_ms + 1), Event::Wake { node, boot, token });
            }
        }
        for output in outputs {
            self.perform(node, boot, output);
        }
    }

    fn perform(&mut self, node: NodeId, boot: u64, output: Output) {
        match output {
            Output::Connect { leader } => self.connect(node, leader.is_some()),
            Output::Disconnect => self.hang_up(node),
            Output::Send(message) => self.up(node, message),
            Output::Run(task, operation) => {
                if matches!(operation, Operation::Stop(..) | Operation::Remove(..)) {
                    self.check_grace(node, task);
                }
                self.call(node, boot, task, operation);
            }
            Output::List => {
                let delay = self.rng.between(5, 60);
                self.after(delay, Event::List { node, boot });
            }
            Output::RemoveStray(container) => {
                let delay = self.rng.between(20, 2_000);
                self.after(delay, Event::RemoveStray { node, boot, container });
            }
            Output::NeedData => self.need_data(node, boot),
            Output::Data(message) => self.tell_data(node, message),
            Output::CheckEngine => self.look_at_engine(node, 100, false),
            Output::Save(changes) => {
                let slow = !self.healed && self.rng.per_mille(60);
                let delay = if slow { self.rng.between(200, 3_000) } else { self.rng.between(1, 40) };
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.unwritten.push_back(changes);
                }
                self.after(delay, Event::Write { node, boot });
            }
            Output::DropFiles(task) => {
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.files.remove(&task);
                }
            }
            Output::Left => {
                if let Some(host) = self.hosts.get_mut(&node) {
                    host.left = true;
                }
                self.host_left(node);
            }
            // Which manager leads is found out by asking; a wait for an image ends by itself here; nobody changes roles.
            Output::NeedNet
            | Output::Net(_)
            | Output::KeepNetworks(_)
            | Output::Attachment(_)
            | Output::Managers(_)
            | Output::Role(_)
            | Output::Authority(_)
            | Output::Session(_)
            | Output::Cancel(_)
            | Output::Logs(_) => {}
        }
    }

    /// The oldest unwritten changes are on disk.
    pub(crate) fn write(&mut self, node: NodeId, boot: u64) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.boot == boot) else { return };
        if let Some(changes) = host.unwritten.pop_front() {
            host.write(changes);
        }
    }

    fn connect(&mut self, node: NodeId, knows_leader: bool) {
        self.hang_up(node);
        let late = self.latency();
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.streams += 1;
        host.knows_leader = knows_leader;
        let (boot, stream) = (host.boot, host.streams);
        if host.up_stuck_ms > self.now_ms || host.down_stuck_ms > self.now_ms {
            // Nobody answers; the agent gives up by itself.
            return;
        }
        self.after(late, Event::Reach { node, boot, stream });
    }

    /// An attempt to open a stream arrives at a manager.
    pub(crate) fn reach(&mut self, node: NodeId, boot: u64, stream: u64) {
        let late = self.latency();
        let lost = self.rng.per_mille(200);
        let knows_leader = self.hosts.get(&node).is_some_and(|host| host.knows_leader);
        let follower = !knows_leader && self.rng.per_mille(300);
        let term = match &self.leader {
            Some(leader) if !follower => leader.term,
            // That manager does not answer, and the next one is tried.
            _ if lost => return self.after(NEXT_MANAGER_MS, Event::Reach { node, boot, stream }),
            None if !follower => return self.after(late, Event::AgentHears { node, boot, stream }),
            _ => 0,
        };
        let Some(host) = self.hosts.get_mut(&node).filter(|h| h.boot == boot && h.streams == stream) else { return };
        self.conns_made += 1;
        let conn = self.conns_made;
        host.conn = Some(conn);
        let now_ms = self.now_ms;
        let made = Conn { node, boot, stream, term, last_up_ms: now_ms, last_down_ms: now_ms + late };
        self.conns.insert(conn, made);
        self.after(late, Event::Opened { node, conn });
    }

    pub(crate) fn opened(&mut self, node: NodeId, conn: ConnId) {
        if self.hosts.get(&node).is_some_and(|host| host.conn == Some(conn)) {
            self.step_agent(node, Some(Input::Connected));
        }
    }

    /// The agent gives its stream up.
    fn hang_up(&mut self, node: NodeId) {
        let Some(conn) = self.hosts.get_mut(&node).and_then(|host| host.conn.take()) else { return };
        let late = self.latency();
        let stuck = self.hosts.get(&node).map_or(0, |host| host.up_stuck_ms);
        if let Some(stream) = self.conns.get(&conn) {
            let at = (self.now_ms + late).max(stream.last_up_ms).max(stuck);
            self.at(at, Event::ManagerHears { conn });
        }
    }

    /// The manager ends a stream: what it sent before still arrives.
    pub(crate) fn end_stream(&mut self, conn: ConnId) {
        let late = self.latency();
        let Some(stream) = self.conns.get(&conn) else { return };
        let (node, boot) = (stream.node, stream.boot);
        let stuck = self.hosts.get(&node).map_or(0, |host| host.down_stuck_ms);
        let at = (self.now_ms + late).max(stream.last_down_ms).max(stuck);
        let stream = stream.stream;
        self.at(at, Event::AgentHears { node, boot, stream });
    }

    /// A stream breaks: what is under way is lost. Either side may hear of it, or not.
    pub(crate) fn drop_conn(&mut self, conn: ConnId, agent_hears: bool, manager_hears: bool) {
        let Some(stream) = self.conns.remove(&conn) else { return };
        if agent_hears {
            let delay = self.rng.between(1, 3_000);
            let Conn { node, boot, stream, .. } = stream;
            self.after(delay, Event::AgentHears { node, boot, stream });
        }
        if manager_hears {
            let delay = self.rng.between(1, 3_000);
            self.after(delay, Event::ManagerHears { conn });
        }
    }

    pub(crate) fn agent_hears(&mut self, node: NodeId, boot: u64, stream: u64) {
        let current = |host: &&mut Host| host.boot == boot && host.streams == stream;
        let Some(host) = self.hosts.get_mut(&node).filter(current) else { return };
        if let Some(conn) = host.conn.take() {
            self.conns.remove(&conn);
        }
        self.step_agent(node, Some(Input::Disconnected("the stream ended".into())));
    }

    /// Sends from an agent.
    fn up(&mut self, node: NodeId, message: ToManager) {
        if let ToManager::Status { reports, .. } = &message {
            for report in reports {
                self.digest(&[report.task.0 as u64, report.status.state as u64]);
            }
            if let Some(wrong) = self.premature_end(node, &message) {
                self.complain(wrong);
            }
        }
        let late = if matches!(message, ToManager::Table(_)) { self.side_latency() } else { self.latency() };
        let Some(host) = self.hosts.get(&node) else { return };
        let Some(conn) = host.conn else { return };
        let Some(stream) = self.conns.get_mut(&conn) else { return };
        let at = (self.now_ms + late).max(stream.last_up_ms).max(host.up_stuck_ms);
        stream.last_up_ms = at;
        self.at(at, Event::Up { conn, message: Box::new(message) });
    }

    /// An agent says that a task ended while its container runs.
    fn premature_end(&self, node: NodeId, message: &ToManager) -> Option<String> {
        let ToManager::Status { reports, .. } = message else { return None };
        let engine = &self.hosts.get(&node)?.engine;
        let ended = reports.iter().filter(|r| r.status.state > TaskState::Running);
        let wrong = ended.into_iter().find(|r| engine.runs(r.task))?;
        Some(format!("node {node} reports {} of task {}, whose container runs", wrong.status.state, wrong.task))
    }

    /// Sends to an agent.
    pub(crate) fn down(&mut self, conn: ConnId, message: ToAgent) {
        let late = if matches!(message, ToAgent::Table(_)) { self.side_latency() } else { self.latency() };
        let Some(stream) = self.conns.get_mut(&conn) else { return };
        let stuck = self.hosts.get(&stream.node).map_or(0, |host| host.down_stuck_ms);
        let at = (self.now_ms + late).max(stream.last_down_ms).max(stuck);
        stream.last_down_ms = at;
        self.at(at, Event::Down { conn, message: Box::new(message) });
    }

    pub(crate) fn deliver(&mut self, conn: ConnId, message: ToAgent) {
        let Some(node) = self.conns.get(&conn).map(|stream| stream.node) else { return };
        if self.hosts.get(&node).is_some_and(|host| host.conn == Some(conn)) {
            self.step_agent(node, Some(Input::Message(message)));
        }
    }

    fn latency(&mut self) -> u64 {
        latency(&mut self.rng)
    }

    fn side_latency(&mut self) -> u64 {
        latency(&mut self.side)
    }
}

fn latency(rng: &mut Rng) -> u64 {
    if rng.per_mille(5) { rng.between(100, 1_500) } else { rng.between(1, 5) }
}
