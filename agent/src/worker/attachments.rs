//! Attachments: the containers of this node that are no tasks, in networks of the cluster.
//!
//! The engine says which containers there are, and the node's API asks for those that are about to be made or started. The
//! managers are told all of them with each change, and say which addresses they have. Before the first listing of a run they
//! are told nothing: to them that would mean that all containers are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use swarm_dataplane::protocol::{ContainerNames, ContainerNetwork, ToData};
use swarm_model::{Id, ObjectId, ObjectKey, ObjectKind, TaskId};
use swarm_net::protocol::{LocalContainer, ToNet};
use swarm_wire::agent::{
    ATTACHMENTS_MAX, AssignedObject, AttachmentAnswers, AttachmentRefusal, GrantedAttachment, ToManager,
    WantedAttachment, WantedAttachments,
};

use super::{Now, Output, RETRY_MS, Worker};
use crate::{
    executor::{AttachedContainer, AttachedNetwork, EngineError},
    rng::Rng,
};

/// Something that concerns attachments.
#[derive(Clone, Debug, PartialEq)]
pub enum AttachmentInput {
    /// The API asks for addresses for a container; answered by [`AttachmentOutput::Answer`].
    Ask(AttachmentAsk),
    /// The container of an attachment is there, and is about to be started.
    Given {
        /// The attachment.
        id: TaskId,
        /// The engine's id of the container.
        container: String,
    },
    /// The container of an attachment could not be made.
    Withdraw(TaskId),
    /// The API waits no longer for an answer, but for the reason why there is none.
    Overdue(TaskId),
    /// A container may be in another network than before.
    Look,
    /// Outcome of [`AttachmentOutput::List`].
    Listed(Result<Vec<AttachedContainer>, EngineError>),
}

/// A request for addresses in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentAsk {
    /// Id of the attachment.
    pub id: TaskId,
    /// The id or the name of the network.
    pub network: String,
    /// The addresses that the container is to have; the others are chosen.
    pub addrs: Vec<IpAddr>,
    /// The engine's id of the container, if it is there.
    pub container: Option<String>,
}

/// An order of the worker that concerns attachments.
#[derive(Clone, Debug)]
pub enum AttachmentOutput {
    /// List the containers; answered by [`AttachmentInput::Listed`].
    List,
    /// The answer to a request of the API.
    Answer(TaskId, Result<AttachmentGrant, AttachmentError>),
    /// Take a container out of a network.
    Detach {
        /// The network.
        network: ObjectId,
        /// The engine's id of the container.
        container: String,
    },
}

/// Addresses in a network.
#[derive(Clone, Debug, PartialEq)]
pub struct AttachmentGrant {
    /// The attachment.
    pub id: TaskId,
    /// The network.
    pub network: Arc<AssignedObject>,
    /// The addresses: one of each address family.
    pub addrs: Vec<IpAddr>,
}

/// Why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachmentError {
    /// The managers refuse.
    Refused(AttachmentRefusal),
    /// The container cannot be attached now, for this reason.
    Unavailable(String),
}

/// An attachment of this node.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// The id or the name of the network.
    network: String,
    /// The addresses that it is to have, or has.
    addrs: Vec<IpAddr>,
    /// The network, once the managers have granted it.
    granted: Option<ObjectId>,
    names: Vec<String>,
    is_running: bool,
    /// The container, once it is there.
    container: Option<String>,
    sandbox: Option<PathBuf>,
    nameservers: Vec<IpAddr>,
    /// The API waits for an answer.
    is_asked: bool,
    /// [`Worker::touches`] when the API last changed it.
    touched: u64,
}

