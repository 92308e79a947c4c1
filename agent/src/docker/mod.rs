//! The Docker Engine, through bollard. Its types stay in this module.
//!
//! Only what the engine of API 1.41 knows is sent (Docker 20.10, the oldest that is tested). Each call has a deadline
//! and shares the engine with a bounded number of others, so that a hung engine costs bounded memory and nothing else.

mod attached;
mod create;
mod files;
mod folder;
mod image;
mod logs;
mod networks;
mod observe;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as BollardError,
    models::{EventMessage, GenericResourcesInner, SystemInfo},
    query_parameters::{
        CreateContainerOptions, EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
        RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    },
};
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use swarm_docker_api::logs::{NODE_KEY as LABEL_NODE, TASK_KEY as LABEL_TASK};
use swarm_model::{
    EngineDescription, EnginePlugin, GenericResource, Labels, NodeId, NodeResources, ObjectId, Platform, TaskId,
    Timestamp,
};
use swarm_wire::agent::AssignedObject;
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use folder::Folder;

use crate::executor::{
    AttachedContainer, ContainerEvent, ContainerRequest, EngineError, EnginePart, EngineReport, Executor, Listed,
    LogLine, LogSelection, Observed,
};

/// Creations at the same time: more do not make an engine faster, its own locks see to that.
const CREATES_MAX: usize = 8;
/// Starts at the same time. They have turns of their own: behind all creations, the first task of fifty would run only
/// once the last one is created.
const STARTS_MAX: usize = 8;
/// Stops at the same time. Most of a stop is waiting for the process, so a drained node may have many.
const STOPS_MAX: usize = 128;
/// Inspections and listings at the same time.
const READS_MAX: usize = 16;

/// Is the engine there? It answers in a millisecond.
const PING_TIME_MAX: Duration = Duration::from_secs(5);
/// Inspect, list.
const READ_TIME_MAX: Duration = Duration::from_secs(30);
/// Create, start: seconds on a very busy host.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(120);
/// What stop and remove may take beyond the grace.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
/// bollard's own limit, above all of ours: pulls answer late.
const CLIENT_TIME_MAX_SECS: u64 = 24 * 3600;

/// What an engine that is shutting down, or has lost its containerd, says with a status of 500. The container is not
/// to blame.
const ENGINE_TROUBLE: [&str; 4] =
    ["context canceled", "transport is closing", "the connection is unavailable", "containerd.sock: connect:"];

/// Why tasks with secrets or configs cannot run on an engine that maps users.
const MAPS_USERS: &str = "secrets and configs need an engine without user namespaces: this one has userns-remap, or runs \
                          without root";

/// An address that no engine can have.
#[derive(Debug, Error)]
#[error("the engine address \"{0}\" is not supported; give a Unix socket, for example unix:///var/run/docker.sock")]
pub struct BadEngineAddress(String);

/// See the module.
#[derive(Debug)]
pub struct DockerExecutor {
    socket: String,
    client: Mutex<Option<Docker>>,
    files_dir: PathBuf,
    /// Whether the engine maps the users of containers to others: they could not read files that belong to root.
    maps_users: AtomicBool,
    images: image::Images,
    creates: Semaphore,
    starts: Semaphore,
    stops: Semaphore,
    reads: Semaphore,
    /// Held while the engine's part of a network is looked for and made.
    networks: tokio::sync::Mutex<()>,
}

impl DockerExecutor {
    /// The engine at an address like `unix:///var/run/docker.sock`. It need not be there yet. The files of a node's tasks lie
    /// in a folder for each node inside `files_dir`, which the engine has to see under the same path.
    ///
    /// # Errors
    /// An address that is not a Unix socket.
    pub fn new(address: &str, files_dir: PathBuf) -> Result<Self, BadEngineAddress> {
        let socket = address.strip_prefix("unix://").filter(|path| path.starts_with('/'));
        Ok(Self {
            socket: socket.ok_or_else(|| BadEngineAddress(address.into()))?.into(),
            client: Mutex::default(),
            files_dir,
            maps_users: AtomicBool::new(false),
            images: image::Images::default(),
            creates: Semaphore::new(CREATES_MAX),
            starts: Semaphore::new(STARTS_MAX),
            stops: Semaphore::new(STOPS_MAX),
            reads: Semaphore::new(READS_MAX),
            networks: tokio::sync::Mutex::default(),
        })
    }

