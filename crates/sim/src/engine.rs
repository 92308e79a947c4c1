//! The container engine of a node: its containers, what goes wrong with them, and how its agent learns of it.
//!
//! What a container does follows from the image that an operator chose, `app:v7-crash`; see [`Kind`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use swarm_agent::{
    ContainerEvent, ContainerRequest, EngineError, EngineReport, Exited, Health, Input, Listed, Observed, Operation,
    Running,
};
use swarm_model::{EngineDescription, NodeId, NodeResources, Platform, TaskId, Timestamp};

use crate::{
    event::{Event, Fate},
    world::World,
};

/// Time after which a call to an engine that does not answer is given up.
const CALL_MS_MAX: u64 = 5_000;

/// What an image does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs until it is stopped.
    Good,
    /// The same, but it takes long to be pulled.
    Slow,
    /// There is no such image.
    Missing,
    /// Its container cannot be started.
    Refused,
    /// Ends with an error soon after its start.
    Crash,
    /// Ends with an error at some time.
    Flaky,
    /// Ends without an error after a while.
    Once,
    /// Its health check fails at some time.
    Sick,
    /// Ends as it should after a while: the task of a job.
    Work,
}

impl Kind {
    /// Kinds with the names that stand in images.
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Good, "good"),
        (Self::Slow, "slow"),
        (Self::Missing, "missing"),
        (Self::Refused, "refused"),
        (Self::Crash, "crash"),
        (Self::Flaky, "flaky"),
        (Self::Once, "once"),
        (Self::Sick, "sick"),
    ];

    fn of(image: &str) -> Self {
        let name = image.rsplit('-').next().unwrap_or_default();
        if name == "work" {
            return Self::Work;
        }
        Self::ALL.iter().find(|(_, found)| *found == name).map_or(Self::Good, |(kind, _)| *kind)
    }
}

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) task: TaskId,
    kind: Kind,
    has_health: bool,
    /// Whether it was somebody else who started it last.
    by_hand: bool,
    pub(crate) state: Observed,
}

impl Container {
    fn run(&mut self, id: &str, start: i64, health: Health) {
        let started_at = Timestamp(start);
        // Another run, another address.
        let addr = IpAddr::from([172, 17, (start >> 8) as u8, start as u8]);
        let running = Running { id: id.into(), started_at, pid: 1, health, addr: Some(addr), ..Running::default() };
        self.state = Observed::Running(running);
    }

    fn end(&mut self, exit_code: i64) {
        if let Observed::Running(running) = &self.state {
            let (id, started_at) = (running.id.clone(), running.started_at);
            self.state = Observed::Exited(Exited { id, started_at, exit_code, ..Exited::default() });
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) up: bool,
    /// What the agent was last told: that it answers, or that it does not.
    pub(crate) told: Option<bool>,
    pub(crate) containers: BTreeMap<String, Container>,
    made: u64,
    /// Containers that were started so far; the number of a start stands for its time.
    starts: i64,
    pub(crate) resources: NodeResources,
    /// Until then nothing can be created: the disk is full.
    pub(crate) full_until_ms: u64,
}

impl Engine {
    pub(crate) fn new(resources: NodeResources) -> Self {
        Self { up: true, told: None, containers: BTreeMap::new(), made: 0, starts: 0, resources, full_until_ms: 0 }
    }

    /// Whether a container of this task runs, and nobody else started it.
    pub(crate) fn runs(&self, task: TaskId) -> bool {
        self.containers.values().any(|c| c.task == task && !c.by_hand && matches!(c.state, Observed::Running(_)))
    }

    /// All running containers end, as with a power cut.
    pub(crate) fn stop_all(&mut self) {
        for container in self.containers.values_mut() {
            container.end(255);
        }
    }

    fn report(&self) -> EngineReport {
        EngineReport {
            engine_id: String::new(),
            platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
            resources: self.resources.clone(),
            engine: EngineDescription { engine_version: "sim".into(), ..EngineDescription::default() },
        }
    }

