//! The stream to a manager: opened through a [`Connector`], then one task that reads and writes.

use std::{io, sync::Arc};

use futures_util::future::BoxFuture;
use swarm_dataplane::protocol::ToData;
use swarm_model::{NodeCertificate, NodeRole};
use swarm_net::protocol::ToNet;
use swarm_wire::{
    agent::{Authority, ToAgent, ToManager},
    channel,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use crate::worker::{AttachmentAsk, AttachmentError, AttachmentGrant, DataInput, Input, NetInput};

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The session; to this manager if one is named, else to any.
    Session {
        /// `host:port` of the leader, as far as known.
        leader: Option<String>,
    },
    /// Logs; to the manager of the session, for only it knows the subscription.
    Logs,
}

/// Opens authenticated streams to managers. The node supplies it, since it knows addresses and certificates.
pub trait Connector: Send + Sync + 'static {
    /// Opens a stream.
    fn connect(&self, purpose: Purpose) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;

    /// The cluster's managers are now these (`host:port`).
    fn managers(&self, addrs: &[String]);

    /// The managers want the node to have this role.
    fn role(&self, role: NodeRole);

    /// Whose certificates count, as the managers say.
    fn authority(&self, authority: Authority);

    /// The certificate that the node has, and every change of that.
    fn certificate(&self) -> watch::Receiver<NodeCertificate>;
}

/// Messages that may wait to be written. A session sends a few a second; more means that the network stands still.
pub(crate) const OUTGOING_MAX: usize = 64;

/// What the main loop takes in.
#[derive(Debug)]
pub(crate) enum Event {
    /// From anywhere but a stream.
    Input(Input),
    /// From the connection to the data plane; with the way to it, where it is new.
    Data(Option<mpsc::Sender<ToData>>, DataInput),
    /// From the connection to `swarmd net`; with the way to it, where it is new.
    Net(Option<mpsc::Sender<ToNet>>, NetInput),
    /// A request of the node's API, and the way for the answer.
    Ask(AttachmentAsk, oneshot::Sender<Result<AttachmentGrant, AttachmentError>>),
    /// From the stream of this number.
    Stream(u64, Input),
}

/// Opens a stream and serves it until it ends, the writer's queue is dropped or `stop` is cancelled.
pub(crate) async fn run(
    number: u64,
    connector: Arc<dyn Connector>,
    leader: Option<String>,
    outgoing: mpsc::Receiver<ToManager>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let serve = async {
        let stream = match connector.connect(Purpose::Session { leader }).await {
            Ok(stream) => stream,
            Err(error) => return format!("no manager could be reached: {error}"),
        };
        if events.send(Event::Stream(number, Input::Connected)).await.is_err() {
            return String::new();
        }
        match pass_messages(number, stream, outgoing, &events).await {
            Ok(()) => "the manager closed the stream".into(),
            Err(error) => format!("the stream to the manager broke: {error}"),
        }
    };
    tokio::select! {
        reason = serve => {
            // The main loop is gone if this fails.
            let _ = events.send(Event::Stream(number, Input::Disconnected(reason))).await;
        }
        () = stop.cancelled() => {}
    }
}

async fn pass_messages(
    number: u64,
    stream: Box<dyn ByteStream>,
    mut outgoing: mpsc::Receiver<ToManager>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let (mut sender, mut receiver) = channel::<_, ToManager, ToAgent>(stream);
    let write = async {
        while let Some(message) = outgoing.recv().await {
            sender.send(&message).await?;
        }
        sender.close().await
    };
    let read = async {
        while let Some(message) = receiver.recv().await? {
            if events.send(Event::Stream(number, Input::Message(message))).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    tokio::select! { result = write => result, result = read => result }
}