/// The worker's knowledge of attachments.
#[derive(Debug)]
pub(super) struct Attachments {
    all: BTreeMap<TaskId, Entry>,
    /// The attached containers as `swarmd net` was told of them, by the engine's ids.
    containers: BTreeMap<String, LocalContainer>,
    /// Containers that are none of this node's: those of another cluster, or of another node, with the same engine.
    foreign: BTreeSet<(String, ObjectId)>,
    /// Whether the manager of the session takes attachments.
    are_taken: bool,
    /// Whether the managers are to be told anew.
    is_news: bool,
    /// Number of the last message.
    number: u64,
    /// When the message is sent again unless it was answered.
    resend_at_ms: Option<u64>,
    /// A listing is under way; it may not know what was touched after this count.
    listing: Option<u64>,
    list_again: bool,
    /// Whether the containers were listed in this run.
    is_listed: bool,
    rng: Rng,
}

impl Attachments {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            all: BTreeMap::new(),
            containers: BTreeMap::new(),
            foreign: BTreeSet::new(),
            are_taken: false,
            is_news: false,
            number: 0,
            resend_at_ms: None,
            listing: None,
            list_again: false,
            is_listed: false,
            rng: Rng::new(!seed),
        }
    }

    /// The containers, as `swarmd net` was told of them.
    pub(super) fn containers(&self) -> &BTreeMap<String, LocalContainer> {
        &self.containers
    }

    /// When the managers are to be told once more.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.resend_at_ms.unwrap_or(u64::MAX)
    }

    /// Whether all containers are known that were attached before this run.
    pub(super) fn are_known(&self) -> bool {
        let is_open = |entry: &Entry| entry.container.is_some() && entry.granted.is_none();
        !self.are_taken || self.is_listed && !self.all.values().any(is_open)
    }

    /// A session with a manager is open.
    pub(super) fn session_is_open(&mut self, are_taken: bool) {
        self.are_taken = are_taken;
        self.is_news = true;
    }

    fn id_at(&self, network: ObjectId, addrs: &[IpAddr], container: &str) -> Option<TaskId> {
        let is_it = |entry: &Entry| {
            let is_same_place = entry.granted == Some(network) || entry.network == network.to_string();
            let is_same_container = entry.container.as_deref().is_none_or(|known| known == container);
            is_same_place && is_same_container && addrs.iter().all(|addr| entry.addrs.contains(addr))
        };
        self.all.iter().find(|(_, entry)| is_it(entry)).map(|(id, _)| *id)
    }
}

impl Worker {
    pub(super) fn attachment_input(&mut self, now: Now, input: AttachmentInput, out: &mut Vec<Output>) {
        match input {
            AttachmentInput::Ask(ask) => self.attachment_asked(ask, out),
            AttachmentInput::Given { id, container } => {
                self.touches += 1;
                if let Some(entry) = self.attachments.all.get_mut(&id) {
                    (entry.container, entry.touched) = (Some(container.clone()), self.touches);
                }
                self.follow_attached(&container, out);
                self.list_attached(out);
            }
            AttachmentInput::Withdraw(id) => self.forget_attachment(id, out),
            AttachmentInput::Overdue(id) => {
                if self.attachments.all.get(&id).is_some_and(|entry| entry.is_asked) {
                    let reason = self.why_unanswered(id);
                    self.forget_attachment(id, out);
                    answer(id, Err(AttachmentError::Unavailable(reason)), out);
                }
            }
            AttachmentInput::Look => self.list_attached(out),
            AttachmentInput::Listed(result) => self.attached_listed(now, result, out),
        }
    }

