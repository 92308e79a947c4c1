//! Where time and randomness come in.

use ring::rand::{SecureRandom, SystemRandom};
use swarm_model::Timestamp;

/// Reads the time; [`swarm_wire::clock::now`], but for tests.
pub(crate) type Clock = fn() -> Timestamp;

/// 128 random bits.
///
/// # Errors
/// The system has none; the text says so.
pub(crate) fn random() -> Result<u128, String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no randomness".to_owned())?;
    Ok(u128::from_be_bytes(bytes))
}
