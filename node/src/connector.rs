//! The agent's way to the managers: addresses, certificates, and which one is tried next.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use swarm_agent::{ByteStream, Connector, Purpose};
use swarm_model::{NodeCertificate, NodeRole};
use swarm_wire::{Alpn, IdentityHolder, agent::Authority, tls};
use tokio::sync::watch;

/// Connects the agent to the managers that are known.
#[derive(Debug)]
pub(crate) struct ManagerConnector {
    identity: Arc<IdentityHolder>,
    /// Our end of connections, if the node has an address of its own.
    source: Option<IpAddr>,
    /// Where this node's own manager listens, which may differ from what it tells the others.
    own: Option<String>,
    known: watch::Sender<Vec<String>>,
    /// The role that the managers want the node to have, as far as they said.
    wanted_role: watch::Sender<Option<NodeRole>>,
    /// Whose certificates count, as far as the managers said.
    authority: watch::Sender<Option<Authority>>,
    /// The certificate that the node has, as the managers are told.
    certificate: watch::Sender<NodeCertificate>,
    /// The manager of the last session; the next attempt starts with it, or after it if it failed.
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    next: usize,
    session: Option<String>,
}

impl ManagerConnector {
    /// Knows these managers to begin with.
    pub(crate) fn new(
        identity: Arc<IdentityHolder>,
        source: Option<IpAddr>,
        own: Option<String>,
        known: Vec<String>,
    ) -> Self {
        Self {
            authority: watch::Sender::new(None),
            certificate: watch::Sender::new(identity.identity().certificate()),
            identity,
            source,
            own,
            known: watch::Sender::new(known),
            wanted_role: watch::Sender::new(None),
            place: Mutex::default(),
        }
    }

    /// The managers that are known, and every change of that.
    pub(crate) fn known(&self) -> watch::Receiver<Vec<String>> {
        self.known.subscribe()
    }

    /// The role that the managers want the node to have, and every change of that.
    pub(crate) fn wanted_role(&self) -> watch::Receiver<Option<NodeRole>> {
        self.wanted_role.subscribe()
    }

    /// Whose certificates count, and every change of that.
    pub(crate) fn wanted_authority(&self) -> watch::Receiver<Option<Authority>> {
        self.authority.subscribe()
    }

    /// The node's identity was replaced.
    pub(crate) fn identity_replaced(&self) {
        self.certificate.send_replace(self.identity.identity().certificate());
    }

    /// A manager wants the node to have this role.
    pub(crate) fn want_role(&self, role: NodeRole) {
        self.wanted_role.send_replace(Some(role));
    }

    /// Connects to a manager: the one that is wanted, else the known ones one after another, from the one after the
    /// last failure on.
    pub(crate) async fn connect_any(&self, wanted: Option<String>, alpn: Alpn) -> io::Result<tls::Connected> {
        let mut candidates = self.known.borrow().clone();
        candidates.extend(self.own.iter().filter(|own| !candidates.contains(own)).cloned().collect::<Vec<_>>());
        let first = if candidates.is_empty() { 0 } else { self.place().next % candidates.len() };
        candidates.rotate_left(first);
        let count = candidates.len();
        let mut problems = Vec::new();
        let order = wanted.into_iter().map(|addr| (None, addr));
        let order = order.chain(candidates.into_iter().enumerate().map(|(i, addr)| (Some((first + i) % count), addr)));
        for (index, addr) in order {
            // The caller may give up while this one hangs; the next call starts behind it.
            if let Some(index) = index {
                self.place().next = index + 1;
            }
            match tls::connect(&addr, self.source, &self.identity, alpn).await {
                Ok(connected) => {
                    let mut place = self.place();
                    place.next = index.unwrap_or(place.next);
                    place.session = Some(addr);
                    return Ok(connected);
                }
                Err(e) => problems.push(e.to_string()),
            }
        }
        if problems.is_empty() {
            problems.push("no manager is known".to_owned());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, problems.join("; ")))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for ManagerConnector {
    fn connect(&self, purpose: Purpose) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        async move {
            let connected = match purpose {
                Purpose::Session { leader } => self.connect_any(leader, Alpn::Agent).await?,
                Purpose::Logs => {
                    let Some(addr) = self.place().session.clone() else {
                        return Err(io::Error::new(io::ErrorKind::NotConnected, "there is no session"));
                    };
                    tls::connect(&addr, self.source, &self.identity, Alpn::Agent).await.map_err(io::Error::other)?
                }
            };
            Ok(Box::new(connected.stream) as Box<dyn ByteStream>)
        }
        .boxed()
    }

