//! Sessions of agents.
pub mod liveness;
pub mod reports;
pub mod session;
