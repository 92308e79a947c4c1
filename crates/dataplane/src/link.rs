//! Links between the data planes of nodes: few connections of mutual TLS for each peer, many streams on each.
//!
//! A stream carries one connection of a client to a task on another node. The side that takes the client asks for it with
//! [`Links::open`]; the side that has the task gets an [`Incoming`], connects to the task, and accepts or refuses. Each
//! stream has credit of its own, so that a slow reader stops only itself. Both sides may open streams on a link, whoever
//! made it: a link proves both ends, and half as many links suffice.
//!
//! Links also carry the Ethernet frames of encrypted networks. A link drops a frame when its queue of frames is full, so that no
//! network waits for a slow node.
//!
//! A link ends when the peer is silent for six seconds, is no longer among the peers, has shown a certificate that is no
//! longer trusted, or breaks the rules; then all its streams fail. It also ends after some minutes without streams.

mod complaints;
mod driver;
mod ethernet;
mod frame;
mod hub;
mod listen;
mod mux;
mod received;
mod stream;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use swarm_model::{NodeId, TaskId};
use swarm_wire::{NodeIdentity, TlsError, endpoints::PublishedPort};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};

pub(crate) use self::hub::Silent;
pub use self::{
    complaints::LinkCounters,
    ethernet::EthernetSink,
    stream::{Incoming, LinkReader, LinkStream, LinkWriter},
};
use self::{
    frame::{Frame, encode_request},
    hub::Hub,
    mux::{Answer, Link},
};

/// Bytes that go out as one frame, at most: who reads so many from a socket at a time wastes no frame on a rest.
pub const CHUNK_BYTES_MAX: usize = frame::FRAME_DATA_MAX;

/// Longest wait for a stream, with the time to make a link if there is none.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer of a peer that gives no sign of life at all: another endpoint may answer.
const SILENT_OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence after which a peer that is asked for a stream is asked for a sign of life as well.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// Streams that peers want and that wait for the data plane to look at them; more are refused.
const INCOMING_MAX: usize = 4096;

/// The purpose of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The task, which runs on the node that is asked.
    pub task: TaskId,
    /// The port of its service.
    pub port: PublishedPort,
    /// The client's own address.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub asked: SocketAddr,
}

/// Why there is no stream. Nothing was sent to the task, so that another endpoint can be tried.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// The peer refused it.
    #[error("the node refused the connection: {reason}")]
    Refused {
        /// Why, in the peer's words.
        reason: String,
    },
    /// No link leads to the peer, or the peer did not answer in time.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
}

/// The links of this node. Clones are the same links; when the last one is dropped, all links end.
#[derive(Clone)]
pub struct Links {
    owner: Arc<Owner>,
}

/// Ends everything when it is dropped.
struct Owner {
    hub: Arc<Hub>,
    listener: listen::Slot,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl Links {
    /// No links yet, and the streams that peers will want. Until an identity is set, streams cannot be opened and
    /// connections of peers are closed.
    pub fn new() -> (Self, mpsc::Receiver<Incoming>) {
        let (sender, receiver) = mpsc::channel(INCOMING_MAX);
        let owner = Owner { hub: Arc::new(Hub::new(sender)), listener: listen::Slot::default() };
        (Self { owner: Arc::new(owner) }, receiver)
    }

    /// Sets this node's certificate and whom it trusts. Links from now on show the new certificate; links of peers that
    /// are no longer trusted are cut, and those that show an older certificate of this node end with their last stream.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when TLS has no use for it; then the old one stays.
    pub fn set_identity(&self, identity: NodeIdentity) -> Result<(), TlsError> {
        self.owner.hub.set_identity(identity)
    }

    /// Makes a connection to a peer that is no link, and closes it.
    ///
    /// # Errors
    /// Why the peer does not answer, for people.
    pub async fn probe(&self, node: NodeId) -> Result<(), String> {
        self.owner.hub.probe(node).await
    }

    /// The peers that do not answer, and every change of them. They are tried again.
    pub(crate) fn silent(&self) -> watch::Receiver<Silent> {
        self.owner.hub.silent()
    }

    /// Sets the nodes that may have links, with their data addresses. Links of others are cut at once.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, SocketAddr>) {
        self.owner.hub.set_peers(&peers);
    }

