//! The reports to swarmd, and how far the wanted state is in the kernel.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use swarm_model::ObjectId;
use tokio::sync::{mpsc, watch};

use crate::protocol::{FromNet, NetWarning};

/// Messages that wait for swarmd to read them. One that leaves so many unread is stuck: its connection is closed, and
/// the next one is told everything again.
const UNREAD_MESSAGES_MAX: usize = 4096;

/// Names what a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// The kernel as a whole.
    Kernel,
    /// The device of a network.
    Device(ObjectId),
    /// The size of packets of a network.
    Size(ObjectId),
}

impl About {
    fn network(self) -> Option<ObjectId> {
        match self {
            Self::Kernel => None,
            Self::Device(network) | Self::Size(network) => Some(network),
        }
    }
}

/// The warnings and the states of containers that hold, and the way to swarmd.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    voice: Option<mpsc::Sender<FromNet>>,
    warnings: BTreeMap<About, String>,
    /// Whether its tables are loaded; else the reason.
    containers: BTreeMap<String, Result<(), String>>,
}

impl Held {
    /// Without a connection nothing is said: the next one is told how things are then.
    fn say(&mut self, message: FromNet) {
        if self.voice.as_ref().is_some_and(|voice| voice.try_send(message).is_err()) {
            self.voice = None;
        }
    }

    fn say_warnings(&mut self) {
        let warning = |(about, text): (&About, &String)| NetWarning { network: about.network(), text: text.clone() };
        let warnings = self.warnings.iter().map(warning).collect();
        self.say(FromNet::Warnings(warnings));
    }

    fn say_container(&mut self, id: &str) {
        let container = id.to_owned();
        match self.containers.get(id) {
            Some(Ok(())) => self.say(FromNet::Ready { container }),
            Some(Err(reason)) => {
                let reason = reason.clone();
                self.say(FromNet::NotReady { container, reason });
            }
            None => {}
        }
    }
}

impl Reports {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says a message.
    pub(crate) fn say(&self, message: FromNet) {
        self.held().say(message);
    }

    /// Speaks to a new connection from now on, and tells it how things are. The messages to the one before end.
    pub(crate) fn turn_to_new(&self) -> mpsc::Receiver<FromNet> {
        let (sender, receiver) = mpsc::channel(UNREAD_MESSAGES_MAX);
        let mut held = self.held();
        held.voice = Some(sender);
        held.say_warnings();
        let ids: Vec<_> = held.containers.keys().cloned().collect();
        ids.iter().for_each(|id| held.say_container(id));
        receiver
    }

    /// Replaces the warnings.
    pub(crate) fn warn(&self, warnings: BTreeMap<About, String>) {
        let mut held = self.held();
        if held.warnings != warnings {
            let is_new = |(about, text): &(&About, &String)| held.warnings.get(about) != Some(text);
            warnings
                .iter()
                .filter(is_new)
                .for_each(|(about, text)| tracing::warn!(network = ?about.network(), "{text}"));
            held.warnings = warnings;
            held.say_warnings();
        }
    }

    /// The tables of a container are loaded in a new namespace, or cannot be loaded. A reason is said once.
    pub(crate) fn container(&self, id: &str, outcome: Result<(), String>) {
        let mut held = self.held();
        if outcome.is_ok() || held.containers.get(id) != Some(&outcome) {
            held.containers.insert(id.to_owned(), outcome);
            held.say_container(id);
        }
    }

    /// A container has no namespace any more, or does not concern this node.
    pub(crate) fn forget_container(&self, id: &str) {
        self.held().containers.remove(id);
    }
}

/// A part of the kernel that has the wanted state of some revision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keeper {
    /// The keeper of the links of this host.
    Host,
    /// The namespace of a container.
    Container(String),
}

/// How far the wanted state is in the kernel: the revision that each part has.
#[derive(Debug)]
pub(crate) struct Progress(watch::Sender<BTreeMap<Keeper, u64>>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::from([(Keeper::Host, 0)])))
    }

    pub(crate) fn reached(&self, keeper: Keeper, revision: u64) {
        self.0.send_if_modified(|parts| parts.insert(keeper, revision) != Some(revision));
    }

    /// Nobody waits for it any more.
    pub(crate) fn forget(&self, keeper: &Keeper) {
        self.0.send_if_modified(|parts| parts.remove(keeper).is_some());
    }

    /// Waits until all parts have a revision.
    pub(crate) async fn wait(&self, revision: u64) {
        let mut parts = self.0.subscribe();
        let _ = parts.wait_for(|parts| parts.values().all(|reached| *reached >= revision)).await;
    }
}
