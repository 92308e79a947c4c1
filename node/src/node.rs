//! The node: its settings, its engine, and its membership in a cluster, if it has one.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use swarm_agent::{DockerExecutor, Executor, SimulatedExecutor};
use swarm_docker_api::{ApiError, LOCKED};
use swarm_manager::Start;
use swarm_model::{NodeName, NodeRole};
use swarm_wire::PeerIdentity;
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
};

pub(crate) use crate::member::{Member, MemberState};
use crate::{
    audit::Audit,
    config::{Config, Engine},
    engine::EngineClient,
    side::Place,
    state_dir::{Membership, StateDir},
};

/// Whether the node belongs to a cluster.
#[derive(Clone)]
pub(crate) enum Swarm {
    /// It does not.
    Out,
    /// It does, and waits for the key that opens its own ([`crate::autolock`]).
    Locked(PeerIdentity),
    /// It does.
    In(Arc<Member>),
}

/// See the module.
pub(crate) struct Node {
    config: Config,
    state: Arc<StateDir>,
    engine: EngineClient,
    executor: Arc<dyn Executor>,
    audit: Audit,
    swarm: RwLock<Arc<Swarm>>,
    /// Held by whoever changes `swarm`: init, join, leave and the end come one after another.
    changing: Mutex<()>,
    failure: watch::Sender<Option<String>>,
}

impl Node {
    /// A node that has not started what its state folder says.
    ///
    /// # Errors
    /// The engine's address or the audit log cannot be used.
    pub(crate) fn new(config: Config, state: StateDir) -> Result<Self> {
        let executor: Arc<dyn Executor> = match &config.engine {
            engine @ Engine::Docker(_) => {
                Arc::new(DockerExecutor::new(&engine.to_string(), config.secrets_dir.clone())?)
            }
            Engine::Simulated => Arc::new(SimulatedExecutor::new()),
        };
        Ok(Self {
            audit: Audit::open(config.audit_log.as_deref())?,
            engine: EngineClient::new(&config.engine),
            config,
            state: Arc::new(state),
            executor,
            swarm: RwLock::new(Arc::new(Swarm::Out)),
            changing: Mutex::default(),
            failure: watch::Sender::new(None),
        })
    }

    /// Takes up the membership that the state folder holds, if it holds one.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.take_up().await
    }

    /// See [`Node::resume`]; the caller holds what [`Node::change`] gives.
    pub(crate) async fn take_up(self: &Arc<Self>) -> Result<()> {
        if let Some(peer) = self.state.locked()? {
            tracing::warn!(node = %peer.node, "this manager is locked: it waits for its key (\"swarm unlock\")");
            self.set(Swarm::Locked(peer));
            return Ok(());
        }
        let Some((membership, identity)) = self.state.membership()? else { return Ok(()) };
        let begin = match identity.role() {
            // A removed one could still vote where others have not heard of it.
            NodeRole::Manager if membership.removed => None,
            NodeRole::Manager => {
                let start = match membership.raft_id {
                    Some(raft_id) if membership.joining => Start::Join { raft_id },
                    raft_id => Start::Open { raft_id },
                };
                Some((listen_as_before(&membership).await?, start))
            }
            NodeRole::Worker => None,
        };
        let member = Member::start(self, membership.clone(), identity, begin, true).await?;
        self.set(Swarm::In(member));
        self.joined(&membership)
    }

    /// Remembers that a manager has begun its log.
    pub(crate) fn joined(&self, membership: &Membership) -> Result<()> {
        if !membership.joining {
            return Ok(());
        }
        self.state.save_membership(&Membership { joining: false, ..membership.clone() })
    }

    /// Stops everything; containers keep running.
    pub(crate) async fn shutdown(&self) {
        let _changing = self.changing.lock().await;
        if let Swarm::In(member) = &*self.swarm() {
            member.shutdown().await;
        }
        self.engine.close().await;
        self.audit.flush().await;
    }

    /// Where what makes the daemon useless is reported.
    pub(crate) fn failure(&self) -> watch::Sender<Option<String>> {
        self.failure.clone()
    }

    /// Waits until something makes the daemon useless, and says what.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.map(|reason| reason.clone().unwrap_or_default());
        // The sender is a field of this very node.
        failed.unwrap_or_default()
    }

    /// The settings.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The place of its data plane.
    pub(crate) fn data_place(&self) -> Place {
        Place::new("data", self.config.data_socket.clone(), self.state.data())
    }

    /// The place of its `swarmd net`.
    pub(crate) fn net_place(&self) -> Place {
        Place::new("net", self.config.net_socket.clone(), self.state.net())
    }

    /// The state folder.
    pub(crate) fn state(&self) -> &Arc<StateDir> {
        &self.state
    }

    /// The audit log.
    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The id and the name of the node in its swarm; none outside a swarm.
    pub(crate) fn name(&self) -> Option<NodeName> {
        let id = match &*self.swarm() {
            Swarm::Out => return None,
            Swarm::Locked(peer) => peer.node,
            Swarm::In(member) => member.identity().node(),
        };
        Some(NodeName::new(id, &self.config.hostname))
    }

    /// The engine, for requests.
    pub(crate) fn engine(&self) -> &EngineClient {
        &self.engine
    }

    /// The engine, for tasks.
    pub(crate) fn executor(&self) -> Arc<dyn Executor> {
        self.executor.clone()
    }

    /// The membership now.
    pub(crate) fn swarm(&self) -> Arc<Swarm> {
        self.swarm.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, swarm: Swarm) {
        *self.swarm.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(swarm);
    }

    /// Waits for other changes of the membership to end.
    pub(crate) async fn change(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Refuses what needs a node outside any cluster.
    pub(crate) fn must_be_out(&self) -> Result<(), ApiError> {
        match &*self.swarm() {
            Swarm::Out => Ok(()),
            Swarm::Locked(_) => Err(ApiError::unavailable(LOCKED)),
            Swarm::In(_) => Err(ApiError::unavailable(
                "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another \
                 one.",
            )),
        }
    }
}

/// Opens the managers' port, which was asked for.
pub(crate) async fn listen(addr: &str) -> Result<TcpListener> {
    bind(addr, "choose another address with --listen-addr").await
}

/// Opens the managers' port where the node listens since it came into its swarm.
pub(crate) async fn listen_as_before(membership: &Membership) -> Result<TcpListener> {
    let hint = "the node came into its swarm with this address: make it free, or, with swarmd stopped, write another one \
                into swarm.json (listen-addr, advertise-addr)";
    bind(&membership.listen_addr, hint).await
}

async fn bind(addr: &str, hint: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr} for other nodes ({hint})"))
}
