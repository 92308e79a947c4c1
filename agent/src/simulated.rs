//! A container engine in memory: no processes, no images, no network. For demos without Docker, simulations and tests.
//!
//! Rules:
//! * every image is there, but those whose name starts with `missing` (after the last `/`);
//! * a container runs until it is stopped (exit code 0) or killed from outside ([`SimulatedExecutor::kill`]);
//! * an image with the tag `broken` exits with code 1, one with the tag `once` with code 0, right after the start;
//! * a container with a health check is healthy at once, with the tag `unhealthy` it turns unhealthy instead;
//! * a host-mode port without a number gets the next one from 32768; nobody listens on it.
//!
//! Networks, mounts and limits are taken and ignored.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use swarm_model::{EngineDescription, NodeId, NodeResources, Platform, PortStatus, PublishMode, TaskId, Timestamp};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::executor::{
    ContainerEvent, ContainerRequest, EngineError, EngineReport, Executor, Exited, Health, Listed, LogLine,
    LogSelection, Observed, Running,
};

/// What a simulated host has, unless the node says otherwise: enough for any demo.
const CPUS: i64 = 16;
const MEMORY_BYTES: i64 = 64 << 30;
/// First port that is given out, as in Linux.
const FIRST_PORT: u16 = 32_768;
/// Events that a slow listener may miss before it has to list again.
const EVENTS_MAX: usize = 1024;

#[derive(Debug)]
struct Container {
    node: NodeId,
    task: TaskId,
    name: String,
    tag: String,
    health_check: bool,
    ports: Vec<PortStatus>,
    state: Observed,
    log: Vec<(Timestamp, String)>,
}

#[derive(Debug, Default)]
struct World {
    containers: BTreeMap<String, Container>,
    /// The id of the container that a task has on a node.
    ids: BTreeMap<(TaskId, NodeId), String>,
    next_id: u64,
    next_port: u16,
    /// Containers that were started so far; the number of a start stands for its time.
    starts: i64,
    silent: bool,
}

/// See the module. Clones share their containers, so that an agent can be stopped and started again on them.
#[derive(Clone, Debug)]
pub struct SimulatedExecutor {
    world: Arc<Mutex<World>>,
    events: broadcast::Sender<(NodeId, ContainerEvent)>,
}

impl Default for SimulatedExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedExecutor {
    /// An engine without containers.
    pub fn new() -> Self {
        Self { world: Arc::default(), events: broadcast::channel(EVENTS_MAX).0 }
    }

    /// Ends the container of a task as if from outside. Says whether it ran.
    pub fn kill(&self, task: TaskId, exit_code: i64) -> bool {
        let mut world = self.lock();
        let Some((_, container)) = world.of_task(task) else { return false };
        let ran = container.end(exit_code);
        let node = container.node;
        drop(world);
        self.tell(node, ContainerEvent::Changed(task));
        ran
    }

    /// Starts the container of a task as if from outside, after it has ended. Says whether it did.
    pub fn start_again(&self, task: TaskId) -> bool {
        let mut world = self.lock();
        let Some((node, started)) = world.start_again(task) else { return false };
        drop(world);
        self.tell(node, ContainerEvent::Started(task));
        started
    }

    /// Restarts the container of a task as if from outside. It stops with exit code 0. Says whether it ran.
    pub fn restart(&self, task: TaskId) -> bool {
        if !self.kill(task, 0) {
            return false;
        }
        let Some((node, started)) = self.lock().start_again(task) else { return false };
        self.tell(node, ContainerEvent::Started(task));
        self.tell(node, ContainerEvent::Restarted(task));
        started
    }

    /// Makes the engine answer nothing, or answer again.
    pub fn set_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Tasks of a node whose containers run.
    pub fn running(&self, node: NodeId) -> Vec<TaskId> {
        let runs = |c: &&Container| c.node == node && matches!(c.state, Observed::Running(_));
        self.lock().containers.values().filter(runs).map(|c| c.task).collect()
    }

    /// Number of containers of a node, running or not.
    pub fn count(&self, node: NodeId) -> usize {
        self.lock().containers.values().filter(|c| c.node == node).count()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // Nothing in here panics half-way through a change.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, node: NodeId, event: ContainerEvent) {
        // Nobody may be listening.
        let _ = self.events.send((node, event));
    }

