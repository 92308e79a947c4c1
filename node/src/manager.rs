//! The manager plane, as the node uses it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Router;
use swarm_model::{Availability, ClusterId, ClusterSpec, JoinTokens, NodeId, RootCa};
use swarm_wire::{BoxedStream, IdentityHolder, PeerIdentity};

pub(crate) struct Init {
    pub(crate) spec: ClusterSpec,
    pub(crate) availability: Availability,
    pub(crate) root_ca: RootCa,
    pub(crate) join_tokens: JoinTokens,
}

pub(crate) struct ManagerOptions {
    pub(crate) state_dir: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) advertise_addr: String,
    pub(crate) identity: Arc<IdentityHolder>,
    pub(crate) create: Option<Init>,
}

pub(crate) struct Manager;

impl Manager {
    pub(crate) async fn start(_: ManagerOptions) -> anyhow::Result<Self> {
        anyhow::bail!("this build of swarmd has no manager plane")
    }

    pub(crate) fn routes(&self) -> Router {
        Router::new()
    }

    pub(crate) fn join_routes(&self) -> Router {
        Router::new()
    }

    pub(crate) async fn serve_agent(&self, _: PeerIdentity, _: SocketAddr, _: BoxedStream) {}

    pub(crate) async fn shutdown(&self) {}
}
