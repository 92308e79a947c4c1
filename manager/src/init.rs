//! `swarm init`: a new cluster with its certificate authority, its tokens and its first manager.

use std::sync::Arc;

use swarm_core::{Op, Tx};
use swarm_model::{
    Availability, Cluster, ClusterId, ClusterSpec, Id, Invalid, JoinTokens, NodeId, NodeRole, OverlaySettings,
    Timestamp, validate_cluster_spec, validate_overlay,
};
use swarm_wire::{
    Ca, CaError, IdentityError, JoinToken, LockError, NodeIdentity, TokenError, UnlockKey, clock, new_key_and_csr,
};
use thiserror::Error;

use crate::clock::random;

/// A cluster that is to be made. It goes into the log as its first change.
#[derive(Clone, Debug)]
pub struct Init {
    cluster: Cluster,
    node: NodeId,
    cert_expires_at: Timestamp,
    availability: Availability,
}

/// Why a cluster cannot be made.
#[derive(Debug, Error)]
pub enum InitError {
    /// Its settings.
    #[error(transparent)]
    Spec(#[from] Invalid),
    /// Its certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Its tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Autolock's key.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The first node's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No ids.
    #[error("{0}")]
    Random(String),
}

impl Init {
    /// Makes a cluster's authority and tokens, and the identity of its first node, which is a manager. The identity is
    /// to be kept before a manager is started with the rest.
    ///
    /// # Errors
    /// [`InitError`]: settings that are not possible, or a system without randomness.
    pub fn new(
        mut spec: ClusterSpec,
        overlay: OverlaySettings,
        availability: Availability,
    ) -> Result<(Self, NodeIdentity), InitError> {
        spec.fill_defaults();
        validate_cluster_spec(&spec)?;
        validate_overlay(&overlay)?;
        let now = clock::now();
        let id = ClusterId::make(now, random().map_err(InitError::Random)?);
        let node = NodeId::make(now, random().map_err(InitError::Random)?);
        let ca = Ca::create()?;
        let token = || JoinToken::generate(ca.cert_pem()).map(|token| token.format());
        let join_tokens = JoinTokens { worker: token()?, manager: token()? };
        let (key, csr) = new_key_and_csr()?;
        let issued = ca.issue(&csr, node, NodeRole::Manager, id, spec.ca_config.node_cert_expiry_ns, now)?;
        let identity = NodeIdentity::new(issued.cert_pem, key, ca.cert_pem())?;
        let unlock_key = match spec.encryption_config.auto_lock_managers {
            true => Some(UnlockKey::generate()?.format()),
            false => None,
        };
        let cluster = Cluster {
            id,
            version: 0,
            created_at: now,
            updated_at: now,
            spec: Arc::new(spec),
            root_ca: Arc::new(ca.to_root()?),
            root_rotation: None,
            join_tokens: Arc::new(join_tokens),
            removed_nodes: std::collections::BTreeMap::new(),
            former_roots: Default::default(),
            unlock_key,
            overlay,
        };
        Ok((Self { cluster, node, cert_expires_at: issued.expires_at, availability }, identity))
    }

    /// The settings, defaults filled in.
    pub fn spec(&self) -> &ClusterSpec {
        &self.cluster.spec
    }

    /// The first change of the new cluster's log.
    pub(crate) fn tx(self, manager_addr: &str) -> Tx {
        Tx::new(vec![
            Op::CreateCluster(Arc::new(self.cluster)),
            Op::AdmitNode {
                node: self.node,
                role: NodeRole::Manager,
                cert_expires_at: self.cert_expires_at,
                manager_addr: Some(manager_addr.to_owned()),
                availability: self.availability,
            },
        ])
    }
}
