//! swarmctl: Swarm's verbs on a swarmd.
#![allow(dead_code)]
mod choice;
mod client;
mod clock;
mod filters;
mod format;
mod json_text;
mod out;
mod spec_flags;
mod table;
mod template;
mod units;
fn main() {}
