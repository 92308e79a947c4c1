//! Mutual TLS identity, the cluster's CA, framed streams, the agent and raft messages.

pub mod agent;
mod channel;

pub use channel::{FRAME_BYTES_MAX, Receiver, Sender, channel};
