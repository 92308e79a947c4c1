//! Getting a certificate, over HTTP on the managers' port: by join token without a certificate, or with the old
//! certificate to renew it. Everything else on that port needs a certificate.

use serde::{Deserialize, Serialize};
use swarm_model::{Availability, Redacted};

/// `GET`: the cluster's root CA, PEM, byte for byte what the digest in join tokens is made of.
pub const CA_PATH: &str = "/swarmd/ca";

/// `POST` of a [`CertificateRequest`] in JSON, answered with a [`CertificateResponse`], or with Docker's
/// `{"message": …}` and a status of 400 or more. Who renews is known by its certificate: the server finds the
/// [`crate::PeerIdentity`] in the request's extensions.
pub const CERTIFICATE_PATH: &str = "/swarmd/certificate";

/// Largest body of either direction: a certificate request and a token, or a certificate chain.
pub const JOIN_BODY_BYTES_MAX: usize = 64 << 10;

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateRequest {
    /// The certificate request, PEM. Only its public key counts.
    pub csr: String,
    /// The join token; absent for a renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Redacted>,
    /// Whether the new node takes tasks; of no meaning for a renewal.
    #[serde(default)]
    pub availability: Availability,
    /// The newest feature level that the node's program knows: a manager has to know the swarm's. One that says nothing
    /// is of the first version.
    #[serde(default)]
    pub feature_level: u16,
    /// `host:port` under which other nodes reach this one if it is, or becomes, a manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_addr: Option<String>,
}

/// The certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CertificateResponse {
    /// The certificate chain, PEM, the node's own first.
    pub certificate: String,
    /// The root certificates to trust from now on, PEM; none for those that are trusted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<String>,
    /// A manager's id in Raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft_id: Option<u64>,
}
