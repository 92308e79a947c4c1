//! The commands, one file each.

mod check_version;
pub(crate) mod config;
pub(crate) mod network;
pub(crate) mod node;
mod object;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod task;
mod why;
