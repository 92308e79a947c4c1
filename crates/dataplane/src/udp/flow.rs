//! A flow: the datagrams between one client and one task.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_model::{NodeId, TaskId};
use swarm_wire::{BoxedStream, endpoints::PublishedPort};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{FlowKey, PublicSocket, datagrams, socket};
use crate::{
    buffer::Buffer,
    descriptors::Reserved,
    endpoint::Lease,
    forward::{CONNECT_TIMEOUT, canonical},
    remote::{OpenRequest, Remote},
    route::{Port, Way},
};

/// How long a flow without datagrams lasts before the task has answered, as in the connection tracking of the kernel.
const IDLE: Duration = Duration::from_secs(30);
/// The same after an answer.
const IDLE_ANSWERED: Duration = Duration::from_secs(90);
/// The same when the endpoint gets no new flows: most are a question and an answer, and nobody has to wait for these.
const IDLE_LEAVING: Duration = Duration::from_secs(2);
/// Endpoints on other nodes that are tried for a flow.
const TRIES_MAX: usize = 3;

/// The values that both sides of a flow share.
pub(super) struct Flow {
    key: FlowKey,
    port: Arc<Port>,
    public: Arc<PublicSocket>,
    activity: Activity,
    sent_bytes: AtomicU64,
    ended: AtomicBool,
}

/// When a flow was used last.
struct Activity {
    began: Instant,
    /// Since it began.
    used_ms: AtomicU64,
    is_answered: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self { began: Instant::now(), used_ms: AtomicU64::new(0), is_answered: AtomicBool::new(false) }
    }

    fn used(&self) {
        self.used_ms.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
        self.used();
    }

    /// When the flow ends, if nothing moves until then.
    fn due(&self, is_leaving: bool) -> Instant {
        let idle = match (is_leaving, self.is_answered.load(Ordering::Relaxed)) {
            (true, _) => IDLE_LEAVING,
            (false, true) => IDLE_ANSWERED,
            (false, false) => IDLE,
        };
        self.began + Duration::from_millis(self.used_ms.load(Ordering::Relaxed)) + idle
    }
}

/// Says that a flow has ended, when it is dropped.
pub(super) struct End {
    said_to: mpsc::UnboundedSender<(u64, FlowKey)>,
    number: u64,
    key: FlowKey,
}

impl End {
    pub(super) fn new(said_to: mpsc::UnboundedSender<(u64, FlowKey)>, number: u64, key: FlowKey) -> Self {
        Self { said_to, number, key }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.said_to.send((self.number, self.key));
    }
}

/// How a task on another node is reached.
pub(super) struct RemoteTask {
    pub(super) remote: Arc<dyn Remote>,
    pub(super) node: NodeId,
    pub(super) port: PublishedPort,
}

