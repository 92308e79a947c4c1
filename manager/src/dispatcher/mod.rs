//! Sessions of agents.
pub mod liveness;
