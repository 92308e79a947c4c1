//! The TLS settings: TLS 1.2 and 1.3, ring as the only provider, the cluster's root CA as the only root.

use std::{sync::Arc, time::Duration};

use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use swarm_model::Timestamp;

use super::{Alpn, TlsError, Trust, early::Early};
use crate::{NodeIdentity, identity::certificates};

/// Accepts peers with and without a certificate; one that is given must be of the cluster's root.
pub(super) fn server(identity: &NodeIdentity) -> Result<ServerConfig, TlsError> {
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity.root_pem())?), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::Identity(e.to_string()))?;
    let (chain, key) = certificate(identity)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(Early(verifier)))
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = Alpn::OF_MANAGERS.iter().map(|a| a.as_str().into()).collect();
    Ok(config)
}

/// Shows the node's certificate and wants a manager's.
pub(super) fn client(identity: &NodeIdentity) -> Result<ClientConfig, TlsError> {
    let (chain, key) = certificate(identity)?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(servers(identity.root_pem())?)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)
}

/// Shows no certificate.
pub(super) fn bootstrap(trust: Trust<'_>) -> Result<ClientConfig, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12]).map_err(unusable)?;
    let builder = match trust {
        Trust::Root(pem) => builder.dangerous().with_custom_certificate_verifier(servers(pem)?),
        Trust::Unverified => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody { provider: provider() }))
        }
    };
    Ok(builder.with_no_client_auth())
}

/// Takes links of nodes of the cluster: a certificate is a must.
pub(super) fn data_server(identity: &NodeIdentity) -> Result<ServerConfig, TlsError> {
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity.root_pem())?), data_provider())
            .build()
            .map_err(|e| TlsError::Identity(e.to_string()))?;
    let (chain, key) = certificate(identity)?;
    let mut config = ServerConfig::builder_with_provider(data_provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(Early(verifier)))
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![Alpn::Data.as_str().into()];
    // Links are few and stay: a session that is taken up again would only carry an old certificate along.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Makes links to nodes of the cluster; the server name says which node is wanted.
pub(super) fn data_client(identity: &NodeIdentity) -> Result<ClientConfig, TlsError> {
    let (chain, key) = certificate(identity)?;
    let mut config = ClientConfig::builder_with_provider(data_provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(servers(identity.root_pem())?)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![Alpn::Data.as_str().into()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The provider of links, which carry bulk data: AES-128 costs less than AES-256 and is as safe here, and without
/// instructions for AES ChaCha20 is several times faster. The client's order decides.
fn data_provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let rank = |suite: CipherSuite| match suite {
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => u8::from(has_aes()) * 2,
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 1,
        _ => 3,
    };
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    Arc::new(provider)
}

/// Whether the processor has instructions for AES-GCM.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    false
}

/// Whether who trusts a root accepts a chain, PEM, the node's own certificate first.
///
/// # Errors
/// Why not.
pub(crate) fn check_chain(root_pem: &str, chain_pem: &str, now: Timestamp) -> Result<(), TlsError> {
    let chain = certificates(chain_pem).map_err(|e| TlsError::Identity(e.to_string()))?;
    check_certificates(root_pem, &chain, now)
}

/// [`check_chain`] of certificates that have been read.
pub(super) fn check_certificates(root_pem: &str, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(root_pem)?), provider())
        .build()
        .map_err(|e| TlsError::Identity(e.to_string()))?;
    let (own, others) = chain.split_first().ok_or_else(|| TlsError::Identity("there is no certificate".into()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_nanos(now.0.max(0).unsigned_abs()));
    verifier.verify_client_cert(own, others, now).map(drop).map_err(unusable)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificate(identity: &NodeIdentity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let unusable = |e: String| TlsError::Identity(e);
    let chain = certificates(identity.cert_pem()).map_err(|e| unusable(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().expose().as_bytes())
        .map_err(|e| unusable(format!("private key: {e}")))?;
    Ok((chain, key))
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in certificates(pem).map_err(|e| TlsError::Identity(e.to_string()))? {
        store.add(root).map_err(unusable)?;
    }
    Ok(store)
}

/// Accepts nodes under these roots whose certificate has the server name that was asked for: that of managers, or that
/// of one node.
fn servers(root_pem: &str) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root_pem)?), provider())
            .build()
            .map_err(|e| TlsError::Identity(e.to_string()))?;
    Ok(Arc::new(Early(verifier)))
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Identity(error.to_string())
}

/// Accepts any server that holds the key of the certificate that it shows. What is fetched this way is the root CA
/// alone, and its digest is then compared with the join token.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