    fn observed(&self, task: TaskId) -> Observed {
        self.containers.values().find(|c| c.task == task).map_or(Observed::Absent, |c| c.state.clone())
    }

    fn state(&self, id: &str) -> Observed {
        self.containers.get(id).map_or(Observed::Absent, |c| c.state.clone())
    }

    fn create(&mut self, request: &ContainerRequest, now_ms: u64, healed: bool) -> Result<Observed, EngineError> {
        let task = request.task.id;
        let found = self.observed(task);
        if found != Observed::Absent {
            return Ok(found);
        }
        let spec = &request.spec.task.container_spec;
        let kind = match Kind::of(&spec.image) {
            Kind::Work => Kind::Work,
            _ if healed => Kind::Good,
            kind => kind,
        };
        if kind == Kind::Missing {
            return Err(EngineError::Fatal(format!("No such image: {}", spec.image)));
        }
        if now_ms < self.full_until_ms {
            return Err(EngineError::Temporary("no space left on device".into()));
        }
        self.made += 1;
        let id = format!("{:x}{:08x}", request.node.id.0 as u32, self.made);
        let has_health = spec.healthcheck.is_some();
        let state = Observed::Created { id: id.clone() };
        self.containers.insert(id, Container { task, kind, has_health, by_hand: false, state: state.clone() });
        Ok(state)
    }
}

impl World {
    /// A call of an agent is on its way to the engine.
    pub(crate) fn call(&mut self, node: NodeId, boot: u64, task: TaskId, operation: Operation) {
        let delay = match &operation {
            Operation::Inspect(_) => self.rng.between(5, 30),
            Operation::Prepare(request) => {
                let image = &request.spec.task.container_spec.image;
                let slow = !self.healed && Kind::of(image) == Kind::Slow;
                if slow { self.rng.between(5_000, 40_000) } else { self.rng.between(50, 800) }
            }
            Operation::Start(..) => self.rng.between(50, 500),
            Operation::Stop(..) | Operation::Remove(..) if self.rng.per_mille(100) => self.rng.between(3_000, 10_000),
            Operation::Stop(..) | Operation::Remove(..) => self.rng.between(20, 1_500),
        };
        self.after(delay, Event::Call { node, boot, task, operation: Box::new(operation) });
    }

    /// The engine carries a call out.
    pub(crate) fn carry_out(&mut self, node: NodeId, boot: u64, task: TaskId, operation: &Operation) {
        let healed = self.healed;
        let (loses, acts) = (!healed && self.rng.per_mille(5), self.rng.per_mille(500));
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let orphaned = host.boot != boot;
        if !host.engine.up {
            let input = Input::Done { task, result: Err(EngineError::Unreachable("no answer".into())) };
            return self.after(CALL_MS_MAX, Event::Hear { node, boot, input: Box::new(input) });
        }
        // A call of an agent that died meanwhile may have been on its way.
        if (orphaned || loses) && !acts {
            return self.lose_call(node, boot, task, orphaned);
        }
        // An agent that died puts no files.
        match operation {
            Operation::Prepare(request) if !orphaned => put_files(&mut host.files, request),
            Operation::Start(_, Some(request)) if !orphaned => put_files(&mut host.files, request),
            _ => {}
        }
        let result = self.act(node, task, operation);
        if orphaned || loses {
            return self.lose_call(node, boot, task, orphaned);
        }
        self.hear(node, boot, Input::Done { task, result });
    }

    fn lose_call(&mut self, node: NodeId, boot: u64, task: TaskId, orphaned: bool) {
        self.counts.fault("engine call lost");
        if !orphaned {
            let input = Input::Done { task, result: Err(EngineError::Unreachable("the answer got lost".into())) };
            self.after(CALL_MS_MAX, Event::Hear { node, boot, input: Box::new(input) });
        }
    }