impl Flow {
    pub(super) fn new(key: FlowKey, port: Arc<Port>, public: Arc<PublicSocket>) -> Self {
        let (sent_bytes, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { key, port, public, activity: Activity::new(), sent_bytes, ended }
    }

    /// Whether it takes no more datagrams.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The client sent a datagram.
    pub(super) fn used(&self) {
        self.activity.used();
    }

    /// So many bytes were sent on to the task. The endpoint counts them with the next answer.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Forwards the answers of a task of this node, until the flow ends.
    pub(super) async fn run_local(self: Arc<Self>, task: Arc<UdpSocket>, lease: Lease, _reserved: Reserved, _end: End) {
        lease.connected();
        tokio::select! {
            received = self.answers(&task, &lease) => {
                if let Err(e) = received {
                    tracing::debug!(task = %lease.task(), "a task takes no datagrams: {e}");
                    lease.failed();
                }
            }
            () = self.expires(&lease) => {}
        }
        self.finish(&lease);
    }

    /// Reads what the task answers.
    async fn answers(&self, task: &UdpSocket, lease: &Lease) -> io::Result<()> {
        loop {
            let answer = recv(task).await?;
            self.answer(answer.rest(), lease).await;
        }
    }

    async fn answer(&self, datagram: &[u8], lease: &Lease) {
        self.activity.answered();
        lease.received(datagram.len());
        self.count_sent(lease);
        if let Err(e) = self.public.answer(&self.key, datagram).await {
            tracing::debug!(client = %self.key.client, "an answer was not sent: {e}");
        }
    }

    /// Forwards datagrams to a task of another node, and its answers, until the flow ends.
    pub(super) async fn run_remote(
        self: Arc<Self>,
        to: RemoteTask,
        mut datagrams: mpsc::Receiver<Vec<u8>>,
        lease: Lease,
        _reserved: Reserved,
        _end: End,
    ) {
        let Some((stream, lease)) = self.open(to, lease).await else {
            self.ended.store(true, Ordering::Release);
            return;
        };
        lease.connected();
        let (mut read, mut write) = tokio::io::split(stream);
        let out = async {
            while let Some(datagram) = datagrams.recv().await {
                datagrams::write(&mut write, &datagram).await?;
            }
            Ok(())
        };
        let back = async {
            while let Some(answer) = datagrams::read(&mut read).await? {
                self.answer(answer.rest(), &lease).await;
            }
            io::Result::Ok(())
        };
        tokio::select! {
            ended = async { tokio::try_join!(out, back) } => {
                if let Err(e) = ended {
                    tracing::debug!(task = %lease.task(), "a stream of datagrams broke: {e}");
                    lease.failed();
                }
            }
            () = self.expires(&lease) => {}
        }
        self.finish(&lease);
    }

    /// Opens a stream to the task, or to another one on another node where that fails.
    async fn open(&self, mut to: RemoteTask, mut lease: Lease) -> Option<(BoxedStream, Lease)> {
        let mut tried: Vec<TaskId> = Vec::new();
        loop {
            let FlowKey { client, asked } = self.key;
            let request =
                OpenRequest { task: lease.task(), port: to.port, client: canonical(client), asked: canonical(asked) };
            let reason = match timeout(CONNECT_TIMEOUT, to.remote.open(to.node, request)).await {
                Ok(Ok(stream)) => return Some((stream, lease)),
                Ok(Err(e)) => e.to_string(),
                Err(_) => "its node does not answer".to_owned(),
            };
            tracing::debug!(task = %lease.task(), port = to.port.published, "no stream to a task: {reason}");
            lease.failed();
            tried.push(lease.task());
            // A task of this node is for the next datagram: what waits here is in the queue of a stream.
            let next = self.port.route().choose(client.ip(), &tried).filter(|_| tried.len() < TRIES_MAX)?;
            let Way::Remote(node) = next.way else { return None };
            (to.node, to.port, lease) = (node, next.port, next.lease);
        }
    }

    /// Waits until nothing has moved for too long, or the task cannot be reached any more.
    async fn expires(&self, lease: &Lease) {
        loop {
            let mut changed = pin!(self.port.changed());
            changed.as_mut().enable();
            let due = self.activity.due(!lease.is_open());
            if lease.is_gone() || due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn finish(&self, lease: &Lease) {
        self.ended.store(true, Ordering::Release);
        self.count_sent(lease);
    }

    fn count_sent(&self, lease: &Lease) {
        lease.sent(self.sent_bytes.swap(0, Ordering::Relaxed) as usize);
    }
}

/// Waits for a datagram; takes a buffer only when there is one.
async fn recv(socket: &UdpSocket) -> io::Result<Buffer> {
    loop {
        socket.readable().await?;
        let mut buffer = Buffer::take();
        match socket.try_recv(buffer.space()) {
            Ok(len) => return Ok(buffer.filled(len)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Forwards the datagrams of a stream of another node to a task of this one, and its answers, until the stream ends.
pub(crate) async fn serve_linked(stream: BoxedStream, task: UdpSocket) {
    let (mut read, mut write) = tokio::io::split(stream);
    let out = async {
        while let Some(datagram) = datagrams::read(&mut read).await? {
            match task.send(datagram.rest()).await {
                // Too long for the way: lost, as in any network.
                Err(e) if e.raw_os_error() == Some(nix::libc::EMSGSIZE) => {}
                sent => drop(sent?),
            }
        }
        io::Result::Ok(())
    };
    let back = async {
        loop {
            let answer = recv(&task).await?;
            datagrams::write(&mut write, answer.rest()).await?;
        }
    };
    let ended: io::Result<()> = tokio::select! {
        ended = out => ended,
        ended = back => ended,
    };
    if let Err(e) = ended {
        tracing::debug!("a stream of datagrams ended: {e}");
    }
}

/// A socket to a task of this node, from an address of this host.
pub(crate) fn connect_task(addr: SocketAddr) -> io::Result<UdpSocket> {
    socket::connect(addr)
}
