//! The commands, one file each.

mod check_version;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod task;
mod why;
