//! The data plane of a node: a process that holds the published ports, forwards connections to tasks, and goes on with
//! its last table while swarmd is away.

pub mod link;
pub mod protocol;