    fn act(&mut self, node: NodeId, task: TaskId, operation: &Operation) -> Result<Observed, EngineError> {
        let (now_ms, healed) = (self.now_ms, self.healed);
        let Some(host) = self.hosts.get_mut(&node) else { return Ok(Observed::Absent) };
        let engine = &mut host.engine;
        match operation {
            Operation::Inspect(_) => Ok(engine.observed(task)),
            Operation::Prepare(request) => {
                let result = engine.create(request, now_ms, healed);
                if let Err(EngineError::Fatal(_)) = result {
                    self.counts.fault("image cannot be had");
                }
                result
            }
            Operation::Start(id, _) => self.start_container(node, id),
            Operation::Stop(id, _) => {
                if let Some(container) = engine.containers.get_mut(id) {
                    container.end(0);
                }
                Ok(engine.state(id))
            }
            Operation::Remove(id, _) => {
                engine.containers.remove(id);
                Ok(Observed::Absent)
            }
        }
    }

    fn start_container(&mut self, node: NodeId, id: &str) -> Result<Observed, EngineError> {
        let healed = self.healed;
        let Some(host) = self.hosts.get_mut(&node) else { return Ok(Observed::Absent) };
        let Some(container) = host.engine.containers.get_mut(id) else { return Ok(Observed::Absent) };
        if let Observed::Created { .. } = container.state {
            if !healed && container.kind == Kind::Refused {
                self.counts.fault("start refused");
                return Err(EngineError::Fatal("OCI runtime create failed".into()));
            }
            let health = if container.has_health { Health::Starting } else { Health::None };
            host.engine.starts += 1;
            container.run(id, host.engine.starts, health);
            let (kind, has_health) = (container.kind, container.has_health);
            self.decide_fate(node, id, kind, has_health);
        }
        Ok(self.hosts.get(&node).map_or(Observed::Absent, |host| host.engine.state(id)))
    }

    fn decide_fate(&mut self, node: NodeId, id: &str, kind: Kind, has_health: bool) {
        let mut fates = Vec::new();
        if has_health {
            fates.push((self.rng.between(500, 4_000), Fate::Healthy));
        }
        match kind {
            Kind::Good | Kind::Slow | Kind::Missing | Kind::Refused => {}
            Kind::Crash => fates.push((self.rng.between(20, 3_000), Fate::Exit(1))),
            Kind::Flaky => fates.push((self.rng.between(2_000, 300_000), Fate::Exit(2))),
            Kind::Once => fates.push((self.rng.between(1_000, 60_000), Fate::Exit(0))),
            Kind::Work => fates.push((self.rng.between(1_000, 120_000), Fate::Done)),
            Kind::Sick if has_health => fates.push((self.rng.between(3_000, 120_000), Fate::Unhealthy)),
            Kind::Sick => {}
        }
        for (delay, fate) in fates {
            self.after(delay, Event::Container { node, container: id.into(), fate });
        }
    }

