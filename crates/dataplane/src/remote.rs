//! The ways to the data planes of other nodes, as the forwarder needs them.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin};

use swarm_model::{NodeId, TaskId};
use swarm_wire::{BoxedStream, NodeIdentity, TlsError, endpoints::PublishedPort};
use tokio::net::TcpListener;

/// What a stream is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// The task that it is for.
    pub task: TaskId,
    /// The published port.
    pub port: PublishedPort,
    /// The client's own address.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub asked: SocketAddr,
}

/// Why a stream was not opened. Nothing was sent to the task: another endpoint can be tried.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The other node refused.
    #[error("its node refused: {reason}")]
    Refused {
        /// As the other node says it.
        reason: String,
    },
    /// There is no connection to the other node, or it is too slow.
    #[error("its node cannot be reached: {0}")]
    Unreachable(String),
}

/// A stream that opens later.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<BoxedStream, OpenError>> + Send + 'a>>;

/// Reaches other nodes.
pub trait Remote: Send + Sync + 'static {
    /// Opens a stream to a task on another node. It is open when that node has connected to the task.
    fn open(&self, node: NodeId, request: OpenRequest) -> Opening<'_>;
    /// Takes the node's certificate and key.
    ///
    /// # Errors
    /// [`TlsError`] when TLS has no use for them.
    fn set_identity(&self, identity: NodeIdentity) -> Result<(), TlsError>;
    /// Takes the nodes that may have links, with their data addresses.
    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>);
    /// Takes links of other nodes on this listener, and on the one before no more.
    fn listen(&self, listener: TcpListener);
    /// Another process takes over: takes no more links, and lets other nodes know that links that are open take no
    /// more streams. Streams that are open go on.
    fn retire(&self);
}

/// A stream that another node wants to open. Dropped without an answer, it is refused.
pub trait Arrival: Send + 'static {
    /// The other node.
    fn from(&self) -> NodeId;
    /// What the stream is for.
    fn request(&self) -> OpenRequest;
    /// Opens it.
    fn accept(self) -> BoxedStream;
    /// Refuses it.
    fn refuse(self, reason: String);
}

/// No way to any node.
pub struct Nowhere;

impl Remote for Nowhere {
    fn open(&self, _: NodeId, _: OpenRequest) -> Opening<'_> {
        Box::pin(async { Err(OpenError::Unreachable("this program has no links to other nodes".to_owned())) })
    }

    fn set_identity(&self, _: NodeIdentity) -> Result<(), TlsError> {
        Ok(())
    }

    fn set_peers(&self, _: BTreeMap<NodeId, SocketAddr>) {}

    fn listen(&self, _: TcpListener) {}

    fn retire(&self) {}
}

/// What never comes: a program without links gets no streams of other nodes.
pub enum Never {}

impl Arrival for Never {
    fn from(&self) -> NodeId {
        match *self {}
    }

    fn request(&self) -> OpenRequest {
        match *self {}
    }

    fn accept(self) -> BoxedStream {
        match self {}
    }

    fn refuse(self, _: String) {
        match self {}
    }
}