    fn role(&self, role: NodeRole) {
        self.want_role(role);
    }

    fn authority(&self, authority: Authority) {
        self.authority.send_replace(Some(authority));
    }

    fn certificate(&self) -> watch::Receiver<NodeCertificate> {
        self.certificate.subscribe()
    }

    fn managers(&self, addrs: &[String]) {
        self.known.send_if_modified(|known| {
            // A manager that says it knows none is mistaken.
            let changed = !addrs.is_empty() && known.as_slice() != addrs;
            if changed {
                *known = addrs.to_vec();
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::testing::TestCluster;

    /// A manager that accepts one connection after another.
    async fn manager(cluster: &TestCluster) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let holder = cluster.holder(NodeRole::Manager);
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                open.push(tls::accept(tcp, &holder).await);
            }
        });
        addr
    }

    async fn dead_addr() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn it_moves_on_to_other_managers_and_stays_with_one_that_answers() {
        let cluster = TestCluster::new();
        let (dead, alive) = (dead_addr().await, manager(&cluster).await);
        let worker = Arc::new(cluster.holder(NodeRole::Worker));
        let connector = ManagerConnector::new(worker, None, None, vec![dead.clone(), alive.clone()]);
        connector.connect_any(None, Alpn::Agent).await.unwrap();
        assert_eq!(connector.place().session.as_ref(), Some(&alive));
        // The next attempt begins with the one that answered; one that is wanted comes first.
        assert_eq!(connector.place().next, 1);
        connector.connect_any(Some(dead.clone()), Alpn::Agent).await.unwrap();

        connector.managers(&[]);
        assert_eq!(*connector.known().borrow(), [dead.clone(), alive]);
        connector.managers(std::slice::from_ref(&dead));
        let error = connector.connect_any(None, Alpn::Agent).await.err().unwrap().to_string();
        assert!(error.contains(&dead), "{error}");
    }

    #[tokio::test]
    async fn one_manager_that_is_left_is_found_whatever_came_before() {
        let cluster = TestCluster::new();
        let (dead, alive) = (dead_addr().await, manager(&cluster).await);
        let worker = Arc::new(cluster.holder(NodeRole::Worker));
        let known = |at: usize| (0..5).map(|i| if i == at { alive.clone() } else { dead.clone() }).collect();
        for at in 0..5 {
            let connector = ManagerConnector::new(worker.clone(), None, None, known(at));
            for _ in 0..2 {
                // Also when the leader that is wanted is gone.
                connector.connect_any(Some(dead.clone()), Alpn::Agent).await.unwrap();
                assert_eq!(connector.place().session.as_ref(), Some(&alive));
            }
        }
    }

    #[tokio::test]
    async fn a_manager_reaches_itself_where_it_listens() {
        let cluster = TestCluster::new();
        let own = manager(&cluster).await;
        let holder = Arc::new(cluster.holder(NodeRole::Manager));
        let connector = ManagerConnector::new(holder, None, Some(own), vec![dead_addr().await]);
        connector.connect_any(None, Alpn::Agent).await.unwrap();
    }

    #[tokio::test]
    async fn without_any_manager_the_error_says_so() {
        let holder = Arc::new(TestCluster::new().holder(NodeRole::Worker));
        let connector = ManagerConnector::new(holder, None, None, Vec::new());
        let error = connector.connect_any(None, Alpn::Agent).await.err().unwrap().to_string();
        assert_eq!(error, "no manager is known");
    }
}