    /// Answers at once, or not at all.
    fn answer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut World) -> Result<T, EngineError>,
    ) -> BoxFuture<'static, Result<T, EngineError>> {
        let mut world = self.lock();
        if world.silent {
            return future::ready(Err(EngineError::Unreachable("the simulated engine is silent".into()))).boxed();
        }
        future::ready(work(&mut world)).boxed()
    }
}

impl Container {
    fn end(&mut self, exit_code: i64) -> bool {
        let Observed::Running(running) = &self.state else { return false };
        let (id, started_at) = (running.id.clone(), running.started_at);
        self.state = Observed::Exited(Exited { id, started_at, exit_code, ..Exited::default() });
        self.log.push((swarm_wire::clock::now(), format!("ended with code {exit_code}\n")));
        true
    }
}

impl World {
    fn state(&self, id: &str) -> Observed {
        self.containers.get(id).map_or(Observed::Absent, |c| c.state.clone())
    }

    fn find(&self, request: &ContainerRequest) -> Observed {
        let id = self.ids.get(&(request.task.id, request.node.id));
        let container = id.and_then(|id| self.containers.get(id)).filter(|c| c.name == request.name());
        container.map_or(Observed::Absent, |c| c.state.clone())
    }

    /// The container of a task, on whatever node, with its id.
    fn of_task(&mut self, task: TaskId) -> Option<(String, &mut Container)> {
        let (_, id) = self.ids.range((task, NodeId(0))..=(task, NodeId(u128::MAX))).next()?;
        let id = id.clone();
        self.containers.get_mut(&id).map(|container| (id, container))
    }

    fn create(&mut self, request: &ContainerRequest) -> Result<Observed, EngineError> {
        let spec = &request.spec.task.container_spec;
        let found = self.find(request);
        if found != Observed::Absent {
            return Ok(found);
        }
        let base = spec.image.rsplit('/').next().unwrap_or_default();
        if base.starts_with("missing") {
            return Err(EngineError::Fatal(format!("No such image: {}", spec.image)));
        }
        let tag = base.split('@').next().and_then(|b| b.split_once(':')).map_or("latest", |(_, tag)| tag);
        self.next_id += 1;
        let id = format!("{:064x}", self.next_id);
        let state = Observed::Created { id: id.clone() };
        let host_ports = request.spec.ports.iter().filter(|p| p.publish_mode == PublishMode::Host);
        let ports = host_ports
            .map(|p| PortStatus {
                protocol: p.protocol,
                target_port: p.target_port,
                published_port: if p.published_port == 0 {
                    self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT).max(FIRST_PORT);
                    self.next_port
                } else {
                    p.published_port
                },
            })
            .collect();
        let health_check = spec.healthcheck.as_ref().is_some_and(|h| h.test.first().is_some_and(|t| t != "NONE"));
        let container = Container {
            node: request.node.id,
            task: request.task.id,
            name: request.name(),
            tag: tag.to_owned(),
            health_check,
            ports,
            state: state.clone(),
            log: Vec::new(),
        };
        self.ids.insert((container.task, container.node), id.clone());
        self.containers.insert(id, container);
        Ok(state)
    }

    fn start_again(&mut self, task: TaskId) -> Option<(NodeId, bool)> {
        let started_at = Timestamp(self.starts + 1);
        let (id, c) = self.of_task(task)?;
        let ended = matches!(c.state, Observed::Exited(_));
        let node = c.node;
        if ended {
            c.state = Observed::Running(Running { id, started_at, pid: 1, ..Running::default() });
            self.starts += 1;
        }
        Some((node, ended))
    }

    fn start(&mut self, id: &str) -> (Observed, Option<(NodeId, TaskId)>) {
        let Some(c) = self.containers.get_mut(id) else { return (Observed::Absent, None) };
        if !matches!(c.state, Observed::Created { .. }) {
            return (c.state.clone(), None);
        }
        let health = match (c.health_check, c.tag.as_str()) {
            (true, "unhealthy") => Health::Unhealthy,
            (true, _) => Health::Healthy,
            (false, _) => Health::None,
        };
        self.starts += 1;
        let started_at = Timestamp(self.starts);
        let running =
            Running { id: id.to_owned(), started_at, pid: 1, health, ports: c.ports.clone(), ..Running::default() };
        c.state = Observed::Running(running);
        c.log.push((swarm_wire::clock::now(), format!("{} runs\n", c.name)));
        let started = c.state.clone();
        match c.tag.as_str() {
            "broken" => c.end(1),
            "once" => c.end(0),
            _ => return (started, None),
        };
        // The caller sees it start; the event says that it ended.
        (started, Some((c.node, c.task)))
    }
}

