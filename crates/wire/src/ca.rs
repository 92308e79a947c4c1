//! The cluster's certificate authority (swarm-behaviour §9): a self-signed root that signs node certificates.

use std::{fmt, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use swarm_model::{ClusterId, NodeId, NodeRole, Redacted, RootCa, Timestamp};
use thiserror::Error;
use x509_parser::{asn1_rs::Tag, error::X509Error, prelude::X509Certificate};

use crate::{
    clock,
    identity::{certificates, new_key_and_csr, one_certificate},
    peer::{key_id_bytes, own_key_id, parse_certificate, role_ou},
    tls,
};

/// Common name of the root, and an additional name of every manager.
pub(crate) const CA_NAME: &str = "swarm-ca";
/// Validity of the root: 20 years (swarm-behaviour §9).
const ROOT_VALIDITY_NS: i64 = 630_720_000 * NS_PER_S;
/// Certificates are valid from an hour ago, for peers whose clocks are behind (swarm-behaviour §9).
const BACKDATE_NS: i64 = 3_600 * NS_PER_S;
/// An authority of the operator's own is to be of use for so long at least: 30 days.
const OWN_LIFE_MIN_NS: i64 = 30 * 24 * 3_600 * NS_PER_S;
/// Nanoseconds in a second.
const NS_PER_S: i64 = 1_000_000_000;
/// Largest certificate request that is looked at; one of a P-256 key has about 500 bytes.
pub const CSR_BYTES_MAX: usize = 16 << 10;

/// Why a CA cannot be made, loaded or used.
#[derive(Debug, Error)]
pub enum CaError {
    /// The stored root certificate or key is of no use.
    #[error("the root CA cannot be used: {0}")]
    Root(String),
    /// The request is not one that gets a certificate.
    #[error("the certificate request is refused: {0}")]
    Request(String),
    /// Signing failed.
    #[error("the certificate cannot be signed: {0}")]
    Sign(String),
}

/// A certificate authority with its private key.
pub struct Ca {
    cert_pem: String,
    key_pem: Redacted,
    key_id: String,
    expires_at: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A node certificate just issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCert {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// When something is signed. The clock and the newest entry of the log differ where one of the two is or was wrong, and
/// nobody knows which: a certificate is to be valid by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningTime {
    /// The machine's clock.
    pub clock: Timestamp,
    /// The newest time in the log.
    pub log: Timestamp,
}

impl SigningTime {
    /// The earlier of the two: a certificate begins an hour before.
    fn earlier(self) -> Timestamp {
        self.clock.min(self.log)
    }

    /// The later of the two: the life of a certificate is counted from here.
    fn later(self) -> Timestamp {
        self.clock.max(self.log)
    }
}

impl From<Timestamp> for SigningTime {
    fn from(now: Timestamp) -> Self {
        Self { clock: now, log: now }
    }
}

impl Ca {
    /// Makes a new root with a new key, valid for 20 years from now.
    ///
    /// # Errors
    /// [`CaError::Sign`] when the system has no randomness.
    pub fn create() -> Result<Self, CaError> {
        Self::create_at(clock::now())
    }

    /// The same at another time.
    ///
    /// # Errors
    /// [`CaError::Sign`] when the system has no randomness.
    pub fn create_at(time: impl Into<SigningTime>) -> Result<Self, CaError> {
        let time = time.into();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
        let cert_pem =
            authority(time.earlier(), time.later().plus_ns(ROOT_VALIDITY_NS))?.self_signed(&key).map_err(sign)?.pem();
        Self::load(&cert_pem, &Redacted::new(key.serialize_pem()))
    }

    /// Loads a root from its certificate and key, both PEM.
    ///
    /// # Errors
    /// [`CaError::Root`] when one of them cannot be read or they do not belong together.
    pub fn load(cert_pem: &str, key_pem: &Redacted) -> Result<Self, CaError> {
        let root = |e: String| CaError::Root(e);
        let key = KeyPair::from_pem(key_pem.expose()).map_err(|e| root(format!("its private key: {e}")))?;
        let der = one_certificate(cert_pem).map_err(|e| root(e.to_string()))?;
        let certificate = parse_certificate(&der).map_err(|e| root(e.to_string()))?;
        if certificate.public_key().subject_public_key.data != key.der_bytes() {
            return Err(root("its private key belongs to another certificate".to_owned()));
        }
        let key_id = own_key_id(&certificate);
        let expires_at = Timestamp(certificate.validity().not_after.timestamp().saturating_mul(NS_PER_S));
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| root(e.to_string()))?;
        Ok(Self { cert_pem: cert_pem.to_owned(), key_pem: key_pem.clone(), key_id, expires_at, issuer })
    }

    /// Loads an authority that the operator made, to take the place of another one.
    ///
    /// # Errors
    /// [`CaError::Root`]: it cannot sign certificates of nodes that all nodes accept; why.
    pub fn load_own(cert_pem: &str, key_pem: &Redacted, now: Timestamp) -> Result<Self, CaError> {
        let der = one_certificate(cert_pem).map_err(|e| CaError::Root(e.to_string()))?;
        let certificate = parse_certificate(&der).map_err(|e| CaError::Root(e.to_string()))?;
        let refused = |problem: &str| Err(CaError::Root(problem.to_owned()));
        if !certificate.is_ca() {
            return refused("its certificate is not one of a certificate authority");
        }
        if certificate.subject().iter_rdn().any(|name| name.iter().count() != 1) {
            return refused("the subject of its certificate has a part with several values");
        }
        if certificate.validity().not_before.timestamp() > now.0.div_euclid(NS_PER_S) {
            return refused("its certificate is not valid yet");
        }
        let ca = Self::load(cert_pem, key_pem)?;
        if ca.key_id.is_empty() {
            return refused("its certificate has no subject key identifier");
        }
        if ca.expires_at < now.plus_ns(OWN_LIFE_MIN_NS) {
            return refused("it expires within 30 days, and no certificate outlives it");
        }
        let (_, csr) = new_key_and_csr().map_err(|e| CaError::Sign(e.to_string()))?;
        let probe = ca.issue(&csr, NodeId(1), NodeRole::Manager, ClusterId(1), OWN_LIFE_MIN_NS, now)?;
        tls::check_chain(cert_pem, &probe.cert_pem, now)
            .map_err(|e| CaError::Root(format!("what it signs is not accepted: {e}")))?;
        Ok(ca)
    }

    /// The root certificate, PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key, PEM.
    pub fn key_pem(&self) -> &Redacted {
        &self.key_pem
    }

    /// What is kept of it.
    ///
    /// # Errors
    /// [`CaError::Root`] when its certificate names no key.
    pub fn to_root(&self) -> Result<RootCa, CaError> {
        if self.key_id.is_empty() {
            return Err(CaError::Root("its certificate has no key identifier".to_owned()));
        }
        Ok(RootCa { cert_pem: self.cert_pem.clone(), key_pem: self.key_pem.clone(), key_id: self.key_id.clone() })
    }

    /// A certificate (PEM) for the key of another authority, valid as long as this one: who trusts this one trusts what
    /// the other one signs, if it comes with this certificate.
    ///
    /// # Errors
    /// [`CaError::Sign`] when signing fails.
    pub fn cross_sign(&self, other: &Self, time: impl Into<SigningTime>) -> Result<String, CaError> {
        let key = KeyPair::from_pem(other.key_pem.expose()).map_err(sign)?;
        let der = one_certificate(&other.cert_pem).map_err(|e| CaError::Root(e.to_string()))?;
        let certificate = parse_certificate(&der).map_err(|e| CaError::Root(e.to_string()))?;
        let mut params = authority(time.into().earlier(), self.expires_at.min(other.expires_at))?;
        params.distinguished_name = subject(&certificate)?;
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id_bytes(&certificate));
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&key, &self.issuer).map_err(sign)?.pem())
    }

    /// Signs a node certificate. Of the request only the public key is used; who the node is, is said by the caller.
    /// It is valid from an hour before the earlier until `validity_ns` after the later of the clock and the log, not longer
    /// than the root.
    ///
    /// # Errors
    /// [`CaError::Request`] when the request is too large, no request, not signed by its own key, or not for a P-256
    /// key; [`CaError::Sign`] when signing fails.
    pub fn issue(
        &self,
        csr_pem: &str,
        node: NodeId,
        role: NodeRole,
        cluster: ClusterId,
        validity_ns: i64,
        time: impl Into<SigningTime>,
    ) -> Result<IssuedCert, CaError> {
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(CaError::Request(format!("it has {} bytes, the limit is {CSR_BYTES_MAX}", csr_pem.len())));
        }
        let request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| CaError::Request(e.to_string()))?;
        // The request's algorithm is that of its signature; the length tells a P-256 point from larger curves.
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 || request.public_key.der_bytes().len() != 65 {
            return Err(CaError::Request("its key is not an ECDSA key on the curve P-256".to_owned()));
        }
        let time = time.into();
        let expires_at = time.later().plus_ns(validity_ns.max(0)).min(self.expires_at);
        let expires_at = Timestamp(expires_at.0.div_euclid(NS_PER_S) * NS_PER_S);
        let mut params = params(time.earlier(), expires_at)?;
        let mut names = vec![role_ou(role).to_owned(), node.to_string()];
        if role == NodeRole::Manager {
            names.push(CA_NAME.to_owned());
        }
        params.subject_alt_names = CertificateParams::new(names).map_err(sign)?.subject_alt_names;
        params.distinguished_name.push(DnType::OrganizationName, cluster.to_string());
        params.distinguished_name.push(DnType::OrganizationalUnitName, role_ou(role));
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(sign)?;
        Ok(IssuedCert { cert_pem: certificate.pem(), expires_at })
    }
}

