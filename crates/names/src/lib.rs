//! The names of services and tasks in the networks of a node.
