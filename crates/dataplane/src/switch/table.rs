//! The places of the containers of an encrypted network: an immutable value, which frames are carried by.

use std::{net::IpAddr, sync::Arc};

use imbl::OrdMap;
use swarm_model::NodeId;
use swarm_net::{Mac, mac_of};
use swarm_wire::networks::{Member, MemberKey, Members, NetworkEndpointRecord, NetworkEndpointState};

/// The places of a network's containers.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// The nodes of the Ethernet addresses.
    nodes: OrdMap<Mac, NodeId>,
    owners: OrdMap<IpAddr, Mac>,
    /// The engines of the nodes. Containers of one engine are on one bridge, whichever node they belong to.
    engines: OrdMap<NodeId, Arc<str>>,
}

/// Why a frame of another node is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The sender of the frame is no container of the node that sent it.
    Forged,
    /// Its sender is no container of the network, as far as is known.
    Unknown,
    /// Its receiver is no container of this node.
    Stray,
}

impl Table {
    /// Takes records that changed, each with what it was before.
    pub(super) fn change(&mut self, members: &Members, changed: &[(MemberKey, Option<Member>)]) {
        // One change may take an address from a task and give it to another task.
        for (_, before) in changed {
            if let Some(Member::Endpoint(before)) = before {
                self.remove(before);
            }
        }
        for (key, _) in changed {
            match (key, members.get(*key)) {
                (_, Some(Member::Endpoint(endpoint))) => self.put(endpoint),
                (MemberKey::Node(node), Some(Member::Node(record))) if !record.engine.is_empty() => {
                    self.engines.insert(*node, record.engine.as_str().into());
                }
                (MemberKey::Node(node), _) => drop(self.engines.remove(node)),
                _ => {}
            }
        }
    }

    fn put(&mut self, endpoint: &NetworkEndpointRecord) {
        if let Some(mac) = mac_of(&endpoint.addrs).filter(|_| endpoint.state != NetworkEndpointState::Gone) {
            self.nodes.insert(mac, endpoint.node);
            self.owners.extend(endpoint.addrs.iter().map(|addr| (*addr, mac)));
        }
    }

    fn remove(&mut self, endpoint: &NetworkEndpointRecord) {
        if let Some(mac) = mac_of(&endpoint.addrs).filter(|mac| self.nodes.get(mac) == Some(&endpoint.node)) {
            self.nodes.remove(&mac);
            endpoint.addrs.iter().for_each(|addr| _ = self.owners.remove(addr));
        }
    }

    /// Whether a node's containers are on the same bridge as those of another one.
    fn is_with(&self, node: NodeId, other: NodeId) -> bool {
        let engine = self.engines.get(&node);
        node == other || engine.is_some() && engine == self.engines.get(&other)
    }

    /// The node that has the container with this address; none for one of this node, and for one that nobody has.
    pub(super) fn way_to(&self, mac: Mac, own: NodeId) -> Option<NodeId> {
        self.nodes.get(&mac).copied().filter(|node| !self.is_with(*node, own))
    }

    /// The Ethernet address of a container of another node.
    pub(super) fn owner(&self, addr: IpAddr, own: NodeId) -> Option<Mac> {
        self.owners.get(&addr).copied().filter(|mac| self.way_to(*mac, own).is_some())
    }

    /// Whether a frame of another node may be passed to the containers of this one.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(&self, node: NodeId, own: NodeId, from: Mac, to: Mac) -> Result<(), Refusal> {
        let has = |node, mac| self.nodes.get(mac).is_some_and(|of| self.is_with(*of, node));
        if !self.nodes.contains_key(&from) {
            return Err(Refusal::Unknown);
        }
        if !has(node, &from) || has(own, &from) {
            return Err(Refusal::Forged);
        }
        if has(own, &to) { Ok(()) } else { Err(Refusal::Stray) }
    }
}

#[cfg(test)]
mod tests;
