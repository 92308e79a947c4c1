//! Attachments: which containers that are no tasks are in the networks of the cluster.
//!
//! The node that has a container asks for its attachment. The proposer has checked that the network takes containers, and has
//! chosen the addresses; `apply` checks that nobody has them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use swarm_model::{Attachment, NodeId, ObjectId, TaskId};

use crate::{Event, Outcome, Refusal, State, apply::not_found};

/// The attachments of all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attachments {
    all: OrdMap<TaskId, Arc<Attachment>>,
    of_node: OrdSet<(NodeId, TaskId)>,
    of_network: OrdSet<(ObjectId, TaskId)>,
}

impl State {
    /// All attachments, in order of their ids.
    pub fn attachments(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments.all.values()
    }

    /// An attachment.
    pub fn attachment(&self, id: TaskId) -> Option<&Arc<Attachment>> {
        self.attachments.all.get(&id)
    }

    /// The attachments of the containers of a node.
    pub fn attachments_of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Attachment>> {
        let of_node = self.attachments.of_node.range((node, TaskId(0))..=(node, TaskId(u128::MAX)));
        of_node.filter_map(|(_, id)| self.attachment(*id))
    }

    /// The attachments to a network.
    pub fn attachments_of_network(&self, network: ObjectId) -> impl Iterator<Item = &Arc<Attachment>> {
        let of_network = self.attachments.of_network.range((network, TaskId(0))..=(network, TaskId(u128::MAX)));
        of_network.filter_map(|(_, id)| self.attachment(*id))
    }

    /// The container of an attachment, for people.
    pub fn describe_attachment(&self, attachment: &Attachment) -> String {
        let node = self.node(attachment.node);
        let host = node.and_then(|node| node.description.as_ref()).map(|description| description.hostname.clone());
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| attachment.node.to_string());
        match attachment.names.first() {
            Some(name) => format!("container {name} on node {host}"),
            None => format!("a container on node {host}"),
        }
    }

    /// Makes, changes or removes an attachment. Its addresses follow.
    pub(crate) fn set_attachment(&mut self, id: TaskId, new: Option<Arc<Attachment>>) {
        let old = self.attachments.all.remove(&id);
        self.follow_attachment_addrs(old.as_deref(), new.as_deref());
        let Attachments { all, of_node, of_network } = &mut self.attachments;
        if let Some(old) = &old {
            of_node.remove(&(old.node, id));
            of_network.remove(&(old.network, id));
        }
        if let Some(new) = new {
            of_node.insert((new.node, id));
            of_network.insert((new.network, id));
            all.insert(id, new);
        }
    }
}

pub(crate) fn put(state: &mut State, new: &Arc<Attachment>, events: &mut Vec<Event>) -> Outcome {
    let id = new.id;
    match state.attachment(id) {
        Some(old) if (old.node, old.network, &old.addrs) != (new.node, new.network, &new.addrs) => {
            return Err(Refusal::Stale(format!("attachment {id} is another container's")));
        }
        Some(_) => {}
        None => {
            state.node(new.node).ok_or_else(|| not_found("node", new.node))?;
            if state.task(id).is_some() {
                return Err(Refusal::Invalid(format!("{id} is the id of a task")));
            }
            if new.addrs.is_empty() {
                return Err(Refusal::Invalid(format!("attachment {id} has no address")));
            }
            state.check_addrs(&new.network_addrs())?;
        }
    }
    state.set_attachment(id, Some(new.clone()));
    events.push(Event::Attachment { attachment: id, node: new.node });
    Ok(())
}

pub(crate) fn remove(state: &mut State, id: TaskId, events: &mut Vec<Event>) {
    if let Some(node) = state.attachment(id).map(|found| found.node) {
        state.set_attachment(id, None);
        events.push(Event::Attachment { attachment: id, node });
    }
}

/// Removes the attachments of a node that is removed.
pub(crate) fn remove_of_node(state: &mut State, node: NodeId, events: &mut Vec<Event>) {
    let ids: Vec<TaskId> = state.attachments_of_node(node).map(|found| found.id).collect();
    ids.into_iter().for_each(|id| remove(state, id, events));
}

#[cfg(test)]
mod tests;
