//! The command line: Swarm's verbs on a swarmd.

fn main() {}