    fn attachment_asked(&mut self, ask: AttachmentAsk, out: &mut Vec<Output>) {
        let unavailable = |reason: &str| Err(AttachmentError::Unavailable(reason.into()));
        if self.leaving {
            return answer(ask.id, unavailable("the node is leaving the swarm"), out);
        }
        if !self.options.has_networks {
            return answer(ask.id, unavailable("this node has no networks across nodes: its engine is simulated"), out);
        }
        if self.session.is_open() && !self.attachments.are_taken {
            let reason = "the managers are of a version that knows no attached containers: upgrade them first";
            return answer(ask.id, unavailable(reason), out);
        }
        if self.attachments.all.len() >= ATTACHMENTS_MAX {
            let reason =
                format!("this node has {ATTACHMENTS_MAX} attached containers, which is the most: remove some first");
            return answer(ask.id, unavailable(&reason), out);
        }
        let network = ask.network.parse().ok();
        let known = ask.container.as_deref().zip(network).filter(|_| !ask.addrs.is_empty());
        let known = known.and_then(|(container, network)| self.attachments.id_at(network, &ask.addrs, container));
        if let Some(id) = known
            && let Some(grant) = self.grant(id)
        {
            return answer(ask.id, Ok(grant), out);
        }
        self.touches += 1;
        let entry =
            Entry { network: ask.network, addrs: ask.addrs, is_asked: true, touched: self.touches, ..Entry::default() };
        if let Some(known) = known {
            self.attachments.all.remove(&known);
        }
        self.attachments.all.insert(ask.id, entry);
        self.attachments.is_news = true;
    }

    /// The network and the addresses of an attachment, if the managers have granted it and the node has the network.
    fn grant(&self, id: TaskId) -> Option<AttachmentGrant> {
        let entry = self.attachments.all.get(&id)?;
        let network = self.objects.get(&ObjectKey { kind: ObjectKind::Network, id: entry.granted? })?;
        Some(AttachmentGrant { id, network: network.clone(), addrs: entry.addrs.clone() })
    }

    /// Why the API has no answer yet, for people.
    fn why_unanswered(&self, id: TaskId) -> String {
        if let Some(network) = self.attachments.all.get(&id).and_then(|entry| entry.granted) {
            let unknown = || "no manager has told this node of the network yet".into();
            return self.lacks_net(&[network]).unwrap_or_else(unknown);
        }
        if !self.session.is_open() {
            return "this node has no connection to a manager that leads, which gives addresses".into();
        }
        if !self.attachments.is_listed {
            return "the containers of this node could not be listed".into();
        }
        "the managers did not answer in time".into()
    }

    /// Answers the API where the managers have granted what it asked for, and the node has the network.
    pub(super) fn answer_asked(&mut self, out: &mut Vec<Output>) {
        let is_had = |network: Option<ObjectId>| network.is_some_and(|network| self.lacks_net(&[network]).is_none());
        let asked =
            self.attachments.all.iter().filter(|(_, entry)| entry.is_asked && is_had(entry.granted)).map(|(id, _)| *id);
        let granted: Vec<_> = asked.filter_map(|id| self.grant(id)).collect();
        for grant in granted {
            if let Some(entry) = self.attachments.all.get_mut(&grant.id) {
                entry.is_asked = false;
            }
            answer(grant.id, Ok(grant), out);
        }
    }

    /// Takes the managers' grants and refusals of attachments.
    pub(super) fn attachments_answered(&mut self, answers: AttachmentAnswers, out: &mut Vec<Output>) {
        // A newer message has another answer.
        if answers.number != self.attachments.number {
            return;
        }
        self.attachments.resend_at_ms = None;
        for (id, answered) in answers.answers {
            let Some(entry) = self.attachments.all.get_mut(&id) else { continue };
            match answered {
                Ok(GrantedAttachment { network, addrs }) => {
                    if entry.granted != Some(network) || entry.addrs != addrs {
                        (entry.granted, entry.addrs) = (Some(network), addrs);
                        if let Some(container) = entry.container.clone() {
                            self.follow_attached(&container, out);
                        }
                    }
                }
                Err(refusal) => self.attachment_refused(id, refusal, out),
            }
        }
        self.answer_asked(out);
    }