    /// Something becomes of a container by itself.
    pub(crate) fn befall(&mut self, node: NodeId, id: &str, fate: Fate) {
        if self.healed && !matches!(fate, Fate::Healthy | Fate::Done) {
            return;
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(container) = host.engine.containers.get_mut(id) else { return };
        if let Fate::StartByHand(restart) = fate {
            return self.start_by_hand(node, id, restart);
        }
        let Observed::Running(running) = &mut container.state else { return };
        match fate {
            Fate::StartByHand(_) => return,
            Fate::Exit(exit_code) => {
                container.end(exit_code);
                self.counts.fault("container exits");
            }
            Fate::Done => container.end(0),
            Fate::Healthy if running.health == Health::Starting => running.health = Health::Healthy,
            Fate::Healthy => return,
            Fate::Unhealthy => {
                running.health = Health::Unhealthy;
                self.counts.fault("container unhealthy");
            }
        }
        self.changed_ms = self.now_ms;
        self.container_event(node, id);
    }

    /// Somebody starts a container that has ended.
    fn start_by_hand(&mut self, node: NodeId, id: &str, restart: bool) {
        let Some(engine) = self.hosts.get_mut(&node).map(|host| &mut host.engine).filter(|engine| engine.up) else {
            return;
        };
        let Some(container) = engine.containers.get_mut(id) else { return };
        if !matches!(container.state, Observed::Exited(_)) {
            return;
        }
        engine.starts += 1;
        container.run(id, engine.starts, Health::None);
        container.by_hand = true;
        self.counts.fault(if restart { "container restarted by hand" } else { "container started by hand" });
        self.changed_ms = self.now_ms;
        self.tell(node, id, ContainerEvent::Started);
        if restart {
            self.tell(node, id, ContainerEvent::Restarted);
        }
    }

    /// The engine tells of a change; that can get lost.
    pub(crate) fn container_event(&mut self, node: NodeId, id: &str) {
        self.tell(node, id, ContainerEvent::Changed);
    }

    fn tell(&mut self, node: NodeId, id: &str, event: fn(TaskId) -> ContainerEvent) {
        let lost = !self.healed && self.rng.per_mille(30);
        let delay = self.rng.between(1, 50);
        let Some(host) = self.hosts.get(&node).filter(|host| host.engine.up) else { return };
        let Some(container) = host.engine.containers.get(id) else { return };
        if lost {
            return self.counts.fault("container event lost");
        }
        let (boot, input) = (host.boot, Box::new(Input::Container(event(container.task))));
        self.after(delay, Event::Hear { node, boot, input });
    }

    pub(crate) fn list(&mut self, node: NodeId, boot: u64) {
        let Some(host) = self.hosts.get(&node) else { return };
        let engine = &host.engine;
        let result = if engine.up {
            let listed = |c: &Container| Listed { task: Some(c.task), state: c.state.clone() };
            Ok(engine.containers.values().map(listed).collect())
        } else {
            Err(EngineError::Unreachable("no answer".into()))
        };
        self.hear(node, boot, Input::Listed(result));
    }

    pub(crate) fn remove_stray(&mut self, node: NodeId, boot: u64, id: String) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let result = if host.engine.up {
            host.engine.containers.remove(&id);
            Ok(())
        } else {
            Err(EngineError::Unreachable("no answer".into()))
        };
        self.hear(node, boot, Input::StrayRemoved { id, result });
    }

    /// The agent looks at its engine soon.
    pub(crate) fn look_at_engine(&mut self, node: NodeId, delay_ms: u64, anew: bool) {
        if let Some(boot) = self.hosts.get(&node).map(|host| host.boot) {
            self.after(delay_ms, Event::Look { node, boot, anew });
        }
    }

    pub(crate) fn look(&mut self, node: NodeId, boot: u64, anew: bool) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.boot == boot) else { return };
        let (up, told) = (host.engine.up, host.engine.told);
        if told == Some(up) && !anew {
            return;
        }
        host.engine.told = Some(up);
        if up {
            let report = host.engine.report();
            self.hear(node, boot, Input::EngineUp(report));
            if anew {
                self.hear(node, boot, Input::EventsLost);
            }
        } else {
            self.hear(node, boot, Input::EngineDown("no answer".into()));
        }
    }

    /// The engine stops answering, with or without its containers.
    pub(crate) fn engine_outage(&mut self, node: NodeId, takes_containers: bool, ms: u64) {
        let notice = self.rng.between(10, 7_000);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.engine.up = false;
        if takes_containers {
            host.engine.stop_all();
        }
        self.look_at_engine(node, notice, false);
        self.after(ms, Event::EngineBack { node });
    }

    pub(crate) fn engine_back(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if !std::mem::replace(&mut host.engine.up, true) {
            let notice = self.rng.between(10, 1_000);
            self.look_at_engine(node, notice, true);
        }
    }
}

/// Puts the files of a task, as an executor does.
fn put_files(files: &mut BTreeSet<TaskId>, request: &ContainerRequest) {
    assert_eq!(request.objects.len(), request.task.needs.len(), "a task is prepared when what it needs is there");
    if !request.objects.is_empty() {
        files.insert(request.task.id);
    }
}
