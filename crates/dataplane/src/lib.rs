//! The data plane of a node: a process that holds the published ports, forwards connections to tasks, and goes on with
//! its last table while swarmd is away.

mod buffer;
mod control;
mod descriptors;
mod endpoint;
mod forward;
mod handover;
mod holder;
mod incoming;
mod limits;
pub mod link;
mod listeners;
mod names;
mod plane;
pub mod process;
pub mod protocol;
mod relay;
pub mod remote;
mod route;
mod source;
mod switch;
mod udp;
mod voice;

pub use forward::Holding;
pub use process::{Control, Options, run};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