    fn attachment_refused(&mut self, id: TaskId, refusal: AttachmentRefusal, out: &mut Vec<Output>) {
        let Some(entry) = self.attachments.all.get(&id).cloned() else { return };
        self.forget_attachment(id, out);
        if entry.is_asked {
            return answer(id, Err(AttachmentError::Refused(refusal)), out);
        }
        let network = entry.granted.or_else(|| entry.network.parse().ok());
        let Some((network, container)) = network.zip(entry.container) else { return };
        match refusal {
            AttachmentRefusal::NoNetwork | AttachmentRefusal::OtherNode => {
                self.attachments.foreign.insert((container, network));
            }
            refusal @ (AttachmentRefusal::NotAttachable | AttachmentRefusal::Other(_)) => {
                tracing::warn!(
                    %container,
                    %network,
                    ?refusal,
                    "a container that was connected to a network at the engine is disconnected: the managers refuse it"
                );
                out.push(Output::Attachment(AttachmentOutput::Detach { network, container }));
            }
        }
    }

    fn forget_attachment(&mut self, id: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.attachments.all.remove(&id) else { return };
        self.attachments.is_news = true;
        if let Some(container) = entry.container {
            self.follow_attached(&container, out);
        }
    }

    /// The node leaves: its containers are taken out of their networks.
    pub(super) fn forget_attachments(&mut self, out: &mut Vec<Output>) {
        let entries: Vec<_> = self.attachments.all.iter().map(|(id, entry)| (*id, entry.clone())).collect();
        for (id, entry) in entries {
            self.forget_attachment(id, out);
            if let Some((network, container)) = entry.granted.zip(entry.container) {
                out.push(Output::Attachment(AttachmentOutput::Detach { network, container }));
            }
        }
    }

    /// Has the containers listed that are no tasks and are in networks.
    pub(super) fn list_attached(&mut self, out: &mut Vec<Output>) {
        if !self.options.has_networks || !self.engine_up || self.leaving {
            return;
        }
        if self.attachments.listing.is_some() {
            self.attachments.list_again = true;
            return;
        }
        self.attachments.listing = Some(self.touches);
        self.attachments.list_again = false;
        out.push(Output::Attachment(AttachmentOutput::List));
    }

