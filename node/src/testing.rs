//! What several tests need.

use swarm_model::{ClusterId, NodeId, NodeRole};
use swarm_wire::{Ca, IdentityHolder, NodeIdentity, clock, new_key_and_csr};

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
