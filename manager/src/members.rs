//! Other managers: who they are, how they are reached, and which of them take part in Raft.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use swarm_consensus::{Consensus, Dialer, Steering};
use swarm_core::{Op, State, Tx};
use swarm_model::{Node, NodeId, NodeRole, NodeSpec};
use swarm_wire::{Alpn, BoxedStream, IdentityHolder, PeerIdentity, tls};
use tokio::time::sleep;

use crate::feed::{Feed, Topic};

/// Pause between two steps of a change of the managers.
const STEP: Duration = Duration::from_millis(50);
/// Pause after a step that did not succeed, or while a manager catches up.
const RETRY: Duration = Duration::from_millis(250);
/// Nanoseconds in a second.
const NS_PER_S: i64 = 1_000_000_000;
/// Managers at wrong addresses that are told of; there are seven managers at most in practice.
const STRANGERS_MAX: usize = 64;
/// How often the leader looks although nothing happened.
const IDLE: Duration = Duration::from_secs(5);

/// Connects to other managers with this node's certificate.
#[derive(Debug)]
pub(crate) struct TlsDialer {
    pub(crate) identity: Arc<IdentityHolder>,
    /// Our end of connections, if the node has an address of its own.
    pub(crate) source: Option<IpAddr>,
    /// Whose addresses are whose.
    pub(crate) feed: Arc<Feed>,
    /// Addresses that answered as another manager, and as which: each is said once.
    pub(crate) strangers: Mutex<BTreeSet<(String, NodeId)>>,
}

impl Dialer for TlsDialer {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let connected = tls::connect(addr, self.source, &self.identity, Alpn::Raft).await;
            let connected = connected.map_err(io::Error::other)?;
            // It is not for this end to refuse it: what is known here may be old, and the other end refuses what is meant
            // for somebody else.
            if let Some(problem) = stranger(&self.feed.state(), addr, connected.peer.node)
                && let Ok(mut said) = self.strangers.lock()
                && said.len() < STRANGERS_MAX
                && said.insert((addr.to_owned(), connected.peer.node))
            {
                tracing::warn!("{problem}");
            }
            Ok(connected.stream)
        })
    }

    fn identity_version(&self) -> u64 {
        self.identity.times_replaced()
    }
}

/// That another manager answers at an address than the one whose it is.
fn stranger(state: &State, addr: &str, answers: NodeId) -> Option<String> {
    let has = |node: &&Arc<Node>| node.role == NodeRole::Manager && node.manager_addr.as_deref() == Some(addr);
    let owners: Vec<&Arc<Node>> = state.nodes().filter(has).collect();
    if owners.is_empty() || owners.iter().any(|node| node.id == answers) {
        return None;
    }
    let name = |node: &Node| match node.hostname() {
        "" => node.id.to_string(),
        hostname => format!("{hostname} ({})", node.id),
    };
    let owners: Vec<String> = owners.into_iter().map(|node| name(node)).collect();
    let answers = state.node(answers).map_or_else(|| answers.to_string(), |node| name(node));
    Some(format!(
        "the manager at {addr} should be {}, and {answers} answers there: if the address has moved, `swarm leave` on the \
         manager whose it is not any more, and join again with another --advertise-addr",
        owners.join(" or ")
    ))
}

/// Whether a peer may speak Raft with this manager.
///
/// What this manager knows may be old, and a peer that it does not know yet may lead it to what is new: so only what
/// is certain counts. A node that was removed never comes back; one that is a worker now is locked out with the
/// certificates that it had until then.
///
/// # Errors
/// Why not.
pub(crate) fn admit(peer: &PeerIdentity, state: &State) -> Result<(), String> {
    if peer.role != NodeRole::Manager {
        return Err(format!("node {} is a worker", peer.node));
    }
    admit_any(peer, state)?;
    let demoted = |node: &Node| node.role == NodeRole::Worker && peer.cert_expires_at < node.cert_expires_at;
    if state.node(peer.node).is_some_and(|node| demoted(node)) {
        return Err(format!("node {} is no manager any more", peer.node));
    }
    Ok(())
}

/// Whether a peer may be connected at all, as far as this manager knows for certain.
///
/// # Errors
/// Why not.
pub(crate) fn admit_any(peer: &PeerIdentity, state: &State) -> Result<(), String> {
    let Some(cluster) = state.cluster() else { return Ok(()) };
    if peer.cluster != cluster.id {
        return Err(format!("node {} is of swarm {}, this is {}", peer.node, peer.cluster, cluster.id));
    }
    if cluster.removed_nodes.contains_key(&peer.node) {
        return Err(format!("node {} was removed from the swarm", peer.node));
    }
    // The connection is there because this node trusts the issuer by its own certificate; what is not among the roots of
    // this state may be newer than the state.
    if cluster.former_roots.contains(&peer.issuer) {
        return Err(format!("the certificate of node {} comes from a root CA that was replaced", peer.node));
    }
    Ok(())
}

