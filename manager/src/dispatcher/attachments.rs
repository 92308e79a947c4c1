//! Attachments: the containers of a node that are no tasks, in networks of the cluster, as the node asks for them.
//!
//! A node names all attachments that it wants each time. A step compares them with the state and proposes the difference,
//! until nothing is left to propose. Then the node gets its answer. A node asks for itself only: the session says which.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use swarm_core::{ATTACHMENTS_LEVEL, Op, State, Tx};
use swarm_model::{Attachment, NamedObject, NodeId, ObjectKey, ObjectKind, TaskId};
use swarm_wire::agent::{AttachmentAnswers, AttachmentRefusal, GrantedAttachment, WantedAttachment, WantedAttachments};
use tokio::sync::watch;

use super::serve::Ctx;

/// Proposals for one set of attachments. Two are needed where another node got an address first; the rest is room.
const PROPOSALS_MAX: usize = 8;

/// The changes that give the state the attachments that a node wants, and the answers to the node.
#[derive(Debug, Default)]
struct Look {
    txs: Vec<Tx>,
    answers: Vec<(TaskId, Result<GrantedAttachment, AttachmentRefusal>)>,
}

impl Ctx<'_> {
    /// Gives the node the attachments that it wants, for as long as the session lasts.
    pub(super) async fn attach(
        &self,
        mut wanted: watch::Receiver<WantedAttachments>,
        answered: &watch::Sender<AttachmentAnswers>,
    ) -> std::convert::Infallible {
        while wanted.changed().await.is_ok() {
            let now = wanted.borrow_and_update().clone();
            if let Some(answers) = self.settle_attachments(&now.wanted).await {
                answered.send_replace(AttachmentAnswers { number: now.number, answers });
            }
        }
        // The reading half has ended, and the session with it.
        std::future::pending().await
    }

    /// Proposes until the state has what is wanted. None where it cannot be written: the node asks again.
    pub(super) async fn settle_attachments(
        &self,
        wanted: &[WantedAttachment],
    ) -> Option<Vec<(TaskId, Result<GrantedAttachment, AttachmentRefusal>)>> {
        for _ in 0..PROPOSALS_MAX {
            let Look { txs, answers } = look(&self.state(), self.peer.node, wanted);
            if txs.is_empty() {
                let refused = answers.iter().filter_map(|(id, answer)| Some((id, answer.as_ref().err()?)));
                // A node finds the containers of its neighbours as well.
                for (id, refusal) in refused.filter(|(_, refusal)| **refusal != AttachmentRefusal::OtherNode) {
                    let network = wanted.iter().find(|want| want.id == *id).map(|want| want.network.as_str());
                    let network = network.unwrap_or_default();
                    tracing::warn!(node = %self.peer.node, network, ?refusal, "a container was not attached to a network");
                }
                return Some(answers);
            }
            if let Err(error) = self.dispatcher.raft.propose(txs).await {
                tracing::warn!(node = %self.peer.node, %error, "attachments of containers were not committed");
                return None;
            }
        }
        tracing::warn!(node = %self.peer.node, "attachments of containers were overtaken {PROPOSALS_MAX} times");
        None
    }
}

/// Compares the attachments that a node wants with those that it has.
fn look(state: &State, node: NodeId, wanted: &[WantedAttachment]) -> Look {
    let mut look = Look::default();
    let mut left: BTreeMap<TaskId, &Arc<Attachment>> =
        state.attachments_of_node(node).map(|attachment| (attachment.id, attachment)).collect();
    let mut puts = Vec::new();
    for want in wanted {
        let known = known(state, &left, want).and_then(|id| left.remove(&id));
        let answer = match known {
            Some(known) => changed(known, want).map(|changed| {
                puts.extend(changed);
                GrantedAttachment { network: known.network, addrs: known.addrs.to_vec() }
            }),
            None => new(state, node, want).map(|new| {
                let granted = GrantedAttachment { network: new.network, addrs: new.addrs.to_vec() };
                puts.push(new);
                granted
            }),
        };
        look.answers.push((want.id, answer));
    }
    if !left.is_empty() {
        // Attachments of the state that the node does not want any more, or that are refused now.
        look.txs.push(Tx::new(vec![Op::RemoveAttachments { attachments: left.into_keys().collect() }]));
    }
    look.txs.extend(puts.into_iter().map(|put| Tx::new(vec![Op::PutAttachment(Arc::new(put))])));
    look
}

