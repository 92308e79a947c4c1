//! Randomness for ids and for delays that should differ from node to node.

use rustix::rand::{GetRandomFlags, getrandom};

/// 128 random bits.
pub(crate) fn bits() -> u128 {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // A signal may interrupt it; small requests do not fail otherwise.
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or(0);
    }
    u128::from_ne_bytes(bytes)
}

/// A number below `end`, which is more than zero.
pub(crate) fn below(end: u64) -> u64 {
    (bits() % u128::from(end.max(1))) as u64
}
