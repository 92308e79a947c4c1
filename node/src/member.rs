//! A node's part in its cluster while swarmd runs: the manager if it is one, the agent, the renewal of its certificate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use axum::Router;
use swarm_agent::{Agent, AgentError, AgentOptions, Attacher, Connector, SessionState, Side};
use swarm_consensus::{Error as LogError, Role};
use swarm_manager::{Manager, ManagerError, ManagerOptions, Start};
use swarm_model::NodeRole;
use swarm_net::protocol::ToNet;
use swarm_wire::{IdentityHolder, NodeIdentity, clock};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    autolock::Lock,
    certificate,
    config::Engine,
    connector::ManagerConnector,
    data_plane::{DataSettings, NodeDataPlane},
    listener::Listener,
    loss,
    net::NodeNet,
    node::Node,
    random, role,
    state_dir::{Membership, StateDir},
};

/// What a person has to do with a node that was removed.
const REMOVED: &str = "this node was removed from the swarm; its containers still run: use \"swarm leave\" here \
                       (\"--force\" on a manager) to remove them, and \"swarm join\" to come back";

/// What a person has to do with a node that was off for too long.
const EXPIRED: &str = "this node's certificate has expired: it was off, or reached no manager, for longer than the \
                       certificate was valid, or its clock is wrong; use \"swarm leave\" here (\"--force\" on a manager), \
                       \"node rm\" on a manager, and \"swarm join\" to come back as a new node";

/// How often a manager that joins looks whether it votes.
const VOTER_POLL: Duration = Duration::from_millis(20);

/// How a member is; the text says what is wrong, if something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has joined and not been heard by a manager yet.
    Pending(String),
    /// It belongs to the cluster.
    Active(String),
    /// It was removed.
    Error(String),
}

