//! Sealing: authenticated encryption of rows and snapshots.
//!
//! ChaCha20-Poly1305 with a random 96-bit nonce before the ciphertext and the tag behind it. What a sealed value is
//! (its kind), where it stands (its index) and which store it belongs to go in as associated data: rows cannot be
//! swapped, moved or brought over from another log. The chance that two of n random nonces are equal is about n²/2^97:
//! one in eight billion after a year and a half of 100 entries a second, one in a hundred million after ten years.

use std::fmt;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::SealKey;

/// What a sealed value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Who owns the store; also tells a wrong key.
    Identity = 1,
    /// A log entry.
    Row = 2,
    /// The vote.
    Vote = 3,
    /// The commit hint.
    Committed = 4,
    /// The last purged log id.
    Purged = 5,
    /// The first frame of a snapshot.
    SnapshotHead = 6,
    /// A middle frame of a snapshot.
    SnapshotBody = 7,
    /// The last frame of a snapshot.
    SnapshotEnd = 8,
    /// A testimony of the witness.
    Witness = 9,
}

/// 16 random bytes that name a store or a snapshot.
pub(crate) type RandomId = [u8; 16];

/// The value was not sealed with this key, as this kind, at this place; or there is no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealError;

/// Seals and opens values of one store.
#[derive(Clone)]
pub(crate) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
    store: RandomId,
    scope: RandomId,
}

impl Seal {
    pub(crate) fn new(key: &SealKey, store: RandomId) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.bytes()).expect("the key has the cipher's 32 bytes");
        Self { key: LessSafeKey::new(key), random: SystemRandom::new(), store, scope: RandomId::default() }
    }

    /// The same for one snapshot: its frames cannot be mixed with those of another.
    pub(crate) fn scoped(&self, scope: RandomId) -> Self {
        Self { scope, ..self.clone() }
    }

    pub(crate) fn store(&self) -> RandomId {
        self.store
    }

    fn context(&self, kind: Kind, index: u64) -> Aad<[u8; 41]> {
        let mut context = [0; 41];
        context[0] = kind as u8;
        context[1..9].copy_from_slice(&index.to_le_bytes());
        context[9..25].copy_from_slice(&self.store);
        context[25..].copy_from_slice(&self.scope);
        Aad::from(context)
    }

    /// Seals a value.
    pub(crate) fn seal(&self, kind: Kind, index: u64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random(&self.random)?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                self.context(kind, index),
                &mut sealed[NONCE_LEN..],
            )
            .map_err(|_| SealError)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a sealed value.
    pub(crate) fn open(&self, kind: Kind, index: u64, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError)?;
        let mut plain = rest.to_vec();
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), self.context(kind, index), &mut plain)
            .map_err(|_| SealError)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("store", &self.store).finish_non_exhaustive()
    }
}

fn random<const N: usize>(source: &SystemRandom) -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    source.fill(&mut bytes).map_err(|_| SealError)?;
    Ok(bytes)
}

/// A new name for a store or a snapshot.
pub(crate) fn random_id() -> Result<RandomId, SealError> {
    random(&SystemRandom::new())
}