    /// Takes links of other nodes on this listener, and on an earlier one no more. To be called inside a tokio runtime, as
    /// [`Links::open`] is.
    pub fn listen(&self, listener: TcpListener) {
        self.owner.listener.start(&self.owner.hub, listener);
    }

    /// Takes links of other nodes no more, and lets peers know that links that stand take no more streams: a new process
    /// has the listener. Streams that are open go on.
    pub fn retire(&self) {
        self.owner.listener.stop();
        self.owner.hub.retire();
    }

    /// Opens a stream to a task on another node; returns when the peer has connected to the task, or after five seconds at
    /// the most. Dropping the future takes the request back.
    ///
    /// # Errors
    /// [`OpenError`]: another endpoint can be tried.
    pub async fn open(&self, node: NodeId, request: OpenRequest) -> Result<LinkStream, OpenError> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        timeout_at(deadline, self.open_now(node, request)).await.unwrap_or_else(|_| {
            Err(OpenError::Unreachable(format!("node {node} did not answer within {} s", OPEN_TIMEOUT.as_secs())))
        })
    }

    /// Refusals so far.
    pub fn counters(&self) -> LinkCounters {
        self.owner.hub.counters()
    }

    /// Sends a frame of Ethernet of the network with this number to a node, or drops it: it never waits. Frames with the same
    /// `flow` keep their order as long as no link comes or goes.
    pub fn send_ethernet(&self, node: NodeId, network: u32, flow: u64, frame: Bytes) {
        match frame.len() {
            0..=frame::ETHERNET_BYTES_MAX => self.owner.hub.carry(node, flow, Frame::ethernet(network, frame)),
            _ => self.owner.hub.ethernet.count_dropped(1),
        }
    }

    /// Sets the taker of the Ethernet frames that other nodes send. The first call counts.
    pub fn take_ethernet(&self, sink: EthernetSink) {
        self.owner.hub.ethernet.set_sink(sink);
    }

    /// Frames of Ethernet that were not sent so far: too much waited before them, or there was no way to their node.
    pub fn dropped_ethernet(&self) -> u64 {
        self.owner.hub.ethernet.dropped()
    }

    /// How many links stand with a node.
    pub fn count(&self, node: NodeId) -> usize {
        self.owner.hub.count(node)
    }

    async fn open_now(&self, node: NodeId, request: OpenRequest) -> Result<LinkStream, OpenError> {
        let request = encode_request(&request).map_err(|e| OpenError::Unreachable(e.to_string()))?;
        let mut lost = None;
        // A link may end at this very moment, most often because it was not used: then a new one is made, once.
        for _ in 0..2 {
            let link = self.owner.hub.link_to(node).await.map_err(OpenError::Unreachable)?;
            let Some(id) = link.want(request.clone()) else { continue };
            let stream = LinkStream::new(Arc::clone(&link), id);
            let answer = self.answer_of(&link, &stream).await?;
            match answer {
                Answer::Accepted => return Ok(stream),
                Answer::Refused(reason) => return Err(OpenError::Refused { reason }),
                Answer::Lost(reason) => lost = Some(reason),
            }
        }
        let reason = lost.unwrap_or_else(|| "all links are full".to_owned());
        Err(OpenError::Unreachable(format!("the link to node {node} was lost: {reason}")))
    }

    /// Waits for the answer of a peer as long as it shows signs of life: that it takes long to connect to the task is no
    /// reason to give up.
    async fn answer_of(&self, link: &Link, stream: &LinkStream) -> Result<Answer, OpenError> {
        let begin = Instant::now();
        let mut is_asked = false;
        if link.last_received().elapsed() > QUIET_MAX {
            link.ping();
            is_asked = true;
        }
        loop {
            match timeout(SILENT_OPEN_TIMEOUT, stream.answer()).await {
                Ok(answer) => return Ok(answer),
                Err(_) if link.last_received() >= begin => return Ok(stream.answer().await),
                Err(_) if is_asked => {
                    return Err(OpenError::Unreachable(format!("node {} gives no sign of life", link.peer())));
                }
                Err(_) => {
                    link.ping();
                    is_asked = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