    /// The client; made at its first use, since bollard wants to see the socket.
    fn client(&self) -> Result<Docker, EngineError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if client.is_none() {
            let made = Docker::connect_with_unix(&self.socket, CLIENT_TIME_MAX_SECS, API_DEFAULT_VERSION);
            *client = Some(made.map_err(|e| EngineError::Unreachable(e.to_string()))?);
        }
        client.clone().ok_or_else(|| EngineError::Unreachable(format!("there is no socket {}", self.socket)))
    }

    /// One call: waits for its turn, then has so much time.
    async fn call<T, F>(
        &self,
        turns: &Semaphore,
        time_max: Duration,
        work: impl FnOnce(Docker) -> F + Send,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, BollardError>> + Send,
    {
        let _turn = turns.acquire().await.map_err(|e| EngineError::Temporary(e.to_string()))?;
        let client = self.client()?;
        match timeout(time_max, work(client)).await {
            Ok(result) => result.map_err(engine_error),
            Err(_) => Err(EngineError::Unreachable(format!("no answer in {} s", time_max.as_secs()))),
        }
    }

    /// Inspects a container by id or name; none if there is no such container.
    async fn look(&self, id: &str) -> Result<Option<bollard::models::ContainerInspectResponse>, EngineError> {
        self.call(&self.reads, READ_TIME_MAX, |d| async move {
            missing_is_none(d.inspect_container(id, None::<InspectContainerOptions>).await)
        })
        .await
    }

    async fn observe(&self, id: &str) -> Result<Observed, EngineError> {
        Ok(self.look(id).await?.map_or(Observed::Absent, |c| observe::inspected(&c)))
    }

    async fn find(&self, request: &ContainerRequest) -> Result<Observed, EngineError> {
        let found = self.look(&request.name()).await?;
        let ours = found.filter(|c| observe::is_ours(c, request));
        Ok(ours.map_or(Observed::Absent, |c| observe::inspected(&c)))
    }

    async fn create(&self, request: &ContainerRequest) -> Result<Observed, EngineError> {
        let mut body = create::body(request, &self.folder(request.node.id)).map_err(EngineError::Fatal)?;
        let endpoints = self.provide_networks(request).await?;
        if let Some((network, config)) = networks::first(&endpoints) {
            body.host_config.get_or_insert_default().network_mode = Some(network);
            body.networking_config = Some(config);
        }
        let name = request.name();
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let created = self
            .call(&self.creates, CHANGE_TIME_MAX, |d| async move {
                match d.create_container(Some(options), body).await {
                    Ok(created) => Ok(Some(created.id)),
                    Err(BollardError::DockerResponseServerError { status_code: 409, .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await
            .map_err(networks::or_provide_again)?;
        let found = match created {
            Some(id) => Observed::Created { id },
            None => self.find(request).await?,
        };
        match &found {
            Observed::Absent => {
                return Err(EngineError::Fatal(format!(
                    "the name {name} is in use by a container that does not belong to this task; remove that container"
                )));
            }
            // An agent that ended in between has left the rest to this one.
            Observed::Created { id } => self.connect_networks(id, endpoints).await?,
            _ => {}
        }
        Ok(found)
    }

    /// The folder of the files of a node's tasks.
    fn folder(&self, node: NodeId) -> Folder {
        Folder::new(&self.files_dir, node)
    }

    /// Puts the files of a task in their place.
    async fn provide_files(&self, request: &ContainerRequest) -> Result<(), EngineError> {
        let files = files::task_files(request).map_err(EngineError::Fatal)?;
        if files.is_empty() {
            return Ok(());
        }
        if self.maps_users.load(Ordering::Relaxed) {
            return Err(EngineError::Fatal(MAPS_USERS.into()));
        }
        let (folder, task) = (self.folder(request.node.id), request.task.id);
        off_the_runtime(move || folder.put(task, &files)).await?
    }

    async fn info(&self) -> Result<SystemInfo, EngineError> {
        let work = async {
            // Lowers the API version of all clones to the engine's.
            let client = self.client()?.negotiate_version().await.map_err(engine_error)?;
            client.info().await.map_err(engine_error)
        };
        timeout(PING_TIME_MAX, work).await.unwrap_or_else(|_| Err(no_answer(PING_TIME_MAX)))
    }
}

fn no_answer(time_max: Duration) -> EngineError {
    EngineError::Unreachable(format!("no answer in {} s", time_max.as_secs()))
}

fn engine_error(error: BollardError) -> EngineError {
    match error {
        BollardError::DockerResponseServerError { status_code, message } => match status_code {
            503 => EngineError::Temporary(message),
            500.. if ENGINE_TROUBLE.iter().any(|t| message.contains(t)) => EngineError::Unreachable(message),
            _ => EngineError::Fatal(message),
        },
        BollardError::DockerStreamError { error } => EngineError::Fatal(error),
        error @ (BollardError::JsonDataError { .. } | BollardError::JsonSerdeError { .. }) => {
            EngineError::Temporary(error.to_string())
        }
        error => EngineError::Unreachable(with_causes(&error)),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let more = c.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = c.source();
    }
    text
}

fn missing_is_none<T>(result: Result<T, BollardError>) -> Result<Option<T>, BollardError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn filters<const N: usize>(pairs: [(&str, Vec<String>); N]) -> BTreeMap<String, Vec<String>> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

impl Executor for DockerExecutor {
    fn ping(&self) -> BoxFuture<'_, Result<(), EngineError>> {
        async {
            let client = self.client()?;
            match timeout(PING_TIME_MAX, client.ping()).await {
                Ok(result) => result.map(drop).map_err(engine_error),
                Err(_) => Err(no_answer(PING_TIME_MAX)),
            }
        }
        .boxed()
    }

    fn describe(&self) -> BoxFuture<'_, Result<EngineReport, EngineError>> {
        async {
            let info = self.info().await?;
            self.maps_users.store(maps_users(&info), Ordering::Relaxed);
            Ok(report(info))
        }
        .boxed()
    }

    fn list(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<Listed>, EngineError>> {
        async move {
            let label = filters([("label", vec![format!("{LABEL_NODE}={node}")])]);
            let options = ListContainersOptionsBuilder::new().all(true).filters(&label.into_iter().collect()).build();
            let listed = self
                .call(&self.reads, READ_TIME_MAX, |d| async move { d.list_containers(Some(options)).await })
                .await?;
            Ok(listed.iter().map(observe::listed).collect())
        }
        .boxed()
    }

    fn events(&self, node: NodeId, since: Timestamp) -> BoxStream<'static, ContainerEvent> {
        let Ok(client) = self.client() else { return stream::empty().boxed() };
        let only = filters([
            ("type", vec!["container".into()]),
            ("label", vec![format!("{LABEL_NODE}={node}")]),
            ("event", ["die", "health_status", "destroy", "start", "restart"].map(str::to_owned).into()),
        ]);
        let since = format!("{}.{:09}", since.0.div_euclid(1_000_000_000), since.0.rem_euclid(1_000_000_000));
        let of_networks = filters([
            ("type", ["network", "container"].map(str::to_owned).into()),
            ("event", ["connect", "disconnect", "destroy", "rename"].map(str::to_owned).into()),
        ]);
        let follow = |only: BTreeMap<String, Vec<String>>, told: fn(&EventMessage) -> Option<ContainerEvent>| {
            let options = EventsOptionsBuilder::new().since(&since).filters(&only.into_iter().collect()).build();
            let events = client.events(Some(options)).take_while(|event| future::ready(event.is_ok()));
            let told =
                events.filter_map(move |event| future::ready(event.ok().and_then(|event| told(&event)).map(Some)));
            // The end of one stream of events is the end of both.
            told.chain(stream::iter([None]))
        };
        let all = stream::select(follow(only, told), follow(of_networks, attached::told));
        all.take_while(|event| future::ready(event.is_some())).filter_map(future::ready).boxed()
    }

    fn inspect(&self, request: ContainerRequest) -> BoxFuture<'_, Result<Observed, EngineError>> {
        async move { self.find(&request).await }.boxed()
    }

    fn prepare(
        &self,
        request: ContainerRequest,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<Observed, EngineError>> {
        async move {
            create::check(&request, &self.folder(request.node.id)).map_err(EngineError::Fatal)?;
            self.provide_files(&request).await?;
            let client = self.client()?;
            let image = &request.spec.task.container_spec.image;
            tokio::select! {
                result = self.images.provide(&client, image, request.spec.registry_auth.as_ref()) => result?,
                () = cancel.cancelled() => return Err(EngineError::Cancelled),
            }
            self.create(&request).await
        }
        .boxed()
    }

    fn start(&self, id: String) -> BoxFuture<'_, Result<Observed, EngineError>> {
        async move {
            let name = id.as_str();
            let started = self
                .call(&self.starts, CHANGE_TIME_MAX, |d| async move {
                    missing_is_none(d.start_container(name, None::<StartContainerOptions>).await)
                })
                .await;
            match started {
                // One look tells the process id and the ports, and whether it is already over.
                Ok(_) => self.observe(&id).await,
                Err(EngineError::Fatal(reason)) => {
                    let reason = format!("starting container failed: {reason}");
                    let state = self.look(&id).await.ok().flatten().and_then(|container| container.state);
                    match state.and_then(|state| state.exit_code).filter(|code| *code != 0) {
                        Some(exit_code) => Err(EngineError::NotStarted { reason, exit_code }),
                        None => Err(EngineError::Fatal(reason)),
                    }
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn stop(&self, id: String, grace_secs: u32) -> BoxFuture<'_, Result<Observed, EngineError>> {
        async move {
            let name = id.as_str();
            let time_max = STOP_TIME_MAX + Duration::from_secs(grace_secs.into());
            let options = StopContainerOptionsBuilder::new().t(i32::try_from(grace_secs).unwrap_or(i32::MAX)).build();
            self.call(&self.stops, time_max, |d| async move {
                missing_is_none(d.stop_container(name, Some(options)).await)
            })
            .await?;
            self.observe(&id).await
        }
        .boxed()
    }

    fn remove(&self, id: String, grace_secs: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        async move {
            let name = id.as_str();
            let time_max = STOP_TIME_MAX + Duration::from_secs(grace_secs.into());
            let stop = StopContainerOptionsBuilder::new().t(i32::try_from(grace_secs).unwrap_or(i32::MAX)).build();
            // Kills what did not stop, and takes anonymous volumes along (swarm-behaviour §7.3).
            let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            self.call(&self.stops, time_max, |d| async move {
                if missing_is_none(d.stop_container(name, Some(stop)).await)?.is_some() {
                    missing_is_none(d.remove_container(name, Some(remove)).await)?;
                }
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn put_files(&self, request: ContainerRequest) -> BoxFuture<'_, Result<(), EngineError>> {
        async move { self.provide_files(&request).await }.boxed()
    }

    fn drop_files(&self, node: NodeId, task: TaskId) -> BoxFuture<'_, ()> {
        let folder = self.folder(node);
        off_the_runtime(move || folder.drop_files(task)).map(drop).boxed()
    }

    fn keep_files(&self, node: NodeId, tasks: Vec<TaskId>) -> BoxFuture<'_, ()> {
        let folder = self.folder(node);
        off_the_runtime(move || folder.keep(&tasks)).map(drop).boxed()
    }

    fn keep_networks(&self, networks: Vec<ObjectId>) -> BoxFuture<'_, Result<(), EngineError>> {
        async move { self.remove_networks_but(&networks).await }.boxed()
    }

    fn provide_network(&self, network: Arc<AssignedObject>) -> BoxFuture<'_, Result<EnginePart, EngineError>> {
        async move {
            let attachment = networks::Attachment::of(&network).map_err(EngineError::Fatal)?;
            self.provide_network(&attachment).await
        }
        .boxed()
    }

    fn attached(&self) -> BoxFuture<'_, Result<Vec<AttachedContainer>, EngineError>> {
        self.attached_containers().boxed()
    }

    fn detach(&self, network: ObjectId, container: String) -> BoxFuture<'_, Result<(), EngineError>> {
        self.disconnect(network, container).boxed()
    }

    fn logs(&self, id: String, selection: LogSelection) -> BoxStream<'static, Result<LogLine, EngineError>> {
        match self.client() {
            Ok(client) => logs::lines(client, id, selection),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

/// Work on files, where it may wait.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| EngineError::Temporary(error.to_string()))
}

/// Security options are texts like `name=userns`.
fn maps_users(info: &SystemInfo) -> bool {
    let options = info.security_options.iter().flatten();
    options.flat_map(|option| option.split(',')).any(|part| part == "name=userns" || part == "name=rootless")
}

fn told(event: &EventMessage) -> Option<ContainerEvent> {
    let task: TaskId = event.actor.as_ref()?.attributes.as_ref()?.get(LABEL_TASK)?.parse().ok()?;
    Some(match event.action.as_deref() {
        Some("start") => ContainerEvent::Started(task),
        Some("die") => ContainerEvent::Ended(task),
        Some("restart") => ContainerEvent::Restarted(task),
        _ => ContainerEvent::Changed(task),
    })
}

/// What the engine was told to offer (`node-generic-resources` of its configuration).
fn generic(resources: Vec<GenericResourcesInner>) -> Vec<GenericResource> {
    let one = |resource: GenericResourcesInner| {
        let named = resource.named_resource_spec.and_then(|r| Some((r.kind?, r.value?)));
        let counted = resource.discrete_resource_spec.and_then(|r| Some((r.kind?, r.value?)));
        named
            .map(|(kind, value)| GenericResource::Named { kind, value })
            .or(counted.map(|(kind, value)| GenericResource::Discrete { kind, value }))
    };
    resources.into_iter().filter_map(one).collect()
}

/// Engine labels come as `key=value` texts.
fn report(info: SystemInfo) -> EngineReport {
    let labels: Labels = info
        .labels
        .unwrap_or_default()
        .iter()
        .map(|l| l.split_once('=').unwrap_or((l, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let plugins = info.plugins.unwrap_or_default();
    let kinds = BTreeMap::from([("Log", plugins.log), ("Network", plugins.network), ("Volume", plugins.volume)]);
    let mut plugins: Vec<_> = kinds
        .into_iter()
        .flat_map(|(kind, names)| {
            names.unwrap_or_default().into_iter().map(move |name| EnginePlugin { kind: kind.into(), name })
        })
        .collect();
    plugins.sort_by(|a, b| (&a.kind, &a.name).cmp(&(&b.kind, &b.name)));
    EngineReport {
        engine_id: info.id.unwrap_or_default(),
        platform: Platform {
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
        },
        resources: NodeResources {
            nano_cpus: info.ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
            memory_bytes: info.mem_total.unwrap_or_default(),
            generic_resources: generic(info.generic_resources.unwrap_or_default()),
        },
        engine: EngineDescription { engine_version: info.server_version.unwrap_or_default(), labels, plugins },
    }
}
