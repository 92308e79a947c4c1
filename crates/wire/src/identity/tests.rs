use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;

use super::*;
use crate::{Ca, ca::CA_NAME, clock};

fn identity(ca: &Ca) -> NodeIdentity {
    let (key, csr) = new_key_and_csr().unwrap();
    let issued = ca.issue(&csr, NodeId(5), NodeRole::Manager, ClusterId(6), 3_600_000_000_000, clock::now()).unwrap();
    NodeIdentity::new(issued.cert_pem, key, ca.cert_pem()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_saved_is_loaded_and_the_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("certificates");
    let saved = identity(&Ca::create().unwrap());
    assert!(NodeIdentity::load(&folder, None).unwrap().is_none());
    saved.save(&folder, None).unwrap();
    let loaded = NodeIdentity::load(&folder, None).unwrap().unwrap();
    assert_eq!(loaded.as_peer(), saved.as_peer());
    assert_eq!((loaded.node(), loaded.role(), loaded.cluster()), (NodeId(5), NodeRole::Manager, ClusterId(6)));
    assert_eq!(mode(&folder), 0o700);
    for file in [KEY_FILE, CERT_FILE, ROOT_FILE] {
        let path = folder.join(file);
        assert_eq!(mode(&path), 0o600, "{file}");
        // As 0.1.0 wrote them.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        NodeIdentity::load(&folder, None).unwrap().unwrap();
        assert_eq!(mode(&path), 0o600, "{file}");
    }
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
}

#[test]
fn a_crash_during_renewal_leaves_the_old_identity_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ca = Ca::create().unwrap();
    let (old, new) = (identity(&ca), identity(&ca));
    old.save(folder, None).unwrap();
    // Crash after the new key was written: the old certificate still goes with the old key.
    write(&folder.join(NEW_KEY_FILE), new.key_pem().expose()).unwrap();
    assert_eq!(NodeIdentity::load(folder, None).unwrap().unwrap().cert_pem(), old.cert_pem());
    // Crash after the new certificate was written.
    write(&folder.join(CERT_FILE), new.cert_pem()).unwrap();
    for _ in 0..2 {
        let loaded = NodeIdentity::load(folder, None).unwrap().unwrap();
        assert_eq!(loaded.key_pem(), new.key_pem());
        assert!(!folder.join(NEW_KEY_FILE).exists());
    }
}

#[test]
fn a_wrapped_key_takes_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let saved = identity(&Ca::create().unwrap());
    let (wrap, other) = (WrapKey::derive(&[1; 32], "a"), WrapKey::derive(&[1; 32], "b"));
    saved.save(folder, Some(&wrap)).unwrap();
    let file = fs::read(folder.join(KEY_FILE)).unwrap();
    assert!(is_wrapped(&file) && !String::from_utf8_lossy(&file).contains("PRIVATE"));
    assert_eq!(mode(&folder.join(KEY_FILE)), 0o600);
    for wrong in [None, Some(&other)] {
        let error = NodeIdentity::load(folder, wrong).unwrap_err();
        assert!(matches!(error, IdentityError::Locked(LockError::Closed)), "{error}");
    }
    assert_eq!(NodeIdentity::load(folder, Some(&wrap)).unwrap().unwrap().key_pem(), saved.key_pem());
    // Who it is, is no secret; and a key that is not wrapped needs nothing.
    assert_eq!(NodeIdentity::peek(folder).unwrap().as_ref(), Some(saved.as_peer()));
    saved.save(folder, None).unwrap();
    assert!(NodeIdentity::load(folder, Some(&wrap)).unwrap().is_some());
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let ca = Ca::create().unwrap();
    let (a, b) = (identity(&ca), identity(&ca));
    let mixed = NodeIdentity::new(a.cert_pem(), b.key_pem().clone(), ca.cert_pem());
    assert!(matches!(mixed, Err(IdentityError::OtherKey)));
    let no_root = NodeIdentity::new(a.cert_pem(), a.key_pem().clone(), a.cert_pem());
    assert!(no_root.unwrap_err().to_string().contains("root CA"));

    let folder = tempfile::tempdir().unwrap();
    a.save(folder.path(), None).unwrap();
    fs::remove_file(folder.path().join(KEY_FILE)).unwrap();
    assert!(NodeIdentity::load(folder.path(), None).unwrap_err().to_string().contains("missing"));
}

#[test]
fn each_damaged_bit_of_a_root_is_seen() {
    let ca = Ca::create().unwrap();
    let own = identity(&ca);
    let folder = tempfile::tempdir().unwrap();
    own.save(folder.path(), None).unwrap();
    let root = CertificateDer::from_pem_slice(ca.cert_pem().as_bytes()).unwrap();
    // The name of its issuer comes before its own name. A root with another issuer would be no root, but TLS does not
    // look at that name.
    let name = root.windows(CA_NAME.len()).position(|part| part == CA_NAME.as_bytes()).unwrap();
    for at in 0..root.len() * 8 {
        let mut der = root.to_vec();
        der[at / 8] ^= 1 << (at % 8);
        let text = BASE64.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        fs::write(folder.path().join(ROOT_FILE), pem).unwrap();
        let is_refused = NodeIdentity::load(folder.path(), None).is_err();
        assert!(is_refused || (name - 11..name + CA_NAME.len()).contains(&(at / 8)), "bit {at}");
    }
}

proptest! {
    #[test]
    fn any_pem_is_read_or_refused(body in "[A-Za-z0-9+/=\n]{0,200}", kind in "(CERTIFICATE|PRIVATE KEY|\\PC{0,10})") {
        let pem = format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        prop_assert!(NodeIdentity::new(pem.clone(), Redacted::new(pem.clone()), pem.clone()).is_err());
    }
}
