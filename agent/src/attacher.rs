//! The way for the node's API to have containers in networks of the cluster that are no tasks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use swarm_model::{ObjectId, TaskId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    connection::Event,
    executor::{EnginePart, Executor},
    worker::{AttachmentAsk, AttachmentError, AttachmentGrant, AttachmentInput, Input},
};

/// Longest wait for the managers, and for `swarmd net`: as long as a client waits for a change of the cluster.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// Asks the agent for attachments.
#[derive(Clone)]
pub struct Attacher {
    events: mpsc::Sender<Event>,
    executor: Arc<dyn Executor>,
}

/// A place in a network that the managers have granted, and that the engine can connect a container to. Dropping it gives
/// the place back, unless a container has got it ([`Attached::given`]).
pub struct Attached {
    /// The network.
    pub network: ObjectId,
    /// The name of the network.
    pub name: String,
    /// The addresses: one of each address family.
    pub addrs: Vec<IpAddr>,
    /// The hardware address that belongs to them, where the engine is to be told.
    pub mac: Option<String>,
    /// The engine's part of the network.
    pub part: EnginePart,
    claim: Claim,
}

/// The right to an attachment. None of one that a container has already.
struct Claim {
    id: Option<TaskId>,
    attacher: Attacher,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            let attacher = self.attacher.clone();
            runtime.spawn(async move { attacher.tell(AttachmentInput::Withdraw(id)).await });
        }
    }
}

impl Attached {
    /// The container is there, and is about to be started.
    pub async fn given(mut self, container: &str) {
        if let Some(id) = self.claim.id.take() {
            self.claim.attacher.tell(AttachmentInput::Given { id, container: container.to_owned() }).await;
        }
    }
}

impl Attacher {
    pub(crate) fn new(events: mpsc::Sender<Event>, executor: Arc<dyn Executor>) -> Self {
        Self { events, executor }
    }

    /// Asks for addresses in a network, and provides the engine's part of it.
    ///
    /// # Errors
    /// The managers refuse, or do not answer within 15 s; the node has no `swarmd net`; the engine refuses. For people.
    pub async fn attach(&self, ask: AttachmentAsk) -> Result<Attached, AttachmentError> {
        let (asked, (answer, mut answered)) = (ask.id, oneshot::channel());
        let stopping = || AttachmentError::Unavailable("the agent of this node is being stopped".into());
        self.events.send(Event::Ask(ask, answer)).await.map_err(|_| stopping())?;
        let granted = match timeout(ANSWER_TIME_MAX, &mut answered).await {
            Ok(granted) => granted,
            Err(_) => {
                self.tell(AttachmentInput::Overdue(asked)).await;
                answered.await
            }
        };
        let AttachmentGrant { id, network, addrs } = granted.map_err(|_| stopping())??;
        let claim = Claim { id: Some(id).filter(|id| *id == asked), attacher: self.clone() };
        let part = self.executor.provide_network(network.clone()).await;
        let part = part.map_err(|error| AttachmentError::Unavailable(error.to_string()))?;
        Ok(Attached {
            network: network.id,
            name: network.name.clone(),
            mac: swarm_net::mac_of(&addrs)
                .filter(|_| part.takes_mac)
                .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
            addrs,
            part,
            claim,
        })
    }

    /// A container may be in another network than before.
    pub async fn look(&self) {
        self.tell(AttachmentInput::Look).await;
    }

    async fn tell(&self, input: AttachmentInput) {
        // An agent that is being stopped finds all containers again at its next start.
        let _ = self.events.send(Event::Input(Input::Attachment(input))).await;
    }
}