    fn attached_listed(
        &mut self,
        now: Now,
        result: Result<Vec<AttachedContainer>, EngineError>,
        out: &mut Vec<Output>,
    ) {
        let Some(as_of) = self.attachments.listing.take() else { return };
        if self.leaving {
            return;
        }
        let listed = match result {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "the attached containers of this node cannot be listed");
                out.push(Output::CheckEngine);
                self.list_at_ms = self.list_at_ms.min(now.mono_ms.saturating_add(RETRY_MS));
                return;
            }
        };
        self.attachments.is_listed = true;
        let (mut seen, mut still_foreign, mut touched) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for container in &listed {
            touched.insert(container.id.clone());
            for place in &container.networks {
                let key = (container.id.clone(), place.network);
                if self.attachments.foreign.contains(&key) {
                    still_foreign.insert(key);
                } else {
                    seen.insert(self.see_attached(now, container, place));
                }
            }
        }
        self.attachments.foreign = still_foreign;
        // An attachment that the API has just asked for has no container yet, and stays.
        let is_over =
            |id: &TaskId, entry: &Entry| entry.container.is_some() && !seen.contains(id) && entry.touched <= as_of;
        let over: Vec<_> =
            self.attachments.all.iter().filter(|(id, entry)| is_over(id, entry)).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.forget_attachment(id, out));
        touched.iter().for_each(|container| self.follow_attached(container, out));
        if self.attachments.list_again {
            self.list_attached(out);
        }
    }

    /// Takes over how the engine has a container in a network.
    fn see_attached(&mut self, now: Now, container: &AttachedContainer, place: &AttachedNetwork) -> TaskId {
        let sandbox = container.is_running.then(|| self.sandbox_of(container.sandbox.clone(), container.pid)).flatten();
        let attachments = &mut self.attachments;
        let known = attachments.id_at(place.network, &place.addrs, &container.id);
        let id = known.unwrap_or_else(|| TaskId::make(now.wall, attachments.rng.below(u64::MAX).into()));
        let entry = attachments.all.entry(id).or_insert_with(|| Entry {
            network: place.network.to_string(),
            addrs: place.addrs.clone(),
            ..Entry::default()
        });
        let is_same = entry.names == place.names && entry.is_running == container.is_running;
        entry.names.clone_from(&place.names);
        entry.is_running = container.is_running;
        entry.container = Some(container.id.clone());
        entry.sandbox = sandbox;
        entry.nameservers.clone_from(&container.nameservers);
        attachments.is_news |= known.is_none() || !is_same;
        id
    }

    /// Tells the managers all attachments, if one has changed or the managers have not answered.
    pub(super) fn say_attachments(&mut self, now: Now, out: &mut Vec<Output>) {
        let attachments = &mut self.attachments;
        let is_due = attachments.is_news || attachments.resend_at_ms.is_some_and(|at| at <= now.mono_ms);
        if !attachments.are_taken || !attachments.is_listed {
            attachments.resend_at_ms = None;
            return;
        }
        if !is_due || !self.session.is_open() {
            return;
        }
        attachments.is_news = false;
        attachments.number += 1;
        attachments.resend_at_ms = Some(now.mono_ms.saturating_add(RETRY_MS));
        let wanted = attachments.all.iter().take(ATTACHMENTS_MAX).map(|(id, entry)| WantedAttachment {
            id: *id,
            network: entry.granted.map_or_else(|| entry.network.clone(), |network| network.to_string()),
            addrs: entry.addrs.clone(),
            names: entry.names.clone(),
            is_running: entry.is_running,
        });
        let wanted = WantedAttachments { number: attachments.number, wanted: wanted.collect() };
        out.push(Output::Send(ToManager::Attachments(wanted)));
    }

    /// The entries of a container that the managers have granted.
    fn attached(&self, container: &str) -> impl Iterator<Item = (ObjectId, &Entry)> {
        let of = move |entry: &&Entry| entry.container.as_deref() == Some(container);
        self.attachments.all.values().filter(of).filter_map(|entry| Some((entry.granted?, entry)))
    }

    /// Tells `swarmd net` and the data plane how a container is in networks now.
    fn follow_attached(&mut self, id: &str, out: &mut Vec<Output>) {
        let addrs: Vec<_> = self
            .attached(id)
            .flat_map(|(network, entry)| entry.addrs.iter().map(move |addr| (network, *addr)))
            .collect();
        if addrs.is_empty() {
            if self.attachments.containers.remove(id).is_some() {
                self.networks.unload(id);
                self.networks.tell(out, [ToNet::RemoveContainer(id.to_owned())]);
                if self.data.is_up() {
                    out.push(Output::Data(ToData::RemoveContainer(id.to_owned())));
                }
            }
            return;
        }
        let sandbox = self.attached(id).find_map(|(_, entry)| entry.sandbox.clone());
        let now = LocalContainer { id: id.to_owned(), addrs, sandbox };
        if self.attachments.containers.get(id) != Some(&now) {
            self.networks.tell(out, [ToNet::PutContainer(now.clone())]);
            self.attachments.containers.insert(id.to_owned(), now);
        }
        if self.data.is_up() {
            out.extend(self.attached_names(id).map(|names| Output::Data(ToData::PutContainer(names))));
        }
    }

    /// The names of an attached container, and the networks whose names it can ask for.
    pub(super) fn attached_names(&self, id: &str) -> Option<ContainerNames> {
        let networks: Vec<_> = self
            .attached(id)
            .map(|(network, entry)| ContainerNetwork {
                network,
                addrs: entry.addrs.clone(),
                names: entry.names.clone(),
            })
            .collect();
        let nameservers = self.attached(id).next()?.1.nameservers.clone();
        let virtual_addrs = self.networks.virtual_addrs(id);
        Some(ContainerNames { container: id.to_owned(), networks, task: None, virtual_addrs, nameservers })
    }
}

fn answer(id: TaskId, answer: Result<AttachmentGrant, AttachmentError>, out: &mut Vec<Output>) {
    out.push(Output::Attachment(AttachmentOutput::Answer(id, answer)));
}