/// Keeps the members of Raft as the nodes' roles say, as long as this manager leads.
pub(crate) async fn steer(consensus: &Consensus, feed: &Arc<Feed>) {
    let watch = feed.watch(Topic::Nodes);
    let mut said = None;
    loop {
        let state = feed.state();
        let wanted = wanted(&state);
        let result = match wanted.is_empty() {
            true => Ok(Steering::Settled),
            false => consensus.steer_members(&wanted).await,
        };
        let (pause, waits_for) = match result {
            Ok(Steering::Settled) => (IDLE, None),
            Ok(Steering::Underway(None)) => (STEP, None),
            Ok(Steering::Underway(Some(reason))) => (RETRY, Some(reason)),
            Err(error) => (RETRY, Some(error.to_string())),
        };
        if waits_for.is_some() && waits_for != said {
            tracing::info!(reason = waits_for, "a change of the managers waits");
        }
        said = waits_for;
        if let Err(error) = release(consensus, &state).await {
            tracing::warn!(error, "a manager that was demoted is not a worker yet");
        }
        tokio::select! {
            () = watch.changed() => sleep(STEP).await,
            () = sleep(pause) => {}
        }
    }
}

/// Raft id and address of the nodes that are to be managers.
fn wanted(state: &State) -> BTreeMap<u64, String> {
    let managers = state.nodes().filter(|node| is_wanted(node));
    managers.filter_map(|node| Some((node.raft_id?, node.manager_addr.clone()?))).collect()
}

fn is_wanted(node: &Node) -> bool {
    (node.spec.role, node.role) == (NodeRole::Manager, NodeRole::Manager)
}

/// Makes workers of the nodes that are out of Raft: their next certificate says so, the present one ends to count.
async fn release(consensus: &Consensus, state: &State) -> Result<(), String> {
    let members = consensus.status().members;
    let is_out = |node: &&Arc<Node>| members.iter().all(|member| Some(member.raft_id) != node.raft_id);
    let demoted = state.nodes().filter(|n| n.role == NodeRole::Manager && !is_wanted(n)).filter(is_out);
    let txs: Vec<Tx> = demoted
        .map(|node| {
            Tx::new(vec![Op::AdmitNode {
                node: node.id,
                role: NodeRole::Worker,
                // Certificates count in seconds: the one that it has is older than this.
                cert_expires_at: node.cert_expires_at.plus_ns(NS_PER_S),
                manager_addr: None,
                availability: node.spec.availability,
            }])
        })
        .collect();
    if txs.is_empty() {
        return Ok(());
    }
    consensus.propose(txs).await.map(drop).map_err(|error| error.to_string())
}

/// Removes all managers but this one: they are lost, and must not come back as they were.
pub(crate) fn remove_others(state: &State, own: NodeId) -> Tx {
    let mut ops = Vec::new();
    for node in state.nodes().filter(|node| node.role == NodeRole::Manager || node.spec.role == NodeRole::Manager) {
        if node.id != own {
            ops.push(Op::AdmitNode {
                node: node.id,
                role: NodeRole::Worker,
                cert_expires_at: node.cert_expires_at,
                manager_addr: None,
                availability: node.spec.availability,
            });
            ops.push(Op::RemoveNode { node: node.id, force: true });
        }
    }
    // It may have been on its way out.
    if let Some(node) = state.node(own).filter(|node| node.spec.role != NodeRole::Manager) {
        let spec = NodeSpec { role: NodeRole::Manager, ..NodeSpec::clone(&node.spec) };
        ops.push(Op::UpdateNode { node: own, spec: Arc::new(spec), drain_deadline: node.drain_deadline });
    }
    Tx::new(ops)
}

#[cfg(test)]
mod tests {
    use swarm_model::{Availability, ClusterId, JoinTokens, Redacted, RootCa, RootRotation, Timestamp};

    use super::*;
    use crate::testing::{CLUSTER, World};

    fn peer(node: u128, expires_at: i64) -> PeerIdentity {
        PeerIdentity {
            node: NodeId(node),
            role: NodeRole::Manager,
            cluster: CLUSTER,
            cert_valid_from: Timestamp::ZERO,
            cert_expires_at: Timestamp(expires_at),
            issuer: String::new(),
        }
    }