/// The subject of a certificate, to be written again byte for byte.
fn subject(certificate: &X509Certificate<'_>) -> Result<DistinguishedName, CaError> {
    let unusable = |what: &str| CaError::Root(format!("the subject of its certificate {what}"));
    let mut subject = DistinguishedName::new();
    for attribute in certificate.subject().iter_attributes() {
        let oid: Vec<u64> =
            attribute.attr_type().iter().ok_or_else(|| unusable("has a name of an unknown kind"))?.collect();
        let text = attribute.as_str().map_err(|_| unusable("has a value that is no text"))?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => {
                DnValue::PrintableString(text.try_into().map_err(|_| unusable("has a value that is not printable"))?)
            }
            Tag::Ia5String => {
                DnValue::Ia5String(text.try_into().map_err(|_| unusable("has a value that is not ASCII"))?)
            }
            _ => return Err(unusable("has a value in an encoding other than UTF-8, printable and IA5")),
        };
        subject.push(DnType::from_oid(&oid), value);
    }
    Ok(subject)
}

/// Parameters of an authority's certificate.
fn authority(now: Timestamp, expires_at: Timestamp) -> Result<CertificateParams, CaError> {
    let mut params = params(now, expires_at)?;
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Parameters with an empty subject, a random serial number and the validity.
fn params(now: Timestamp, expires_at: Timestamp) -> Result<CertificateParams, CaError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| CaError::Sign("the system has no randomness".to_owned()))?;
    serial[0] &= 0x7f; // A serial number is positive.
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let at = |t: Timestamp| date_time_ymd(1970, 1, 1) + Duration::from_secs(t.0.max(0) as u64 / NS_PER_S as u64);
    params.not_before = at(now.plus_ns(-BACKDATE_NS));
    params.not_after = at(expires_at);
    Ok(params)
}

