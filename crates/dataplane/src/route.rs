//! The route of a published port: a value that is replaced when the table changes, so that a new connection takes no
//! lock.

mod candidates;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use arc_swap::ArcSwap;
use swarm_model::{Ingress, IngressChoice, IngressSource, NodeId, PortProtocol, TaskId};
use swarm_wire::endpoints::PublishedPort;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use self::candidates::Candidates;
use crate::{
    endpoint::{Endpoint, Lease},
    limits::{Admitted, Limits},
};

/// How an endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The endpoint runs here: the address of its container.
    Local(IpAddr),
    /// The endpoint runs on another node.
    Remote(NodeId),
}

/// An endpoint that can be chosen.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) way: Way,
}

/// The endpoints that the connections of a port go to.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) port: PublishedPort,
    /// The endpoints that get new connections; ports of one service share them.
    pub(crate) candidates: Candidates,
    /// The candidates that run on this node.
    pub(crate) locals: Candidates,
    /// How the service wants its connections to find their tasks.
    pub(crate) ingress: Arc<Ingress>,
    /// The limits of the service, with its connections at this node.
    pub(crate) limits: Arc<Limits>,
    /// Whether the table has the port. Connections that wait on one that it has no more are closed.
    pub(crate) is_published: bool,
}

/// An endpoint that was chosen. It counts the connection from now on.
pub(crate) struct Chosen {
    pub(crate) lease: Lease,
    pub(crate) way: Way,
    pub(crate) port: PublishedPort,
    /// The address that the task is to see.
    pub(crate) source: IngressSource,
}

impl Route {
    /// An endpoint for a client. Endpoints that were tried before are left out. None when no other is open.
    pub(crate) fn choose(&self, client: IpAddr, tried: &[TaskId]) -> Option<Chosen> {
        self.pools().find_map(|pool| match self.ingress.has_affinity {
            true => self.choose_by_client(pool, client, tried),
            false => self.choose_by_burden(pool, tried),
        })
    }

    /// Lets a connection of a client in. None when a limit of the service refuses it.
    pub(crate) fn admit(&self, client: IpAddr) -> Option<Admitted> {
        self.limits.admit(&self.ingress, client)
    }

    /// Whether this node is to listen on the port.
    pub(crate) fn is_for_this_node(&self) -> bool {
        self.ingress.choice != IngressChoice::OnlyLocal || self.locals.len() > 0
    }

    /// The candidates that are to be looked through, in this order.
    fn pools(&self) -> impl Iterator<Item = &Candidates> {
        let (first, second) = match self.ingress.choice {
            IngressChoice::Any => (&self.candidates, None),
            IngressChoice::PreferLocal => (&self.locals, Some(&self.candidates)),
            IngressChoice::OnlyLocal => (&self.locals, None),
        };
        std::iter::once(first).chain(second)
    }

    /// The endpoint with the highest weight for a client: all nodes choose the same, and a client moves only when its
    /// endpoint goes, or when one with a higher weight comes (rendezvous hashing).
    fn choose_by_client(&self, pool: &Candidates, client: IpAddr, tried: &[TaskId]) -> Option<Chosen> {
        let mut passed = tried.to_vec();
        loop {
            let left = pool.iter().filter(|candidate| !passed.contains(&candidate.endpoint.task));
            let candidate = left.max_by_key(|candidate| weight(client, candidate.endpoint.task))?;
            if let Some(chosen) = self.begin(candidate) {
                return Some(chosen);
            }
            passed.push(candidate.endpoint.task);
        }
    }

    /// The better one of two endpoints that are drawn at random: the one with fewer connections of this node, or else
    /// the one that was chosen less often.
    fn choose_by_burden(&self, all: &Candidates, tried: &[TaskId]) -> Option<Chosen> {
        if tried.is_empty()
            && let Some(candidate) = better_of_two(all.len(), |at| all.get(at))
            && let Some(chosen) = self.begin(candidate)
        {
            return Some(chosen);
        }
        let mut left: Vec<_> = all.iter().filter(|candidate| !tried.contains(&candidate.endpoint.task)).collect();
        while let Some(candidate) = better_of_two(left.len(), |at| left.get(at).copied()) {
            if let Some(chosen) = self.begin(candidate) {
                return Some(chosen);
            }
            left.retain(|other| other.endpoint.task != candidate.endpoint.task);
        }
        None
    }

    /// Whether there is an open endpoint that was not tried.
    pub(crate) fn has_other_than(&self, tried: &[TaskId]) -> bool {
        let is_other = |endpoint: &Endpoint| endpoint.is_open() && !tried.contains(&endpoint.task);
        self.pools().flat_map(Candidates::iter).any(|candidate| is_other(&candidate.endpoint))
    }

    fn begin(&self, candidate: &Candidate) -> Option<Chosen> {
        let lease = candidate.endpoint.begin()?;
        Some(Chosen { lease, way: candidate.way, port: self.port, source: self.ingress.source })
    }
}

/// The weight of a task for a client.
fn weight(client: IpAddr, task: TaskId) -> (u64, TaskId) {
    let client = match client.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    (xxh3_64(&[client.octets(), task.0.to_be_bytes()].concat()), task)
}

/// The better one of two different places that are drawn at random; the only one where there is one.
fn better_of_two<'a>(len: usize, at: impl Fn(usize) -> Option<&'a Candidate>) -> Option<&'a Candidate> {
    if len < 2 {
        return at(0);
    }
    let first = rand::random_range(0..len);
    let second = rand::random_range(0..len - 1);
    let (one, other) = (at(first)?, at(if second < first { second } else { second + 1 })?);
    Some(if other.endpoint.burden() < one.endpoint.burden() { other } else { one })
}

/// Names a published port.
pub(crate) type PortKey = (PortProtocol, u16);

/// A published port. It outlives tables, with the connections that wait for an endpoint.
pub(crate) struct Port {
    /// The port that nodes open.
    pub(crate) number: u16,
    route: ArcSwap<Route>,
    changed: Notify,
    /// Connections that wait for an endpoint.
    pub(crate) held: AtomicUsize,
}

impl Port {
    /// A port with its first route.
    pub(crate) fn new(route: Route) -> Self {
        Self {
            number: route.port.published,
            route: ArcSwap::from_pointee(route),
            changed: Notify::new(),
            held: AtomicUsize::new(0),
        }
    }

    /// The route now.
    pub(crate) fn route(&self) -> arc_swap::Guard<Arc<Route>> {
        self.route.load()
    }

    /// Replaces the route, and wakes the connections that wait. What reads the route later reads this one.
    pub(crate) fn set_route(&self, route: Route) {
        self.route.store(Arc::new(route));
        self.changed.notify_waiters();
    }

    /// The port is published no more.
    pub(crate) fn withdraw(&self) {
        let (candidates, locals) = Default::default();
        let route = Route { candidates, locals, is_published: false, ..Route::clone(&self.route()) };
        self.set_route(route);
    }

    /// Ready at the next change of the route after this call, also if nobody waits for it yet.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

#[cfg(test)]
mod tests;
