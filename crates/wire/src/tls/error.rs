//! What can go wrong with a connection, in words for the person who reads the log.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as Rustls};
use swarm_model::{ClusterId, NodeId};
use thiserror::Error;

use super::{Alpn, HANDSHAKE_TIMEOUT};
use crate::PeerError;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum TlsError {
    /// No TCP connection, or nobody who answers on it.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// Where to.
        addr: String,
        /// Why.
        source: io::Error,
    },
    /// The peer did not finish its handshake in time.
    #[error("the peer did not finish the TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    /// What arrived is not TLS.
    #[error("the peer does not speak TLS: {0}")]
    NotTls(String),
    /// The peer belongs to another cluster.
    #[error("the peer's certificate is of another cluster{}", .found.map(|c| format!(" ({c})")).unwrap_or_default())]
    OtherCluster {
        /// The cluster that it names, if it came that far.
        found: Option<ClusterId>,
    },
    /// The peer's certificate has expired, or the clocks differ.
    #[error("the peer's certificate has expired, or the clocks of the two machines differ")]
    Expired,
    /// The peer's certificate is no node's.
    #[error("the peer's certificate: {0}")]
    Peer(#[from] PeerError),
    /// The server is a node of the cluster, but no manager.
    #[error("{addr} is not a manager")]
    NotAManager {
        /// Who was asked.
        addr: String,
    },
    /// The server is another node than the one that was wanted.
    #[error("{addr} is not node {wanted}: its certificate names another node")]
    OtherNode {
        /// The node that was asked.
        addr: String,
        /// The node that should be there.
        wanted: NodeId,
    },
    /// The peer showed no certificate, where only nodes may connect.
    #[error("the peer showed no certificate; only nodes of this cluster may connect here")]
    NoCertificate,
    /// The peer speaks other protocols.
    #[error("{addr} does not speak {}", .wanted.as_str())]
    Protocol {
        /// Who was asked.
        addr: String,
        /// What was wanted.
        wanted: Alpn,
    },
    /// Any other failure of the handshake.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// This node's own certificate, key or root CA cannot be used.
    #[error("this node's TLS identity (swarm-node.crt, swarm-node.key, swarm-root-ca.crt) cannot be used: {0}")]
    Identity(String),
}

impl TlsError {
    /// A handshake that failed at the server.
    pub(super) fn from_client(error: io::Error) -> Self {
        match rustls_error(&error) {
            Some(rustls) => Self::from_rustls(rustls),
            None => Self::Handshake(error.to_string()),
        }
    }

    /// A handshake that failed at the client.
    pub(super) fn from_server(addr: &str, error: io::Error) -> Self {
        match rustls_error(&error) {
            Some(Rustls::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Self::NotAManager { addr: addr.to_owned() },
            Some(rustls) => Self::from_rustls(rustls),
            None => Self::Connect { addr: addr.to_owned(), source: error },
        }
    }

    fn from_rustls(error: &Rustls) -> Self {
        match error {
            // All root CAs have one name, so that a foreign certificate finds "its" root and fails the signature.
            Rustls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
            | Rustls::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
                Self::OtherCluster { found: None }
            }
            Rustls::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )
            | Rustls::AlertReceived(AlertDescription::CertificateExpired) => Self::Expired,
            Rustls::NoCertificatesPresented => Self::NoCertificate,
            Rustls::InvalidMessage(problem) => Self::NotTls(format!("{problem:?}")),
            other => Self::Handshake(other.to_string()),
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&Rustls> {
    error.get_ref()?.downcast_ref()
}
