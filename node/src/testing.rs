//! What several tests need.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use swarm_manager::api::Caller;
use swarm_model::{Author, ClusterId, Labels, NodeId, NodeRole, Principal};
use swarm_wire::{Ca, IdentityHolder, NodeIdentity, clock, new_key_and_csr};

use crate::{
    config::{Config, Engine, LogFormat, NodeLimits},
    node::Node,
    state_dir::StateDir,
};

/// A cluster's CA that gives out identities.
pub(crate) struct TestCluster {
    pub(crate) ca: Ca,
}

impl TestCluster {
    pub(crate) fn new() -> Self {
        Self { ca: Ca::create().unwrap() }
    }

    pub(crate) fn identity(&self, role: NodeRole, validity_ns: i64) -> NodeIdentity {
        let (key, csr) = new_key_and_csr().unwrap();
        let issued =
            self.ca.issue(&csr, NodeId(role as u128 + 1), role, ClusterId(9), validity_ns, clock::now()).unwrap();
        NodeIdentity::new(issued.cert_pem, key, self.ca.cert_pem()).unwrap()
    }

    pub(crate) fn holder(&self, role: NodeRole) -> IdentityHolder {
        IdentityHolder::new(self.identity(role, 3_600_000_000_000)).unwrap()
    }
}

/// The author of calls to a manager's routes in tests.
pub(crate) fn caller() -> Caller {
    Caller::new(Arc::new(Author::of(Principal::user(0, Some("root")))))
}

/// A node without Docker, on a port of its own.
pub(crate) struct TestNode {
    pub(crate) node: Arc<Node>,
    pub(crate) folder: tempfile::TempDir,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { node: Self::open(folder.path()), folder }
    }

    /// The same with an audit log, `audit.log` in its folder.
    pub(crate) fn with_audit_log() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let audit_log = Some(folder.path().join("audit.log"));
        Self { node: Self::open_with(folder.path(), audit_log), folder }
    }

    pub(crate) fn open(folder: &Path) -> Arc<Node> {
        Self::open_with(folder, None)
    }

    /// The same with an engine, whose socket is given.
    pub(crate) fn with_engine(socket: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { node: Self::open_config(folder.path(), None, Engine::Docker(socket.to_owned())), folder }
    }

    fn open_with(folder: &Path, audit_log: Option<PathBuf>) -> Arc<Node> {
        Self::open_config(folder, audit_log, Engine::Simulated)
    }

    fn open_config(folder: &Path, audit_log: Option<PathBuf>, engine: Engine) -> Arc<Node> {
        let config = Config {
            state_dir: folder.to_owned(),
            socket: folder.join("unused.sock"),
            engine,
            secrets_dir: folder.join("unused"),
            listen_addr: "127.0.0.1:0".parse().unwrap(),
            advertise_addr: None,
            data_port: 7946,
            data_socket: None,
            net_socket: None,
            sandboxes_dir: "/run/docker/netns".into(),
            hostname: "test".to_owned(),
            limits: NodeLimits::default(),
            labels: Labels::new(),
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
            audit_log,
        };
        let state = StateDir::open(folder).unwrap();
        Arc::new(Node::new(config, state).unwrap())
    }

    /// Stops it and starts it again on the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.node.shutdown().await;
        let Self { node, folder } = self;
        drop(node);
        let node = Self::open(folder.path());
        node.resume().await.unwrap();
        Self { node, folder }
    }
}
