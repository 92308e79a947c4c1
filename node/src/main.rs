//! The node daemon: identity, role, the API socket.

fn main() {}
