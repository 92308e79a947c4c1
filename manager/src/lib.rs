//! The manager plane: leader loop, dispatcher, certificate authority, the swarm routes of the API.

pub mod dispatcher;
pub mod feed;
pub mod leader;
pub mod raft;
#[cfg(test)]
mod testing;
