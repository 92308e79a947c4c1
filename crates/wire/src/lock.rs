//! Autolock: the key that people keep, and how files are wrapped (swarm-behaviour §8.4).
//!
//! A wrapped file is a mark, a random nonce and what ChaCha20-Poly1305 makes of the content. Which key wraps what is in
//! the derivation of the key (HKDF-SHA256), so that one file cannot be put in the place of another.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};
use swarm_model::Redacted;
use thiserror::Error;
use zeroize::Zeroizing;

/// What every unlock key begins with.
const PREFIX: &str = "SWMKEY-1-";
/// Bytes of an unlock key.
const KEY_BYTES: usize = 32;
/// What a wrapped file begins with. Neither PEM nor 32 random bytes do.
const MARK: &[u8] = b"swarmd wrapped file 1\n";

/// What is wrong with an unlock key, or with what it is to open. No message holds any part of a key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LockError {
    /// Not the form of an unlock key.
    #[error(
        "this is not an unlock key: one looks like SWMKEY-1-<43 characters>; \
         print it with `swarm unlock-key` on a manager that is not locked"
    )]
    NotAKey,
    /// Another key, or damaged bytes.
    #[error("it was wrapped with another key, or it is damaged")]
    Closed,
    /// The system has no randomness.
    #[error("the system has no randomness")]
    NoRandomness,
}

/// Autolock's key, `SWMKEY-1-` and 32 random bytes in base64 without padding. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(hidden)")
    }
}

impl UnlockKey {
    /// A new key.
    ///
    /// # Errors
    /// [`LockError::NoRandomness`].
    pub fn generate() -> Result<Self, LockError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| LockError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Reads a key; space around it is left out.
    ///
    /// # Errors
    /// [`LockError::NotAKey`].
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(LockError::NotAKey)?;
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        match BASE64_STANDARD_NO_PAD.decode_slice(body, &mut *bytes) {
            Ok(KEY_BYTES) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(LockError::NotAKey),
        }
    }

    /// The key in full.
    pub fn format(&self) -> Redacted {
        Redacted::new(format!("{PREFIX}{}", BASE64_STANDARD_NO_PAD.encode(*self.0)))
    }

    /// What wraps the key of the log.
    pub fn wrap_key(&self) -> WrapKey {
        WrapKey::derive(&self.0, "swarmd: key of the log")
    }
}

/// Wraps files of one purpose. Its `Debug` form hides it.
pub struct WrapKey(LessSafeKey);

impl fmt::Debug for WrapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapKey(hidden)")
    }
}

impl WrapKey {
    /// The key for a purpose. Keys for different purposes tell nothing of each other.
    pub fn derive(secret: &[u8; KEY_BYTES], purpose: &str) -> Self {
        let derived = Salt::new(HKDF_SHA256, &[]).extract(secret);
        let purpose = [purpose.as_bytes()];
        // HKDF has 255 times 32 bytes to give, and 32 are wanted.
        let key = derived.expand(&purpose, &CHACHA20_POLY1305).expect("the cipher's key is short");
        Self(LessSafeKey::new(UnboundKey::from(key)))
    }

    /// Wraps the content of a file.
    ///
    /// # Errors
    /// [`LockError::NoRandomness`].
    pub fn wrap(&self, content: &[u8]) -> Result<Vec<u8>, LockError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| LockError::NoRandomness)?;
        let mut wrapped = [MARK, &nonce, content].concat();
        let begin = MARK.len() + NONCE_LEN;
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(MARK), &mut wrapped[begin..])
            .expect("a file is shorter than the 256 GiB that the cipher takes");
        wrapped.extend_from_slice(tag.as_ref());
        Ok(wrapped)
    }

    /// The content of a file that was wrapped with this key.
    ///
    /// # Errors
    /// [`LockError::Closed`].
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, LockError> {
        let rest = wrapped.strip_prefix(MARK).ok_or(LockError::Closed)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(LockError::Closed)?;
        let mut content = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(MARK), &mut content).map_err(|_| LockError::Closed)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// Whether the content of a file is wrapped.
pub fn is_wrapped(content: &[u8]) -> bool {
    content.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_text_and_back() {
        let key = UnlockKey::generate().unwrap();
        let text = key.format();
        assert_eq!(text.expose().len(), PREFIX.len() + 43);
        assert_eq!(UnlockKey::parse(&format!(" {}\n", text.expose())).unwrap(), key);
        for wrong in ["", "SWMKEY-1-", "SWMKEY-2-AAAA", &text.expose()[..40], &format!("{}A", text.expose())] {
            assert_eq!(UnlockKey::parse(wrong), Err(LockError::NotAKey), "{wrong}");
        }
        assert!(!format!("{key:?} {:?}", key.wrap_key()).contains(&text.expose()[PREFIX.len()..]));
    }

    #[test]
    fn another_key_or_another_purpose_opens_nothing() {
        let key = UnlockKey::generate().unwrap();
        let wrapped = key.wrap_key().wrap(b"precious").unwrap();
        assert!(is_wrapped(&wrapped) && !is_wrapped(b"precious"));
        assert_eq!(**key.wrap_key().unwrap(&wrapped).unwrap(), *b"precious");
        let others = [UnlockKey::generate().unwrap().wrap_key(), WrapKey::derive(&key.0, "something else")];
        others.iter().for_each(|other| assert_eq!(other.unwrap(&wrapped), Err(LockError::Closed)));
        assert_ne!(key.wrap_key().wrap(b"precious").unwrap(), wrapped);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(SWMKEY-1-)?\\PC{0,60}") {
            if let Ok(key) = UnlockKey::parse(&text) {
                let formatted = key.format();
                prop_assert_eq!(formatted.expose(), text.trim());
            }
        }

        #[test]
        fn damaged_bytes_are_refused(content: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
            let key = WrapKey::derive(&[7; KEY_BYTES], "test");
            let mut wrapped = key.wrap(&content).unwrap();
            let opened = key.unwrap(&wrapped).unwrap();
            prop_assert_eq!(opened.as_slice(), content.as_slice());
            prop_assert!(key.unwrap(&wrapped[..at.index(wrapped.len())]).is_err());
            let place = at.index(wrapped.len());
            wrapped[place] ^= 1 << bit;
            prop_assert!(key.unwrap(&wrapped).is_err());
            prop_assert!(key.unwrap(&content).is_err());
        }
    }
}
