//! Who this node is: its certificate, its key and the root CA that it trusts, in memory and in a folder.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use swarm_model::{ClusterId, NodeCertificate, NodeId, NodeRole, Redacted};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    ca::check_root,
    files::{read_private, sync_folder_of, write_atomically},
    lock::{LockError, WrapKey, is_wrapped},
    peer::{PeerError, PeerIdentity, own_key_id, parse_certificate},
    tls,
    token::root_digest,
};

const ROOT_FILE: &str = "swarm-root-ca.crt";
const CERT_FILE: &str = "swarm-node.crt";
const KEY_FILE: &str = "swarm-node.key";
/// The key of a certificate that may not have been written yet: a crash between the two files must leave a pair.
const NEW_KEY_FILE: &str = "swarm-node.key.new";
/// The files of an identity in their folder: certificate, private key, the cluster's root certificate.
pub const IDENTITY_FILES: [&str; 3] = [CERT_FILE, KEY_FILE, ROOT_FILE];

/// Largest of the files; a chain of certificates has some thousand bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Certificates in one PEM text; a chain has one or two.
const CERTIFICATES_MAX: usize = 8;

/// Why an identity cannot be used, read or written.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A PEM text without what it should hold.
    #[error("{what}: {problem}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate names no node.
    #[error("the node certificate: {0}")]
    Peer(#[from] PeerError),
    /// Key and certificate are not a pair.
    #[error("the private key does not belong to the node certificate")]
    OtherKey,
    /// The private key is wrapped, and the key that opens it is not the one given.
    #[error("the node's private key cannot be opened: {0}")]
    Locked(LockError),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    peer: PeerIdentity,
    cert_pem: String,
    key_pem: Redacted,
    root_pem: String,
}

impl NodeIdentity {
    /// An identity from PEM texts: the certificate (the leaf first), its key, the root CA.
    ///
    /// # Errors
    /// [`IdentityError`] when one cannot be read or they do not belong together.
    pub fn new(
        cert_pem: impl Into<String>,
        key_pem: Redacted,
        root_pem: impl Into<String>,
    ) -> Result<Self, IdentityError> {
        let (cert_pem, root_pem) = (cert_pem.into(), root_pem.into());
        check_root(&root_pem)
            .map_err(|e| IdentityError::Pem { what: "the cluster's root CA", problem: e.to_string() })?;
        let chain = certificates(&cert_pem)?;
        let certificate = parse_certificate(&chain[0])?;
        let peer = PeerIdentity::from_x509(&certificate)?;
        let key = KeyPair::from_pem(key_pem.expose())
            .map_err(|e| IdentityError::Pem { what: "the node's private key", problem: e.to_string() })?;
        if certificate.public_key().subject_public_key.data != key.der_bytes() {
            return Err(IdentityError::OtherKey);
        }
        Ok(Self { peer, cert_pem, key_pem, root_pem })
    }

    /// The same that trusts other roots, PEM. The one that its certificate comes from has to be among them: without it
    /// nobody would trust whom it trusts.
    ///
    /// # Errors
    /// [`IdentityError`] when they cannot be read, or it is not.
    pub fn trusting(&self, root_pem: &str) -> Result<Self, IdentityError> {
        let roots = certificates(root_pem)?;
        let is_issuer = |der: &CertificateDer<'_>| parse_certificate(der).map(|c| own_key_id(&c) == self.peer.issuer);
        if !roots.iter().any(|der| is_issuer(der).unwrap_or(false)) {
            let problem = "this node's certificate does not come from it".to_owned();
            return Err(IdentityError::Pem { what: "the cluster's new root CA", problem });
        }
        Self::new(self.cert_pem.clone(), self.key_pem.clone(), root_pem)
    }

    /// The certificate as the managers are told of it.
    pub fn certificate(&self) -> NodeCertificate {
        NodeCertificate { issuer: self.peer.issuer.clone(), trusted: root_digest(&self.root_pem) }
    }

    /// This node's id.
    pub const fn node(&self) -> NodeId {
        self.peer.node
    }

    /// The role that the certificate gives it.
    pub const fn role(&self) -> NodeRole {
        self.peer.role
    }

    /// The cluster.
    pub const fn cluster(&self) -> ClusterId {
        self.peer.cluster
    }

    /// What a peer reads in the certificate, its validity included.
    pub const fn as_peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// The certificate chain, PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key, PEM.
    pub const fn key_pem(&self) -> &Redacted {
        &self.key_pem
    }

    /// The cluster's root CA, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What the certificate kept in a folder says, which takes no key; none when there is no certificate.
    ///
    /// # Errors
    /// [`IdentityError`] when it cannot be read or names no node.
    pub fn peek(folder: &Path) -> Result<Option<PeerIdentity>, IdentityError> {
        let Some(cert) = read(&folder.join(CERT_FILE))? else { return Ok(None) };
        Ok(Some(PeerIdentity::from_der(&certificates(&cert)?[0])?))
    }