/// See the module.
pub(crate) struct Member {
    identity: Arc<IdentityHolder>,
    membership: Membership,
    connector: Arc<ManagerConnector>,
    manager: Option<Manager>,
    routes: Option<Router>,
    lock: Arc<Lock>,
    /// None once it has stopped.
    agent: Mutex<Option<Agent>>,
    session: watch::Receiver<SessionState>,
    attacher: Attacher,
    /// Whether a manager has ever taken it.
    accepted: AtomicBool,
    /// Cancelled when the node was removed: its manager is to stop.
    retired: CancellationToken,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Member {
    /// Starts what the node's role asks for. A manager gets the port that it listens on, and how it begins; `accepted`
    /// says that managers know the node from an earlier run.
    pub(crate) async fn start(
        node: &Arc<Node>,
        membership: Membership,
        identity: NodeIdentity,
        begin: Option<(TcpListener, Start)>,
        accepted: bool,
    ) -> Result<Arc<Self>> {
        let (id, cluster, role) = (identity.node(), identity.cluster(), identity.role());
        let listen: SocketAddr = membership.listen_addr.parse().context("the listen address in swarm.json")?;
        let address = (!listen.ip().is_unspecified()).then_some(listen.ip());
        let identity = Arc::new(IdentityHolder::new(identity)?);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let manager = match begin {
            // What a removed manager has may be the last of its swarm: it goes when the node leaves.
            None if membership.removed => None,
            None => {
                node.state().forget_manager()?;
                None
            }
            Some((port, start)) => {
                let options = ManagerOptions {
                    state_dir: node.state().manager()?,
                    advertise_addr: membership.advertise_addr.clone(),
                    identity: identity.clone(),
                    source: address,
                    start,
                    seal_key: node.state().seal_key(),
                };
                let started = Manager::start(options).await.map_err(|e| match e {
                    ManagerError::Log(LogError::Foreign { .. }) => anyhow::Error::from(e).context(format!(
                        "its log is not the one of the manager that {} names",
                        node.state().membership_file().display()
                    )),
                    e => e.into(),
                });
                let manager = started.context("the manager does not start")?;
                let listener = Listener::new(identity.clone(), manager.clone(), node);
                tasks.spawn(listener.serve(port, stop.clone()));
                Some(manager)
            }
        };
        let connector = Arc::new(ManagerConnector::new(
            identity.clone(),
            address,
            manager.is_some().then(|| local_addr(listen)),
            membership.managers.clone(),
        ));
        let data_ip = membership.data_ip().context("the advertised address in swarm.json")?;
        let settings = DataSettings {
            bind: address,
            address: SocketAddr::new(data_ip, node.config().data_port),
            net_socket: node.net_place().socket(),
        };
        let data_plane = NodeDataPlane::new(node.data_place(), settings, identity.clone(), connector.certificate());
        let net = NodeNet::new(node.net_place(), &identity.identity(), data_ip, node.config().sandboxes_dir.clone());
        let agent = Agent::start(AgentOptions {
            state_dir: Some(node.state().agent()),
            node: id,
            hostname: node.config().hostname.clone(),
            bind_addr: address,
            resources: node.config().limits.resources(),
            engine_labels: node.config().labels.clone(),
            program: concat!("swarmd ", env!("CARGO_PKG_VERSION")).to_owned(),
            executor: node.executor(),
            connector: connector.clone(),
            seed: random::bits() as u64,
            data_plane: Some(Arc::new(data_plane)),
            sandboxes: node.config().sandboxes_dir.clone(),
            net: (node.config().engine != Engine::Simulated).then(|| Arc::new(net) as Arc<dyn Side<ToNet>>),
        });
        let agent = match agent {
            Ok(agent) => agent,
            Err(e) => {
                stop.cancel();
                if let Some(manager) = manager {
                    manager.shutdown().await;
                }
                return Err(e).context("the agent does not start");
            }
        };
        let member = Arc::new(Self {
            lock: Arc::default(),
            identity: identity.clone(),
            membership,
            routes: manager.as_ref().map(Manager::routes),
            manager,
            session: agent.session_state(),
            attacher: agent.attacher(),
            agent: Mutex::new(Some(agent)),
            accepted: AtomicBool::new(accepted),
            retired: CancellationToken::new(),
            connector: connector.clone(),
            tasks,
            stop,
        });
        let addr = member.membership.advertise_addr.clone();
        member.spawn(certificate::keep_renewed(
            identity,
            connector,
            node.state().clone(),
            addr,
            member.manager.clone(),
        ));
        // Outlives the member where it replaces it by another one.
        tokio::spawn(role::follow(Arc::downgrade(node), member.clone()));
        member.spawn(member.clone().watch_session(node.state().clone()));
        member.spawn(member.clone().keep_managers(node.state().clone()));
        member.spawn(loss::follow(member.session.clone(), member.connector.known(), loss::News::log));
        if let Some(manager) = &member.manager {
            let (watched, retired) = (watch_manager(manager.clone(), node.failure()), member.retired.clone());
            member.spawn(async move {
                retired.run_until_cancelled(watched).await;
            });
            member.spawn(member.lock.clone().follow(manager.clone(), node.state().clone()));
        }
        tracing::info!(node = %id, %cluster, %role, "this node belongs to a swarm");
        Ok(member)
    }

    /// The way to have containers in networks that are no tasks.
    pub(crate) fn attacher(&self) -> Attacher {
        self.attacher.clone()
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// The node's certificate.
    pub(crate) fn identity(&self) -> Arc<NodeIdentity> {
        self.identity.identity()
    }

    /// How it belongs to its cluster, with the managers as they are known now.
    pub(crate) fn membership(&self) -> Membership {
        Membership { managers: self.managers(), ..self.membership.clone() }
    }

    /// The way to the managers.
    pub(crate) fn connector(&self) -> &ManagerConnector {
        &self.connector
    }

    /// The role that the managers want it to have.
    pub(crate) fn wanted_role(&self) -> watch::Receiver<Option<NodeRole>> {
        self.connector.wanted_role()
    }

    /// Cancelled when it stops.
    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The manager; none on a worker.
    pub(crate) fn manager(&self) -> Option<&Manager> {
        self.manager.as_ref()
    }

    /// `host:port` of the leader, if this node's manager is not it; with the certificate to ask it.
    pub(crate) fn leader_elsewhere(&self) -> Option<(Arc<IdentityHolder>, String)> {
        match &*self.manager.as_ref()?.role().borrow() {
            Role::Follower { leader: Some(addr) } => Some((self.identity.clone(), addr.clone())),
            Role::Follower { leader: None } | Role::Leader { .. } | Role::Stopped { .. } => None,
        }
    }

    /// The manager's part of the API; none on a worker.
    pub(crate) fn routes(&self) -> Option<Router> {
        self.routes.clone()
    }

    /// Whether it takes part in managing the cluster.
    pub(crate) fn is_manager(&self) -> bool {
        self.identity().role() == NodeRole::Manager
    }

    /// The address that other nodes reach it by, without the port.
    pub(crate) fn advertise_ip(&self) -> String {
        let addr = &self.membership.advertise_addr;
        addr.parse::<SocketAddr>().map_or_else(|_| addr.clone(), |a| a.ip().to_string())
    }

    /// `HOST:PORT` of the managers that are known.
    pub(crate) fn managers(&self) -> Vec<String> {
        self.connector.known().borrow().clone()
    }

    /// How it is.
    pub(crate) fn state(&self) -> MemberState {
        match &*self.session.borrow() {
            SessionState::Open => MemberState::Active(String::new()),
            SessionState::Removed { reason } => MemberState::Error(removed(reason)),
            SessionState::Connecting { .. } if self.membership.removed => MemberState::Error(REMOVED.to_owned()),
            SessionState::Connecting { .. } if self.identity().as_peer().cert_expires_at <= clock::now() => {
                MemberState::Error(EXPIRED.to_owned())
            }
            SessionState::Connecting { reason } if self.accepted.load(Ordering::Relaxed) => {
                MemberState::Active(reason.clone())
            }
            SessionState::Connecting { reason } => MemberState::Pending(reason.clone()),
        }
    }

    /// Why its manager takes no part any more, if it has something else than the others.
    pub(crate) fn problem(&self) -> Option<String> {
        let manager = self.manager.as_ref().filter(|manager| manager.differs())?;
        match &*manager.role().borrow() {
            Role::Stopped { reason } => Some(format!("the manager stopped: {reason}")),
            Role::Leader { .. } | Role::Follower { .. } => None,
        }
    }

    /// What to do if it was removed. Its manager may still hold what the swarm was, and would give advice for that.
    pub(crate) fn removed(&self) -> Option<String> {
        match &*self.session.borrow() {
            SessionState::Removed { reason } => Some(removed(reason)),
            SessionState::Open | SessionState::Connecting { .. } => self.membership.removed.then(|| REMOVED.to_owned()),
        }
    }

    /// Renews the certificate now.
    #[cfg(test)]
    pub(crate) async fn renew_certificate(&self, state: &StateDir) -> Result<()> {
        let addr = &self.membership.advertise_addr;
        certificate::renew(&self.identity, &self.connector, state, addr).await
    }

    /// The certificate, for connections.
    #[cfg(test)]
    pub(crate) fn holder(&self) -> Arc<IdentityHolder> {
        self.identity.clone()
    }

    /// Waits until a manager has taken the node, or has refused it for good.
    pub(crate) async fn wait_accepted(&self, longest: Duration) -> MemberState {
        let mut session = self.session.clone();
        let settled = session.wait_for(|s| !matches!(s, SessionState::Connecting { .. }));
        let _ = tokio::time::timeout(longest, settled).await;
        self.state()
    }

    /// Waits until a manager has caught up and votes; a worker does not have to.
    pub(crate) async fn wait_voter(&self, deadline: Instant) -> bool {
        let Some(manager) = &self.manager else { return true };
        while !manager.is_voter() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(VOTER_POLL).await;
        }
        true
    }

    /// How far it is with autolock.
    pub(crate) fn lock(&self) -> Arc<Lock> {
        self.lock.clone()
    }

    /// Stops; containers keep running.
    pub(crate) async fn shutdown(&self) {
        if let Some(agent) = self.agent.lock().await.take() {
            agent.shutdown().await;
        }
        self.stop_rest().await;
    }

    /// Leaves the cluster: tells the managers, removes this node's containers, stops.
    pub(crate) async fn leave(&self) -> Result<(), AgentError> {
        let left = match self.agent.lock().await.take() {
            Some(agent) => agent.leave().await,
            None => Ok(()),
        };
        self.stop_rest().await;
        left
    }

    async fn stop_rest(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(manager) = &self.manager {
            manager.shutdown().await;
        }
    }

    /// Remembers that a manager took the node, and says in the log what to do when it was removed.
    async fn watch_session(self: Arc<Self>, state: Arc<StateDir>) {
        let mut session = self.session.clone();
        loop {
            match &*session.borrow_and_update() {
                SessionState::Open => self.accepted.store(true, Ordering::Relaxed),
                SessionState::Connecting { .. } => {}
                SessionState::Removed { .. } => {
                    tracing::error!("{REMOVED}");
                    self.retired.cancel();
                }
            }
            if self.retired.is_cancelled() {
                return self.retire(&state).await;
            }
            if session.changed().await.is_err() {
                return;
            }
        }
    }

    /// Stops the manager of a node that was removed, for good: managers that have not heard of the removal would still
    /// count its vote, and could make a second swarm of what they are (`swarm init --force-new-cluster`).
    async fn retire(&self, state: &StateDir) {
        let Some(manager) = &self.manager else { return };
        if let Err(e) = state.save_removed() {
            tracing::warn!("that this node was removed cannot be kept: {e:#}");
        }
        manager.shutdown().await;
        tracing::info!("the manager of this node takes part no more");
    }

    /// Keeps the managers that are known for the next start.
    async fn keep_managers(self: Arc<Self>, state: Arc<StateDir>) {
        let mut known = self.connector.known();
        while known.changed().await.is_ok() {
            let managers = known.borrow_and_update().clone();
            if let Err(e) = state.save_managers(managers) {
                tracing::warn!("the managers' addresses cannot be kept: {e:#}");
            }
        }
    }
}

fn removed(reason: &str) -> String {
    format!("{REMOVED} ({reason})")
}

/// A manager that stopped by itself (a log that cannot be written) takes the daemon with it, which is started anew. One
/// that has something else than the others does not: that does not pass, and somebody has to be told.
async fn watch_manager(manager: Manager, failure: watch::Sender<Option<String>>) {
    let mut role = manager.role();
    if let Ok(role) = role.wait_for(|role| matches!(role, Role::Stopped { .. })).await
        && let Role::Stopped { reason } = &*role
        && !manager.differs()
    {
        failure.send_replace(Some(format!("the manager stopped: {reason}")));
    }
}

/// Where a process on this machine reaches what listens there.
fn local_addr(listen: SocketAddr) -> String {
    let ip = match listen {
        a if !a.ip().is_unspecified() => a.ip(),
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port()).to_string()
}
