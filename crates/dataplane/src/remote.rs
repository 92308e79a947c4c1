//! The ways to the data planes of other nodes, as the forwarder needs them.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, pin::Pin};

use bytes::Bytes;
use swarm_model::NodeId;
use swarm_wire::{BoxedStream, NodeIdentity, TlsError};
use tokio::{net::TcpListener, sync::watch};

use crate::link::{EthernetSink, Incoming, Links, Silent};
pub use crate::link::{OpenError, OpenRequest};

/// A stream that opens later.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<BoxedStream, OpenError>> + Send + 'a>>;

/// The end of a probe: an error says why the node does not answer.
pub type Probing<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

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
    /// Makes a connection to the data port of a node, and closes it.
    fn probe(&self, node: NodeId) -> Probing<'_>;
    /// The nodes that do not answer, and every change of them.
    fn silent(&self) -> watch::Receiver<Silent>;
    /// Takes links of other nodes on this listener, and on the one before no more.
    fn listen(&self, listener: TcpListener);
    /// Sends a frame of Ethernet to a node, or drops it ([`Links::send_ethernet`]).
    fn send_ethernet(&self, node: NodeId, network: u32, flow: u64, frame: Bytes);
    /// Sets the taker of Ethernet frames of other nodes.
    fn take_ethernet(&self, sink: EthernetSink);
    /// Frames of Ethernet that were not sent so far.
    fn dropped_ethernet(&self) -> u64;
    /// Another process takes over: takes no more links, and lets other nodes know that links that are open take no
    /// more streams. Streams that are open go on.
    fn retire(&self);
}

/// A stream that another node wants to open. Dropped without an answer, it is refused.
pub trait Arrival: Send + 'static {
    /// The other node.
    fn from(&self) -> NodeId;
    /// The purpose of the stream.
    fn request(&self) -> OpenRequest;
    /// Opens it.
    fn accept(self) -> BoxedStream;
    /// Refuses it.
    fn refuse(self, reason: String);
}

impl Remote for Links {
    fn open(&self, node: NodeId, request: OpenRequest) -> Opening<'_> {
        Box::pin(async move { Ok(Box::new(Self::open(self, node, request).await?) as BoxedStream) })
    }

    fn set_identity(&self, identity: NodeIdentity) -> Result<(), TlsError> {
        Self::set_identity(self, identity)
    }

    fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        Self::set_peers(self, peers);
    }

    fn probe(&self, node: NodeId) -> Probing<'_> {
        Box::pin(Self::probe(self, node))
    }

    fn silent(&self) -> watch::Receiver<Silent> {
        Self::silent(self)
    }

    fn listen(&self, listener: TcpListener) {
        Self::listen(self, listener);
    }

    fn send_ethernet(&self, node: NodeId, network: u32, flow: u64, frame: Bytes) {
        Self::send_ethernet(self, node, network, flow, frame);
    }

    fn take_ethernet(&self, sink: EthernetSink) {
        Self::take_ethernet(self, sink);
    }

    fn dropped_ethernet(&self) -> u64 {
        Self::dropped_ethernet(self)
    }

    fn retire(&self) {
        Self::retire(self);
    }
}

impl Arrival for Incoming {
    fn from(&self) -> NodeId {
        self.from
    }

    fn request(&self) -> OpenRequest {
        self.request
    }

    fn accept(self) -> BoxedStream {
        Box::new(Self::accept(self))
    }

    fn refuse(self, reason: String) {
        Self::refuse(self, reason);
    }
}
