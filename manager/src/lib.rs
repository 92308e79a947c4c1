//! The manager plane: leader loop, dispatcher, certificate authority, the swarm routes of the API.

pub mod api;
