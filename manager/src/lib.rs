//! The manager plane: leader loop, dispatcher, certificate authority, the swarm routes of the API.
//!
//! [`Manager`] puts them together. The leader loop and the dispatcher are pure steps with thin shells; what they know
//! beside the replicated state lives for one leadership only.

pub mod api;
mod backup;
mod clock;
pub mod dispatcher;
pub mod endpoints;
pub mod feed;
mod init;
mod join;
pub mod leader;
mod level;
pub mod logs;
mod manager;
mod members;
pub mod networks;
mod plane;
pub mod raft;
mod rotation;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod versioned;

pub use backup::{Restore, RestoreError};
pub use init::{Init, InitError};
pub use manager::{Manager, ManagerError, ManagerOptions, SEAL_KEY_FILE, Start, StepDownError};
