//! The real `swarmd`, as whole clusters of processes: killed, suspended, told nonsense, with and without containers.
//!
//! * [`attack`] – a flood of connections that say nothing.
//! * [`autolock`] – locked managers, the key and its rotation.
//! * [`certificates`] – the root CA is replaced.
//! * [`crash`] – the manager killed while clients write; nothing acknowledged is lost.
//! * [`containers`] – real containers while daemons or the engine are killed or hang; none twice, none forgotten.
//! * [`rollout`] – the manager killed during rolling updates and rollbacks; each goes on where it was.
//! * [`story`] – the life of a service on real containers, from its creation to nodes that go and come.
//! * [`suspended`] – a daemon stands still for ten seconds.
//! * [`managers`] – several managers: leaders killed under writers, promotion, demotion, leaving.
//! * [`membership`] – leaving, removal, coming back.
//! * [`wrong_input`] – what is refused, with which words.
//! * [`http`], [`daemon`], [`cluster`], [`engine`], [`wait`] – what the tests are made of.
//!
//! One program, so that tests that wait run beside tests that work.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "test code")]

mod attack;
mod autolock;
mod certificates;
mod cluster;
mod containers;
mod crash;
mod daemon;
mod engine;
mod http;
mod managers;
mod membership;
mod rollout;
mod story;
mod suspended;
mod wait;
mod wrong_input;
