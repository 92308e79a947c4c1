//! Whose a certificate is: node id, role and cluster, read from its subject.

use swarm_model::{ClusterId, NodeId, NodeRole, Timestamp};
use thiserror::Error;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Name};

/// Organisational unit of a manager, and the server name that clients ask for.
pub(crate) const MANAGER_OU: &str = "swarm-manager";
/// Organisational unit of a worker.
pub(crate) const WORKER_OU: &str = "swarm-worker";

/// Nanoseconds in a second.
const NS_PER_S: i64 = 1_000_000_000;

/// A node as its certificate names it. The certificate was verified before; a subject alone proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its id (CN).
    pub node: NodeId,
    /// Its role (OU).
    pub role: NodeRole,
    /// Its cluster (O).
    pub cluster: ClusterId,
    /// From when on the certificate is valid.
    pub cert_valid_from: Timestamp,
    /// When the certificate expires.
    pub cert_expires_at: Timestamp,
    /// Key identifier of its issuer, hexadecimal; empty if the certificate does not say.
    pub issuer: String,
}

/// A certificate that names no node of a cluster.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PeerError {
    /// The bytes are no certificate.
    #[error("not an X.509 certificate: {0}")]
    Malformed(String),
    /// A field of the subject is absent, doubled or of another form.
    #[error("not a swarm node's certificate: its {field} is {found:?}; {want}")]
    Subject {
        /// The field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        want: &'static str,
    },
}

impl PeerIdentity {
    /// Reads a certificate, DER.
    ///
    /// # Errors
    /// [`PeerError`]: no certificate, or not one of a swarm node.
    pub fn from_der(der: &[u8]) -> Result<Self, PeerError> {
        Self::from_x509(&parse_certificate(der)?)
    }

    pub(crate) fn from_x509(certificate: &X509Certificate<'_>) -> Result<Self, PeerError> {
        let subject = certificate.subject();
        let common_name = only(subject, "common name (CN)", X509Name::iter_common_name)?;
        let unit = only(subject, "organisational unit (OU)", X509Name::iter_organizational_unit)?;
        let organisation = only(subject, "organisation (O)", X509Name::iter_organization)?;
        let wrong = |field, found: &str, want| PeerError::Subject { field, found: found.to_owned(), want };
        Ok(Self {
            node: common_name.parse().map_err(|_| wrong("common name (CN)", common_name, "a node id is wanted"))?,
            role: role_from_ou(unit)
                .ok_or_else(|| wrong("organisational unit (OU)", unit, "swarm-manager or swarm-worker is wanted"))?,
            cluster: organisation
                .parse()
                .map_err(|_| wrong("organisation (O)", organisation, "a cluster id is wanted"))?,
            cert_valid_from: seconds(certificate.validity().not_before.timestamp()),
            cert_expires_at: seconds(certificate.validity().not_after.timestamp()),
            issuer: issuer_key_id(certificate),
        })
    }
}

/// The organisational unit of a role.
pub const fn role_ou(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Worker => WORKER_OU,
        NodeRole::Manager => MANAGER_OU,
    }
}

/// The role of an organisational unit.
pub fn role_from_ou(unit: &str) -> Option<NodeRole> {
    match unit {
        WORKER_OU => Some(NodeRole::Worker),
        MANAGER_OU => Some(NodeRole::Manager),
        _ => None,
    }
}

pub(crate) fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, PeerError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|e| PeerError::Malformed(e.to_string()))
}

/// Key identifier of the issuer, hexadecimal; empty if the certificate does not say.
fn issuer_key_id(certificate: &X509Certificate<'_>) -> String {
    let ids = certificate.iter_extensions().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref().map(|id| hex(id.0)),
        _ => None,
    });
    ids.last().unwrap_or_default()
}

/// Key identifier of a certificate, hexadecimal; empty if it does not say.
pub(crate) fn own_key_id(certificate: &X509Certificate<'_>) -> String {
    hex(&key_id_bytes(certificate))
}

/// The key identifier of a certificate; empty without one.
pub(crate) fn key_id_bytes(certificate: &X509Certificate<'_>) -> Vec<u8> {
    let ids = certificate.iter_extensions().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    ids.last().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(s: i64) -> Timestamp {
    Timestamp(s.saturating_mul(NS_PER_S))
}

/// The field's value, if it is there exactly once.
fn only<'a, I>(
    subject: &'a X509Name<'a>,
    field: &'static str,
    values: impl FnOnce(&'a X509Name<'a>) -> I,
) -> Result<&'a str, PeerError>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    let mut values = values(subject);
    let wrong = |found: &str| PeerError::Subject { field, found: found.to_owned(), want: "exactly one is wanted" };
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().map_err(|_| wrong("<not text>")),
        (None, _) => Err(wrong("")),
        (Some(_), Some(_)) => Err(wrong("<several>")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn roles_and_units_belong_together() {
        for role in [NodeRole::Worker, NodeRole::Manager] {
            assert_eq!(role_from_ou(role_ou(role)), Some(role));
        }
        assert_eq!(role_from_ou("swarm-ca"), None);
    }

    #[test]
    fn the_root_names_no_node() {
        let ca = crate::Ca::create().unwrap();
        let error = PeerIdentity::from_der(&crate::identity::certificates(ca.cert_pem()).unwrap()[0]).unwrap_err();
        assert!(error.to_string().contains("not a swarm node's certificate"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = PeerIdentity::from_der(&bytes);
        }
    }
}
