//! The messages of the data plane to swarmd, and their way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use swarm_model::{NodeId, NodeWarning, ObjectId, PortProtocol};
use tokio::sync::mpsc;

use crate::protocol::FromData;

/// Messages that wait for swarmd to read them. One that leaves so many unread is stuck: its connection is closed, and
/// the next one gets everything again.
pub(crate) const UNREAD_MESSAGES_MAX: usize = 4096;

/// Speaks to swarmd, as long as there is a connection of it.
#[derive(Clone, Default)]
pub(crate) struct Voice(Arc<ArcSwapOption<mpsc::Sender<FromData>>>);

impl Voice {
    /// Says a message. Without a connection nothing is said: the next one is told how things are then.
    pub(crate) fn say(&self, message: FromData) {
        if let Some(listener) = &*self.0.load()
            && listener.try_send(message).is_err()
        {
            self.0.store(None);
        }
    }

    /// Speaks to a new connection, whose first message is this one. The messages of the connection before end.
    pub(crate) fn turn_to(&self, hello: FromData) -> mpsc::Receiver<FromData> {
        let (sender, receiver) = mpsc::channel(UNREAD_MESSAGES_MAX);
        let _ = sender.try_send(hello);
        self.0.store(Some(Arc::new(sender)));
        receiver
    }
}

/// Names what a warning is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// A published port on an address.
    Port(PortProtocol, u16, std::net::IpAddr),
    /// The port for links of other nodes.
    Links,
    /// Another node whose data plane does not answer.
    Peer(NodeId),
    /// The node's certificate and key.
    Identity,
    /// The limit of open files.
    Descriptors,
    /// The addresses that tasks see.
    Sources,
    /// Tasks whose answers to clients do not come back.
    Answers,
    /// An encrypted network.
    Network(ObjectId),
}

/// The warnings that hold; swarmd is told when they change.
pub(crate) struct Warnings {
    voice: Voice,
    current: Mutex<BTreeMap<About, NodeWarning>>,
}

impl Warnings {
    /// None yet.
    pub(crate) fn new(voice: Voice) -> Self {
        Self { voice, current: Mutex::default() }
    }

    /// Replaces the warning about something; none takes it back. A new one is logged.
    pub(crate) fn set(&self, about: About, warning: Option<NodeWarning>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.get(&about) == warning.as_ref() {
            return;
        }
        match warning {
            Some(warning) => {
                tracing::warn!("{}", warning.text);
                current.insert(about, warning);
            }
            None => drop(current.remove(&about)),
        }
        self.voice.say(FromData::Warnings(current.values().cloned().collect()));
    }

    /// Says them all, to a new connection.
    pub(crate) fn repeat(&self) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.voice.say(FromData::Warnings(current.values().cloned().collect()));
    }
}
