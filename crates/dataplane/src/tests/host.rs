//! A host for tests: a data plane, what swarmd says to it, and tasks that serve.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use swarm_model::{Ingress, NodeId, PortProtocol, ServiceId, TaskId, WarningCause};
use swarm_wire::{
    BoxedStream, NodeIdentity, Receiver, Sender, TlsError,
    agent::Shared,
    channel,
    endpoints::{
        EndpointRecord, EndpointState, NodeRecord, PublishedPort, Record, RecordHash, RecordKey, ServiceRecord,
        TableChange, TableUpdate, TableVersion, batches,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Control, Holding,
    link::Silent,
    process::{Options, serve},
    protocol::{Configuration, FromData, IngressAddr, LocalTask, ToData},
    remote::{Arrival, OpenError, OpenRequest, Opening, Probing, Remote},
    testing::{eventually, soon, until},
};

/// The node of the data plane under test.
pub(super) const OWN: NodeId = NodeId(1);
/// Another node.
pub(super) const OTHER: NodeId = NodeId(2);
/// The service of most tests, and its port.
pub(super) const WEB: ServiceId = ServiceId(7);
pub(super) const PORT: u16 = 8080;
pub(super) const TARGET: u16 = 8081;

/// An address of this host that no other test has.
pub(super) fn fresh_addr() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(2);
    let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let [_, _, c, d] = (n % 60_000).to_be_bytes();
    Ipv4Addr::new(127, 1 + (pid % 250) as u8, c, d).into()
}

pub(super) fn udp(published: u16) -> PublishedPort {
    PublishedPort { protocol: PortProtocol::Udp, published, target: TARGET }
}

pub(super) fn tcp(published: u16) -> PublishedPort {
    PublishedPort { protocol: PortProtocol::Tcp, published, target: TARGET }
}

/// The records of a table.
#[derive(Clone, Default)]
pub(super) struct Table {
    records: BTreeMap<RecordKey, Shared<Record>>,
    revision: u64,
    /// For the services from now on.
    pub(super) ingress: Ingress,
}

impl Table {
    /// Both nodes, and the service with its port.
    pub(super) fn new() -> Self {
        let mut table = Self::default();
        for id in [OWN, OTHER] {
            table.put(Record::Node(NodeRecord { id, data_addr: ([127, 0, 0, 1], 7946).into() }));
        }
        table.service(WEB, vec![tcp(PORT)]);
        table
    }

    pub(super) fn put(&mut self, record: Record) {
        self.records.insert(record.key(), Shared::new(&record).unwrap());
    }

    pub(super) fn service(&mut self, id: ServiceId, ports: Vec<PublishedPort>) {
        let ingress = self.ingress.clone();
        self.put(Record::Service(ServiceRecord { id, name: format!("s{}", id.0), ports, ingress }));
    }

    pub(super) fn endpoint(&mut self, task: TaskId, node: NodeId, state: EndpointState) {
        self.put(Record::Endpoint(EndpointRecord { task, service: WEB, node, state }));
    }

    pub(super) fn remove(&mut self, key: RecordKey) {
        self.records.remove(&key);
    }

    pub(super) fn version(&self) -> TableVersion {
        let digest = self.records.values().fold(0, |digest, record| RecordHash::of(record).added_to(digest));
        TableVersion { revision: self.revision, digest }
    }

    /// The whole table.
    pub(super) fn updates(&mut self) -> Vec<TableUpdate> {
        self.revision += 1;
        let puts = self.records.values().map(|record| TableChange::Put(record.clone())).collect();
        batches(true, self.version(), puts)
    }
}

/// A connection of swarmd.
pub(super) struct Swarmd {
    sender: Sender<WriteHalf<UnixStream>, ToData>,
    receiver: Receiver<ReadHalf<UnixStream>, FromData>,
    /// The warnings that were said last.
    pub(super) warnings: Vec<String>,
    /// Their causes.
    pub(super) causes: Vec<WarningCause>,
}