    /// Reads the identity kept in a folder; none when there is no certificate. `wrap` opens a private key that is
    /// wrapped; one that is not is read as it is.
    ///
    /// # Errors
    /// [`IdentityError`] when files are there but cannot be read or used.
    pub fn load(folder: &Path, wrap: Option<&WrapKey>) -> Result<Option<Self>, IdentityError> {
        let Some(cert) = read(&folder.join(CERT_FILE))? else { return Ok(None) };
        let missing = |what, file| IdentityError::Pem { what, problem: format!("its file {file} is missing") };
        let root = read(&folder.join(ROOT_FILE))?.ok_or_else(|| missing("the cluster's root CA", ROOT_FILE))?;
        let mut last = missing("the node's private key", KEY_FILE);
        for file in [KEY_FILE, NEW_KEY_FILE] {
            let path = folder.join(file);
            let Some(key) = read_bytes(&path)? else { continue };
            let identity = open(&key, wrap).and_then(|key| Self::new(cert.clone(), key, root.clone()));
            match identity.and_then(Self::check_root) {
                Ok(identity) => {
                    if file == NEW_KEY_FILE {
                        rename(&path, &folder.join(KEY_FILE))?;
                    }
                    return Ok(Some(identity));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Checks that the certificate comes from the root. Nobody else would say so: a node that trusts a damaged root takes
    /// all others for strangers. Whether the certificate has expired is not asked.
    fn check_root(self) -> Result<Self, IdentityError> {
        tls::check_chain(&self.root_pem, &self.cert_pem, self.peer.cert_expires_at)
            .map(|()| self)
            .map_err(|e| IdentityError::Pem { what: "the node's certificate", problem: e.to_string() })
    }

    /// Writes the identity to a folder, which is made if need be (0700; the files 0600), its private key wrapped if
    /// `wrap` is given. A crash at any moment leaves the old identity or the new one.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, folder: &Path, wrap: Option<&WrapKey>) -> Result<(), IdentityError> {
        let file = |source| IdentityError::File { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(file)?;
        write(&folder.join(ROOT_FILE), &self.root_pem)?;
        let key = self.key_pem.expose().as_bytes();
        let key = match wrap {
            Some(wrap) => wrap.wrap(key).map_err(IdentityError::Locked)?,
            None => key.to_vec(),
        };
        write_bytes(&folder.join(NEW_KEY_FILE), &Zeroizing::new(key))?;
        write(&folder.join(CERT_FILE), &self.cert_pem)?;
        rename(&folder.join(NEW_KEY_FILE), &folder.join(KEY_FILE))
    }
}

/// A new P-256 key (PEM) and a certificate request (PEM) for it. The request names nobody: the CA says who the node is.
///
/// # Errors
/// [`IdentityError::Pem`] when the system has no randomness.
pub fn new_key_and_csr() -> Result<(Redacted, String), IdentityError> {
    let failed = |e: rcgen::Error| IdentityError::Pem { what: "a new key", problem: e.to_string() };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key).and_then(|r| r.pem()).map_err(failed)?;
    Ok((Redacted::new(key.serialize_pem()), csr))
}

pub(crate) fn one_certificate(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    let mut found = certificates(pem)?;
    match found.pop() {
        Some(one) if found.is_empty() => Ok(one),
        _ => Err(IdentityError::Pem { what: "certificate", problem: "exactly one is wanted".to_owned() }),
    }
}

/// The certificates in a PEM text, at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let wrong = |problem: String| IdentityError::Pem { what: "certificate", problem };
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(CERTIFICATES_MAX + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    match found.len() {
        0 => Err(wrong("there is none in the PEM text".to_owned())),
        n if n > CERTIFICATES_MAX => Err(wrong(format!("there are more than {CERTIFICATES_MAX} in the PEM text"))),
        _ => Ok(found),
    }
}

/// The private key, PEM, of what its file holds.
fn open(file: &[u8], wrap: Option<&WrapKey>) -> Result<Redacted, IdentityError> {
    let text = |bytes: &[u8]| {
        std::str::from_utf8(bytes)
            .map(Redacted::new)
            .map_err(|e| IdentityError::Pem { what: "the node's private key", problem: e.to_string() })
    };
    match wrap {
        _ if !is_wrapped(file) => text(file),
        None => Err(IdentityError::Locked(LockError::Closed)),
        Some(wrap) => text(&wrap.unwrap(file).map_err(IdentityError::Locked)?),
    }
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let wrong =
        |e: std::string::FromUtf8Error| IdentityError::File { path: path.to_owned(), source: io::Error::other(e) };
    read_bytes(path)?.map(|bytes| String::from_utf8(bytes.to_vec()).map_err(wrong)).transpose()
}

fn read_bytes(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
    match read_private(path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, content: &str) -> Result<(), IdentityError> {
    write_bytes(path, content.as_bytes())
}

fn write_bytes(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    write_atomically(path, content, 0o600).map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    fs::rename(from, to)
        .and_then(|()| sync_folder_of(to))
        .map_err(|source| IdentityError::File { path: to.to_owned(), source })
}

#[cfg(test)]
mod tests;