fn sign(error: rcgen::Error) -> CaError {
    CaError::Sign(error.to_string())
}

/// What clients are shown of a root CA (Docker's `TLSInfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootInfo {
    /// Its subject, DER.
    pub subject_der: Vec<u8>,
    /// Its public key, DER.
    pub public_key_der: Vec<u8>,
}

impl RootInfo {
    /// Reads a root certificate, PEM.
    ///
    /// # Errors
    /// [`CaError::Root`] when it is none.
    pub fn read(cert_pem: &str) -> Result<Self, CaError> {
        let der = one_certificate(cert_pem).map_err(|e| CaError::Root(e.to_string()))?;
        let certificate = parse_certificate(&der).map_err(|e| CaError::Root(e.to_string()))?;
        Ok(Self {
            subject_der: certificate.subject().as_raw().to_vec(),
            public_key_der: certificate.public_key().raw.to_vec(),
        })
    }
}

/// Whether a text holds exactly one certificate that can be a root: joiners check what they fetched with it.
///
/// # Errors
/// [`CaError::Root`] says what is wrong.
pub(crate) fn check_root(pem: &str) -> Result<(), CaError> {
    let found = certificates(pem).map_err(|e| CaError::Root(e.to_string()))?;
    for der in &found {
        let certificate = parse_certificate(der).map_err(|e| CaError::Root(e.to_string()))?;
        if !certificate.is_ca() {
            return Err(CaError::Root("its certificate is not one of a certificate authority".to_owned()));
        }
        // TLS never looks at the signature of a root: a damaged root would be found by peers that refuse this node.
        let is_own_issuer = certificate.issuer() == certificate.subject();
        if is_own_issuer && certificate.verify_signature(None) == Err(X509Error::SignatureVerificationError) {
            return Err(CaError::Root("its certificate is not what was signed".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::PKCS_ECDSA_P384_SHA384;

    use super::*;
    use crate::{PeerIdentity, new_key_and_csr};

    const HOUR_NS: i64 = 3_600 * NS_PER_S;
    const NOW: Timestamp = Timestamp(1_800_000_000 * NS_PER_S);

    fn issue(ca: &Ca, role: NodeRole, validity_ns: i64) -> (PeerIdentity, Vec<String>, IssuedCert) {
        let (_, csr) = new_key_and_csr().unwrap();
        let issued = ca.issue(&csr, NodeId(7), role, ClusterId(9), validity_ns, NOW).unwrap();
        let der = one_certificate(&issued.cert_pem).unwrap();
        let certificate = parse_certificate(&der).unwrap();
        certificate.verify_signature(Some(root_key(ca).public_key())).unwrap();
        let san = certificate.subject_alternative_name().unwrap().unwrap();
        let names = san.value.general_names.iter().map(ToString::to_string).collect();
        (PeerIdentity::from_x509(&certificate).unwrap(), names, issued)
    }

    fn root_key(ca: &Ca) -> X509Certificate<'static> {
        let der: &'static [u8] = Box::leak(one_certificate(ca.cert_pem()).unwrap().to_vec().into_boxed_slice());
        parse_certificate(der).unwrap()
    }

    #[test]
    fn a_certificate_names_node_role_and_cluster() {
        let ca = Ca::create().unwrap();
        let (peer, names, issued) = issue(&ca, NodeRole::Worker, HOUR_NS);
        assert_eq!((peer.node, peer.role, peer.cluster), (NodeId(7), NodeRole::Worker, ClusterId(9)));
        assert_eq!(peer.cert_valid_from, NOW.plus_ns(-HOUR_NS));
        assert_eq!(peer.cert_expires_at, NOW.plus_ns(HOUR_NS));
        assert_eq!(issued.expires_at, peer.cert_expires_at);
        assert_eq!(names.len(), 2, "{names:?}");

        let (peer, names, _) = issue(&ca, NodeRole::Manager, HOUR_NS);
        assert_eq!(peer.role, NodeRole::Manager);
        for name in ["swarm-manager", "swarm-ca", &NodeId(7).to_string()] {
            assert!(names.iter().any(|n| n.contains(name)), "{name} in {names:?}");
        }
    }

    #[test]
    fn a_certificate_is_valid_by_the_clock_and_by_the_log() {
        let ca = Ca::create().unwrap();
        let (_, csr) = new_key_and_csr().unwrap();
        let year_ns = 365 * 24 * HOUR_NS;
        for (clock, log) in [(NOW, NOW.plus_ns(year_ns)), (NOW.plus_ns(year_ns), NOW), (NOW, NOW)] {
            let time = SigningTime { clock, log };
            let issued = ca.issue(&csr, NodeId(7), NodeRole::Worker, ClusterId(9), HOUR_NS, time).unwrap();
            let peer = PeerIdentity::from_der(&one_certificate(&issued.cert_pem).unwrap()).unwrap();
            assert_eq!(peer.cert_valid_from, clock.min(log).plus_ns(-HOUR_NS));
            assert_eq!(peer.cert_expires_at, clock.max(log).plus_ns(HOUR_NS));
        }
        // The same holds for what comes with a change of the root.
        let time = SigningTime { clock: NOW.plus_ns(year_ns), log: NOW };
        let new = Ca::create_at(time).unwrap();
        for pem in [new.cert_pem(), &ca.cross_sign(&new, time).unwrap()] {
            let der = one_certificate(pem).unwrap();
            let begin = parse_certificate(&der).unwrap().validity().not_before.timestamp();
            assert_eq!(begin * NS_PER_S, NOW.plus_ns(-HOUR_NS).0);
        }
    }

    #[test]
    fn no_certificate_outlives_the_root() {
        let ca = Ca::create().unwrap();
        let (peer, ..) = issue(&ca, NodeRole::Worker, i64::MAX);
        assert_eq!(peer.cert_expires_at, ca.expires_at);
    }

    #[test]
    fn a_loaded_root_signs_as_the_first_did() {
        let ca = Ca::create().unwrap();
        let again = Ca::load(ca.cert_pem(), ca.key_pem()).unwrap();
        assert_eq!(again.cert_pem(), ca.cert_pem());
        let (_, csr) = new_key_and_csr().unwrap();
        let issued = again.issue(&csr, NodeId(1), NodeRole::Worker, ClusterId(1), HOUR_NS, NOW).unwrap();
        let der = one_certificate(&issued.cert_pem).unwrap();
        parse_certificate(&der).unwrap().verify_signature(Some(root_key(&ca).public_key())).unwrap();
        assert!(!format!("{ca:?}").contains("PRIVATE"));
    }

    #[test]
    fn certificates_name_the_root_that_they_come_from() {
        let (old, new) = (Ca::create().unwrap(), Ca::create().unwrap());
        let (old_root, new_root) = (old.to_root().unwrap(), new.to_root().unwrap());
        assert_ne!(old_root.key_id, new_root.key_id);
        assert_eq!(issue(&old, NodeRole::Worker, HOUR_NS).0.issuer, old_root.key_id);
        // A certificate for its key by somebody else says the same of it.
        let cross = old.cross_sign(&new, NOW).unwrap();
        let der = one_certificate(&cross).unwrap();
        let certificate = parse_certificate(&der).unwrap();
        assert_eq!(own_key_id(&certificate), new_root.key_id);
        certificate.verify_signature(Some(root_key(&old).public_key())).unwrap();
        assert!(certificate.is_ca());
    }

    /// An authority as an operator makes it, with a name of its own.
    fn own(name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, Redacted) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = authority(NOW, NOW.plus_ns(ROOT_VALIDITY_NS)).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.distinguished_name.push(DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "Root 1");
        change(&mut params);
        (params.self_signed(&key).expect("the parameters are right").pem(), Redacted::new(key.serialize_pem()))
    }

    #[test]
    fn what_an_authority_of_ones_own_signs_is_accepted_by_who_trusts_only_the_old_one() {
        let old = Ca::create().unwrap();
        let (cert, key) = own("Example", |_| {});
        let new = Ca::load_own(&cert, &key, NOW).unwrap();
        let cross = old.cross_sign(&new, NOW).unwrap();
        let (peer, _, leaf) = issue(&new, NodeRole::Worker, HOUR_NS);
        assert_eq!(peer.issuer, new.to_root().unwrap().key_id);
        tls::check_chain(&cert, &leaf.cert_pem, NOW).unwrap();
        tls::check_chain(old.cert_pem(), &[&leaf.cert_pem, cross.as_str()].concat(), NOW).unwrap();
        assert!(tls::check_chain(old.cert_pem(), &leaf.cert_pem, NOW).is_err(), "not without the word of the old one");
    }

    #[test]
    fn an_authority_that_would_cut_nodes_off_is_refused() {
        let refusal = |(cert, key): (String, Redacted)| match Ca::load_own(&cert, &key, NOW) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was taken"),
        };
        let at = |t: Timestamp| date_time_ymd(1970, 1, 1) + Duration::from_secs(t.0 as u64 / NS_PER_S as u64);
        let other = own("Example", |_| {}).1;
        for (root, part) in [
            (own("Example", |params| params.is_ca = IsCa::ExplicitNoCa), "not one of a certificate authority"),
            (own("Example", |params| params.not_after = at(NOW.plus_ns(HOUR_NS))), "expires within 30 days"),
            (own("Example", |params| params.not_before = at(NOW.plus_ns(9 * HOUR_NS))), "not valid yet"),
            ((own("Example", |_| {}).0, other.clone()), "belongs to another certificate"),
            ((String::new(), other.clone()), "cannot be used"),
            ((own("Example", |_| {}).0, Redacted::new("x")), "its private key"),
        ] {
            let refusal = refusal(root);
            assert!(refusal.contains(part), "{part}: {refusal}");
            assert!(!refusal.contains("PRIVATE"), "{refusal}");
        }
        let limited = own("Example", |params| {
            let permitted_subtrees = vec![rcgen::GeneralSubtree::DnsName("example.com".into())];
            params.name_constraints =
                Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        });
        assert!(refusal(limited).contains("what it signs is not accepted"));
    }

    #[test]
    fn roots_with_anothers_key_or_without_one_are_refused() {
        let (a, b) = (Ca::create().unwrap(), Ca::create().unwrap());
        let error = Ca::load(a.cert_pem(), b.key_pem()).unwrap_err();
        assert!(error.to_string().contains("another certificate"), "{error}");
        assert!(matches!(Ca::load("", a.key_pem()), Err(CaError::Root(_))));
        assert!(matches!(Ca::load(a.cert_pem(), &Redacted::new("x")), Err(CaError::Root(_))));
    }

    #[test]
    fn what_is_shown_of_a_root_is_in_its_certificate() {
        let ca = Ca::create().unwrap();
        let info = RootInfo::read(ca.cert_pem()).unwrap();
        let der = one_certificate(ca.cert_pem()).unwrap();
        for part in [&info.subject_der, &info.public_key_der] {
            assert!(der.windows(part.len()).any(|window| window == part.as_slice()));
        }
        assert!(info.subject_der.windows(CA_NAME.len()).any(|window| window == CA_NAME.as_bytes()));
        assert!(RootInfo::read("nonsense").is_err());
    }

    #[test]
    fn requests_that_are_none_get_nothing() {
        let ca = Ca::create().unwrap();
        let issue = |csr: &str| ca.issue(csr, NodeId(1), NodeRole::Worker, ClusterId(1), HOUR_NS, NOW);
        assert!(matches!(issue(""), Err(CaError::Request(_))));
        assert!(matches!(issue(ca.cert_pem()), Err(CaError::Request(_))));
        assert!(issue(&"x".repeat(CSR_BYTES_MAX + 1)).unwrap_err().to_string().contains("limit"));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        assert!(issue(&csr).unwrap_err().to_string().contains("P-256"));
    }

    proptest! {
        #[test]
        fn any_request_is_signed_or_refused(csr in "(-----BEGIN CERTIFICATE REQUEST-----\n)?[A-Za-z0-9+/=\n]{0,200}(\n-----END CERTIFICATE REQUEST-----)?") {
            thread_local! { static CA: Ca = Ca::create().unwrap(); }
            CA.with(|ca| { let _ = ca.issue(&csr, NodeId(1), NodeRole::Worker, ClusterId(1), HOUR_NS, NOW); });
        }
    }
}