/// The attachment that the node means: that with the id, or that with the addresses.
fn known(state: &State, left: &BTreeMap<TaskId, &Arc<Attachment>>, want: &WantedAttachment) -> Option<TaskId> {
    if left.contains_key(&want.id) {
        return Some(want.id);
    }
    let network = network(state, &want.network)?.id;
    let has_all =
        |found: &Attachment| found.network == network && want.addrs.iter().all(|addr| found.addrs.contains(addr));
    left.values().filter(|_| !want.addrs.is_empty()).find(|found| has_all(found)).map(|found| found.id)
}

/// An attachment with the names and the state that its node says, if they are other ones.
fn changed(known: &Attachment, want: &WantedAttachment) -> Result<Option<Attachment>, AttachmentRefusal> {
    let names = names(want)?;
    let now = Attachment { names, is_running: want.is_running, ..known.clone() };
    Ok(Some(now).filter(|now| now != known))
}

fn new(state: &State, node: NodeId, want: &WantedAttachment) -> Result<Attachment, AttachmentRefusal> {
    let other = |reason: String| AttachmentRefusal::Other(reason);
    if state.feature_level() < ATTACHMENTS_LEVEL {
        return Err(other(
            "a manager of this swarm is of a version that knows no attached containers: upgrade all managers first"
                .into(),
        ));
    }
    if state.attachment(want.id).is_some() || state.task(want.id).is_some() {
        return Err(other(format!("{} is the id of another container or task", want.id)));
    }
    let network = network(state, &want.network).ok_or(AttachmentRefusal::NoNetwork)?;
    if !network.content.as_network().is_some_and(|content| content.attachable) {
        return Err(AttachmentRefusal::NotAttachable);
    }
    if state.attachments_of_network(network.id).any(|other| is_neighbours(state, node, other, want)) {
        return Err(AttachmentRefusal::OtherNode);
    }
    let names = names(want)?;
    let addrs: Vec<IpAddr> = state
        .choose_attachment_addrs(want.id, network.id, &want.addrs)
        .map_err(|refusal| other(refusal.to_string()))?;
    Ok(Attachment { id: want.id, node, network: network.id, addrs: addrs.into(), names, is_running: want.is_running })
}

/// Whether another node with the same engine has the container that a node found at the engine.
fn is_neighbours(state: &State, node: NodeId, other: &Attachment, want: &WantedAttachment) -> bool {
    let engine = |node| state.node(node)?.description.as_ref().map(|description| description.engine_id.as_str());
    let is_same_engine = engine(node).is_some_and(|id| !id.is_empty() && engine(other.node) == Some(id));
    is_same_engine && want.addrs.iter().any(|addr| other.addrs.contains(addr))
}

fn names(want: &WantedAttachment) -> Result<Arc<[String]>, AttachmentRefusal> {
    Attachment::validate_names(&want.names).map_err(|invalid| AttachmentRefusal::Other(invalid.to_string()))?;
    Ok(want.names.clone().into())
}

/// A network, by its id or its name.
fn network<'a>(state: &'a State, term: &str) -> Option<&'a Arc<NamedObject>> {
    let by_id = term.parse().ok().and_then(|id| state.object(ObjectKey { kind: ObjectKind::Network, id }));
    by_id.or_else(|| state.object_by_name(ObjectKind::Network, term))
}
