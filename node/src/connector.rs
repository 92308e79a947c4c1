//! The agent's way to the managers: addresses, certificates, and which one is tried next.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use swarm_agent::{ByteStream, Connector, Purpose};
use swarm_model::{NodeCertificate, NodeRole};
use swarm_wire::{Alpn, IdentityHolder, agent::Authority, tls};
use tokio::{sync::watch, time::sleep};

/// A manager that has not answered for so long is not waited for alone: the next one is tried beside it. One whose machine
/// has no power does not even refuse.
const NEXT_AFTER: Duration = Duration::from_millis(500);

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
    /// The manager of the last session. That ended, so the next attempt starts behind it.
    session: Mutex<Option<String>>,
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
            session: Mutex::default(),
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

    /// Connects to a manager for a request of this node's own: that of the session comes first, for it is in touch with the
    /// leader. This node's own manager may be none any more, and not know it yet.
    pub(crate) async fn connect_to_ask(&self) -> io::Result<(String, tls::Connected)> {
        let session = self.session().clone();
        self.connect_any(session, Alpn::Http1).await
    }

    /// Connects to a manager: the one that is wanted, else the known ones one after another. Returns its address as well.
    pub(crate) async fn connect_any(&self, wanted: Option<String>, alpn: Alpn) -> io::Result<(String, tls::Connected)> {
        let mut candidates = self.candidates();
        if let Some(wanted) = wanted {
            candidates.retain(|addr| *addr != wanted);
            candidates.insert(0, wanted);
        }
        let mut candidates = candidates.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut problems = Vec::new();
        loop {
            let next = candidates.next();
            let is_last = next.is_none();
            attempts.extend(next.map(|addr| async move {
                let connected = tls::connect(&addr, self.source, &self.identity, alpn).await;
                (addr, connected)
            }));
            tokio::select! {
                done = attempts.next() => match done {
                    Some((addr, Ok(connected))) => return Ok((addr, connected)),
                    Some((_, Err(error))) => problems.push(error.to_string()),
                    None => break,
                },
                () = sleep(NEXT_AFTER), if !is_last => {}
            }
        }
        if problems.is_empty() {
            problems.push("no manager is known".to_owned());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, problems.join("; ")))
    }

    /// The managers that are known, from the one behind that of the last session on.
    fn candidates(&self) -> Vec<String> {
        let mut candidates = self.known.borrow().clone();
        candidates.extend(self.own.iter().filter(|own| !candidates.contains(own)).cloned().collect::<Vec<_>>());
        let session = self.session();
        if let Some(last) = candidates.iter().position(|addr| Some(addr) == session.as_ref()) {
            candidates.rotate_left(last + 1);
        }
        candidates
    }

    fn session(&self) -> MutexGuard<'_, Option<String>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for ManagerConnector {
    fn connect(&self, purpose: Purpose) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        async move {
            let connected = match purpose {
                Purpose::Session { leader } => {
                    let (addr, connected) = self.connect_any(leader, Alpn::Agent).await?;
                    *self.session() = Some(addr);
                    connected
                }
                Purpose::Logs => {
                    let Some(addr) = self.session().clone() else {
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
    async fn it_moves_on_to_other_managers_and_starts_behind_that_of_the_last_session() {
        let cluster = TestCluster::new();
        let (dead, one, other) = (dead_addr().await, manager(&cluster).await, manager(&cluster).await);
        let worker = Arc::new(cluster.holder(NodeRole::Worker));
        let known = vec![dead.clone(), one.clone(), other.clone()];
        let connector = ManagerConnector::new(worker, None, None, known.clone());
        let session = async |leader: Option<&String>| {
            connector.connect(Purpose::Session { leader: leader.cloned() }).await.unwrap();
            connector.session().clone().unwrap()
        };
        assert_eq!(session(None).await, one);
        // That session ended, so its manager is the last one to try.
        assert_eq!(session(None).await, other);
        assert_eq!(session(None).await, one);
        // One that is wanted comes first, also a second time.
        assert_eq!(session(Some(&one)).await, one);
        assert_eq!(session(Some(&dead)).await, other);

        connector.managers(&[]);
        assert_eq!(*connector.known().borrow(), known);
        connector.managers(std::slice::from_ref(&dead));
        let error = connector.connect_any(None, Alpn::Agent).await.err().unwrap().to_string();
        assert!(error.contains(&dead), "{error}");
    }

    #[tokio::test]
    async fn a_request_goes_to_the_manager_of_the_session() {
        let cluster = TestCluster::new();
        let (own, leader) = (manager(&cluster).await, manager(&cluster).await);
        let node = Arc::new(cluster.holder(NodeRole::Manager));
        let connector = ManagerConnector::new(node, None, Some(own.clone()), vec![own.clone(), leader.clone()]);
        connector.connect(Purpose::Session { leader: Some(leader.clone()) }).await.unwrap();
        for _ in 0..2 {
            assert_eq!(connector.connect_to_ask().await.unwrap().0, leader);
        }
    }

    #[tokio::test]
    async fn a_manager_that_does_not_answer_is_not_waited_for() {
        let cluster = TestCluster::new();
        // It takes connections and says nothing, as one that was stopped does.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (silent, alive) = (listener.local_addr().unwrap().to_string(), manager(&cluster).await);
        let worker = Arc::new(cluster.holder(NodeRole::Worker));
        let connector = ManagerConnector::new(worker, None, None, vec![silent.clone(), alive.clone()]);
        for leader in [None, Some(silent)] {
            let (addr, _) = connector.connect_any(leader, Alpn::Agent).await.unwrap();
            assert_eq!(addr, alive);
        }
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
                let (addr, _) = connector.connect_any(Some(dead.clone()), Alpn::Agent).await.unwrap();
                assert_eq!(addr, alive);
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