impl Swarmd {
    /// Connects to a data plane, and takes the greeting.
    pub(super) async fn greet(path: &Path) -> (Self, Option<TableVersion>) {
        let stream = eventually(async || UnixStream::connect(path).await).await;
        let (sender, receiver) = channel(stream);
        let mut swarmd = Self { sender, receiver, warnings: Vec::new(), causes: Vec::new() };
        match swarmd.hear().await {
            Some(FromData::Hello { table, .. }) => (swarmd, table),
            other => panic!("no greeting: {other:?}"),
        }
    }

    pub(super) async fn say(&mut self, message: ToData) {
        self.sender.send(&message).await.unwrap();
    }

    /// The next message; none when the data plane closed the connection.
    pub(super) async fn hear(&mut self) -> Option<FromData> {
        let message = soon(self.receiver.recv()).await.ok().flatten();
        if let Some(FromData::Warnings(warnings)) = &message {
            self.warnings = warnings.iter().map(|warning| warning.text.clone()).collect();
            self.causes = warnings.iter().map(|warning| warning.cause).collect();
        }
        message
    }

    /// Hears until a message is the one that is looked for.
    pub(super) async fn hear_of<T>(&mut self, mut pick: impl FnMut(&FromData) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("the data plane is gone");
            if let Some(found) = pick(&message) {
                return found;
            }
        }
    }

    /// Says a table, and waits until it is applied. Returns what was said meanwhile.
    pub(super) async fn apply(&mut self, table: &mut Table) -> Vec<FromData> {
        for update in table.updates() {
            self.say(ToData::Table(update)).await;
        }
        let mut heard = Vec::new();
        loop {
            match self.hear().await.expect("the data plane is gone") {
                FromData::Applied(version) if version == table.version() => return heard,
                FromData::Refused { reason } => panic!("refused: {reason}"),
                other => heard.push(other),
            }
        }
    }

    pub(super) async fn stats(&mut self) -> crate::protocol::Stats {
        self.say(ToData::Stats).await;
        self.hear_of(|message| match message {
            FromData::Stats(stats) => Some(stats.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the warnings are as wanted.
    pub(super) async fn warned(&mut self, mut wanted: impl FnMut(&[String]) -> bool) {
        while !wanted(&self.warnings) {
            self.hear().await.expect("the data plane is gone");
        }
    }
}

/// How a data plane of tests runs.
#[derive(Clone, Copy, Default)]
struct Setup {
    holding: Holding,
    shows_clients: bool,
    descriptors_max: Option<usize>,
}

/// A data plane with its folder.
pub(super) struct Host {
    pub(super) addr: IpAddr,
    setup: Setup,
    folder: Arc<tempfile::TempDir>,
    pub(super) process: JoinHandle<anyhow::Result<()>>,
    pub(super) stop: CancellationToken,
    pub(super) links: Arc<Links>,
    pub(super) arrivals: mpsc::Sender<Stream>,
}

impl Host {
    pub(super) async fn start() -> Self {
        Self::start_with(Holding::default()).await
    }

    pub(super) async fn start_with(holding: Holding) -> Self {
        Self::start_as(fresh_addr(), Setup { holding, ..Setup::default() }).await
    }

    /// With this limit of open files.
    pub(super) async fn start_within(descriptors_max: usize) -> Self {
        let setup = Setup { descriptors_max: Some(descriptors_max), ..Setup::default() };
        Self::start_as(fresh_addr(), setup).await
    }

    /// Whose tasks see the clients' own addresses.
    pub(super) async fn start_showing_clients(addr: IpAddr) -> Self {
        Self::start_as(addr, Setup { shows_clients: true, ..Setup::default() }).await
    }

    async fn start_as(addr: IpAddr, setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let path = folder.path().join("data.sock");
        let host = Self::run(addr, Arc::new(folder), false, setup);
        until(|| path.exists()).await;
        host
    }

    /// Starts another process that takes over, and waits until it has.
    pub(super) async fn take_over(&self) -> Self {
        let next = Self::run(self.addr, Arc::clone(&self.folder), true, self.setup);
        until(|| self.links.is_retired.load(Ordering::Relaxed)).await;
        next
    }

    /// Starts a process that takes over if there is one to take over from.
    pub(super) fn start_as_heir(&self) -> Self {
        Self::run(self.addr, Arc::clone(&self.folder), true, self.setup)
    }

    fn run(addr: IpAddr, folder: Arc<tempfile::TempDir>, is_heir: bool, setup: Setup) -> Self {
        let (arrivals, receiver) = mpsc::channel(16);
        let links = Arc::new(Links::default());
        let control = Control::Path(folder.path().join("data.sock"));
        let Setup { holding, shows_clients, descriptors_max } = setup;
        let (on_ready, stop) = (Box::new(|| {}), CancellationToken::new());
        let ended = stop.clone();
        let options = Options { control, is_heir, holding, shows_clients, stop: ended, descriptors_max, on_ready };
        let process = tokio::spawn(serve(options, Arc::clone(&links) as Arc<dyn Remote>, receiver));
        Self { addr, setup, folder, process, stop, links, arrivals }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("data.sock")
    }

    /// Connects as swarmd, and takes the greeting.
    pub(super) async fn greet(&self) -> (Swarmd, Option<TableVersion>) {
        Swarmd::greet(&self.path()).await
    }

    pub(super) fn configuration(&self) -> Configuration {
        Configuration {
            node: OWN,
            ingress: vec![IngressAddr { addr: self.addr, is_optional: false }],
            data_addr: SocketAddr::new(self.addr, 7946),
            net_socket: None,
        }
    }

    /// Connects as swarmd, and says how to listen, and these tasks.
    pub(super) async fn swarmd(&self, tasks: &[&Task]) -> Swarmd {
        let (mut swarmd, _) = self.greet().await;
        swarmd.say(ToData::Configure(self.configuration())).await;
        swarmd.say(ToData::LocalTasks(tasks.iter().map(|task| task.local()).collect())).await;
        swarmd
    }

    /// Lets another node open a stream to a task of this one: the other node's end of it, and the answer.
    pub(super) async fn arrive(&self, request: OpenRequest) -> (TcpStream, oneshot::Receiver<Result<(), String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (answer, answered) = oneshot::channel();
        self.arrivals.send(Stream { request, stream, answer }).await.unwrap();
        (own, answered)
    }

    /// Connects as a client, when the port is open.
    pub(super) async fn client(&self) -> TcpStream {
        client(SocketAddr::new(self.addr, PORT)).await
    }

    /// Connects as a client; the name of the task that answered, and the connection.
    pub(super) async fn named(&self) -> (String, TcpStream) {
        let mut client = self.client().await;
        (name(&mut client).await, client)
    }
}

/// A host with these tasks, which serve the ports of [`WEB`].
pub(super) async fn serving_ports(tasks: &[&Task], ports: Vec<PublishedPort>) -> (Host, Swarmd, Table) {
    let host = Host::start().await;
    let mut swarmd = host.swarmd(tasks).await;
    let mut table = Table::new();
    table.service(WEB, ports);
    tasks.iter().for_each(|task| table.endpoint(task.id, OWN, EndpointState::In));
    swarmd.apply(&mut table).await;
    (host, swarmd, table)
}

/// A host with these tasks, which serve [`PORT`].
pub(super) async fn serving(tasks: &[&Task]) -> (Host, Swarmd, Table) {
    serving_ports(tasks, vec![tcp(PORT)]).await
}

/// Connects when the port is open.
pub(super) async fn client(addr: SocketAddr) -> TcpStream {
    eventually(async || TcpStream::connect(addr).await).await
}

/// The name that a task says first.
pub(super) async fn name(client: &mut TcpStream) -> String {
    let mut name = [0; 4];
    soon(client.read_exact(&mut name)).await.unwrap();
    String::from_utf8(name.to_vec()).unwrap()
}

/// A task: it says its name, of four letters, and then what it is told.
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) addr: IpAddr,
    pub(super) accepted: Arc<AtomicUsize>,
    serving: Option<JoinHandle<()>>,
}

impl Task {
    pub(super) async fn start(id: u128) -> Self {
        let (addr, accepted) = (fresh_addr(), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind((addr, TARGET)).await.unwrap();
        let counter = Arc::clone(&accepted);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let _ = stream.write_all(format!("t{id:03}").as_bytes()).await;
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        Self { id: TaskId(id), addr, accepted, serving: Some(serving) }
    }

    /// A task that refuses connections: nobody listens.
    pub(super) fn refusing(id: u128) -> Self {
        Self { id: TaskId(id), addr: fresh_addr(), accepted: Arc::default(), serving: None }
    }

    pub(super) fn local(&self) -> LocalTask {
        LocalTask { task: self.id, addr: self.addr }
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// Links: streams of another node are connections to a task of its own.
#[derive(Default)]
pub(super) struct Links {
    /// The addresses of tasks of other nodes; a task without an address is refused.
    pub(super) tasks: Mutex<BTreeMap<TaskId, SocketAddr>>,
    pub(super) opened: Mutex<Vec<(NodeId, OpenRequest)>>,
    pub(super) peers: Mutex<BTreeMap<NodeId, SocketAddr>>,
    pub(super) listener: Mutex<Option<TcpListener>>,
    pub(super) is_retired: AtomicBool,
    pub(super) silent: watch::Sender<Silent>,
}

impl Remote for Links {
    fn send_ethernet(&self, _: NodeId, _: u32, _: u64, _: bytes::Bytes) {}

    fn take_ethernet(&self, _: crate::link::EthernetSink) {}

    fn dropped_ethernet(&self) -> u64 {
        0
    }

    fn open(&self, node: NodeId, request: OpenRequest) -> Opening<'_> {
        self.opened.lock().unwrap().push((node, request));
        let addr = self.tasks.lock().unwrap().get(&request.task).copied();
        Box::pin(async move {
            let addr = addr.ok_or_else(|| OpenError::Refused { reason: "no such task".to_owned() })?;
            let stream = TcpStream::connect(addr).await.map_err(|e| OpenError::Unreachable(e.to_string()))?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn set_identity(&self, _: NodeIdentity) -> Result<(), TlsError> {
        Ok(())
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        *self.peers.lock().unwrap() = peers;
    }

    fn listen(&self, listener: TcpListener) {
        *self.listener.lock().unwrap() = Some(listener);
    }

    fn probe(&self, node: NodeId) -> Probing<'_> {
        let is_peer = self.peers.lock().unwrap().contains_key(&node);
        Box::pin(async move { if is_peer { Ok(()) } else { Err("no such node".to_owned()) } })
    }

    fn silent(&self) -> watch::Receiver<Silent> {
        self.silent.subscribe()
    }

    fn retire(&self) {
        self.listener.lock().unwrap().take();
        self.is_retired.store(true, Ordering::Relaxed);
    }
}

/// A stream that another node wants to open.
pub(super) struct Stream {
    pub(super) request: OpenRequest,
    pub(super) stream: TcpStream,
    pub(super) answer: oneshot::Sender<Result<(), String>>,
}

impl Arrival for Stream {
    fn from(&self) -> NodeId {
        OTHER
    }

    fn request(&self) -> OpenRequest {
        self.request
    }

    fn accept(self) -> BoxedStream {
        let _ = self.answer.send(Ok(()));
        Box::new(self.stream)
    }

    fn refuse(self, reason: String) {
        let _ = self.answer.send(Err(reason));
    }
}