    fn admit_as(world: &mut World, node: u128, role: NodeRole, expires_at: i64) {
        world.apply(Op::AdmitNode {
            node: NodeId(node),
            role,
            cert_expires_at: Timestamp(expires_at),
            manager_addr: (role == NodeRole::Manager).then(|| "10.0.0.1:2377".into()),
            availability: Availability::Active,
        });
    }

    /// A manager that has just joined reads the log from its start, and hears of it from a leader whose certificate comes
    /// from a root of which that log tells only later.
    #[test]
    fn only_roots_that_were_replaced_count_no_more() {
        let mut world = World::new(0);
        for key_id in ["before", "now"] {
            let root = RootCa { key_id: key_id.into(), ..RootCa::default() };
            world.apply(Op::StartRootRotation(Arc::new(RootRotation { root, cross_signed_pem: String::new() })));
            let join_tokens = Arc::new(JoinTokens { worker: Redacted::default(), manager: Redacted::default() });
            world.apply(Op::FinishRootRotation { key_id: key_id.into(), join_tokens });
        }
        let of = |issuer: &str| PeerIdentity { issuer: issuer.into(), ..peer(5, 100) };
        assert_eq!(admit(&of("now"), &world.state), Ok(()));
        assert_eq!(admit(&of("later"), &world.state), Ok(()));
        assert!(admit(&of("before"), &world.state).unwrap_err().contains("was replaced"));
    }

    #[test]
    fn who_is_a_manager_now_is_admitted() {
        let mut world = World::new(1);
        admit_as(&mut world, 5, NodeRole::Manager, 100);
        assert_eq!(admit(&peer(5, 100), &world.state), Ok(()));
        assert_eq!(admit(&peer(6, 100), &world.state), Ok(()), "this manager may know less than the peer");
        let worker = PeerIdentity { role: NodeRole::Worker, ..peer(5, 100) };
        assert!(admit(&worker, &world.state).unwrap_err().contains("is a worker"));
        let other = PeerIdentity { cluster: ClusterId(1), ..peer(5, 100) };
        assert!(admit(&other, &world.state).unwrap_err().contains("is of swarm"));

        admit_as(&mut world, 5, NodeRole::Worker, 101);
        assert!(admit(&peer(5, 100), &world.state).unwrap_err().contains("no manager any more"));
        assert_eq!(admit(&peer(5, 101), &world.state), Ok(()), "a promotion that this manager has not heard of");
        world.apply(Op::RemoveNode { node: NodeId(5), force: true });
        assert!(admit(&peer(5, 101), &world.state).unwrap_err().contains("was removed"));
        assert_eq!(admit(&peer(9, 1), &State::default()), Ok(()), "a manager that joins knows nobody");
    }

    #[test]
    fn a_manager_at_the_address_of_another_is_named() {
        let mut world = World::new(0);
        for (node, addr) in [(5, "10.0.0.5:2377"), (6, "10.0.0.6:2377"), (7, "10.0.0.6:2377")] {
            world.apply(Op::AdmitNode {
                node: NodeId(node),
                role: NodeRole::Manager,
                cert_expires_at: Timestamp(100),
                manager_addr: Some(addr.to_owned()),
                availability: Availability::Active,
            });
        }
        let told = |addr: &str, answers: u128| stranger(&world.state, addr, NodeId(answers));
        assert_eq!((told("10.0.0.5:2377", 5), told("10.0.0.6:2377", 7), told("10.0.0.9:2377", 5)), (None, None, None));
        let problem = told("10.0.0.5:2377", 6).expect("another one answers");
        let (own, other) = (NodeId(5).to_string(), NodeId(6).to_string());
        assert!(problem.contains(&format!("at 10.0.0.5:2377 should be {own}, and {other} answers there")), "{problem}");
    }

    #[test]
    fn a_raft_id_is_never_used_again() {
        let mut world = World::new(0);
        let id = |world: &World| world.state.node(NodeId(5)).unwrap().raft_id;
        let founder = (7_u128 << 64) | 99;
        admit_as(&mut world, founder, NodeRole::Manager, 1);
        assert_eq!(world.state.node(NodeId(founder)).unwrap().raft_id, Some(99));
        admit_as(&mut world, 5, NodeRole::Manager, 1);
        let first = id(&world);
        admit_as(&mut world, 5, NodeRole::Manager, 2);
        assert_eq!(id(&world), first, "a renewal changes nothing");
        admit_as(&mut world, 5, NodeRole::Worker, 2);
        assert_eq!(id(&world), None);
        admit_as(&mut world, 5, NodeRole::Manager, 3);
        assert!(id(&world) > first);
    }
}