impl Executor for SimulatedExecutor {
    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        self.answer(|_| Ok(()))
    }

    fn describe(&self) -> BoxFuture<'_, Result<EngineReport, EngineError>> {
        self.answer(|_| {
            Ok(EngineReport {
                platform: Platform { architecture: std::env::consts::ARCH.into(), os: "linux".into() },
                resources: NodeResources {
                    nano_cpus: CPUS * 1_000_000_000,
                    memory_bytes: MEMORY_BYTES,
                    ..NodeResources::default()
                },
                engine_id: String::new(),
                engine: EngineDescription { engine_version: "simulated".into(), ..EngineDescription::default() },
            })
        })
    }

    fn list(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<Listed>, EngineError>> {
        self.answer(|world| {
            let ours = world.containers.values().filter(|c| c.node == node);
            Ok(ours.map(|c| Listed { task: Some(c.task), state: c.state.clone() }).collect())
        })
    }

    fn events(&self, node: NodeId, _since: Timestamp) -> BoxStream<'static, ContainerEvent> {
        stream::unfold(self.events.subscribe(), move |mut events| async move {
            loop {
                match events.recv().await {
                    Ok((n, event)) if n == node => return Some((event, events)),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        })
        .boxed()
    }

    fn inspect(&self, request: ContainerRequest) -> BoxFuture<'_, Result<Observed, EngineError>> {
        self.answer(|world| Ok(world.find(&request)))
    }

    fn prepare(
        &self,
        request: ContainerRequest,
        _cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Observed, EngineError>> {
        self.answer(|world| world.create(&request))
    }

    fn start(&self, id: String) -> BoxFuture<'_, Result<Observed, EngineError>> {
        let mut ended = None;
        let answer = self.answer(|world| {
            let (state, end) = world.start(&id);
            ended = end;
            Ok(state)
        });
        if let Some((node, task)) = ended {
            self.tell(node, ContainerEvent::Changed(task));
        }
        answer
    }

    fn stop(&self, id: String, _grace_secs: u32) -> BoxFuture<'_, Result<Observed, EngineError>> {
        self.answer(|world| {
            if let Some(container) = world.containers.get_mut(&id) {
                container.end(0);
            }
            Ok(world.state(&id))
        })
    }

    fn remove(&self, id: String, _grace_secs: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        let events = self.events.clone();
        self.answer(move |world| {
            if let Some(container) = world.containers.remove(&id) {
                world.ids.remove(&(container.task, container.node));
                // Nobody may be listening.
                let _ = events.send((container.node, ContainerEvent::Changed(container.task)));
            }
            Ok(())
        })
    }

    fn logs(&self, id: String, selection: LogSelection) -> BoxStream<'static, Result<LogLine, EngineError>> {
        let world = self.lock();
        let Some(container) = world.containers.get(&id).filter(|_| selection.stdout) else {
            return stream::empty().boxed();
        };
        let lines: Vec<_> = container.log.iter().filter(|(at, _)| *at >= selection.since).cloned().collect();
        let skip = selection.tail.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
        let past = stream::iter(lines.into_iter().skip(skip))
            .map(|(at, text)| Ok(LogLine { stderr: false, at, data: Bytes::from(text) }));
        let runs = matches!(container.state, Observed::Running(_));
        if !(selection.follow && runs) {
            return past.boxed();
        }
        // Nothing more is said until the container ends.
        let (task, events) = (container.task, self.events(container.node, Timestamp::ZERO));
        let ended = move |e: &ContainerEvent| future::ready(*e == ContainerEvent::Changed(task));
        let end = events.filter(ended).take(1).filter_map(|_| future::ready(None));
        past.chain(end).boxed()
    }
}
