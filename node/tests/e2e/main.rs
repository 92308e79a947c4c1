//! The real `swarmd`, as whole clusters of processes: killed, suspended, told nonsense, with and without containers.
//!
//! * [`attack`] – a flood of connections that say nothing.
//! * [`autolock`] – locked managers, the key and its rotation.
//! * [`certificates`] – the root CA is replaced.
//! * [`crash`] – the manager killed while clients write; nothing acknowledged is lost.
//! * [`containers`] – real containers while daemons or the engine are killed or hang; none twice, none forgotten.
//! * [`rollout`] – the manager killed during rolling updates and rollbacks; each goes on where it was.
//! * [`by_hand`] – containers that somebody restarts or starts; none runs beside what runs instead.
//! * [`story`] – the life of a service on real containers, from its creation to nodes that go and come.
//! * [`suspended`] – a daemon stands still for ten seconds.
//! * [`managers`] – several managers: leaders killed under writers, promotion, demotion, leaving.
//! * [`backup`] – the swarm comes back from a file when all managers are lost.
//! * [`killed`] – all managers killed at once, and one killed while it writes a snapshot.
//! * [`quorum`] – most managers are gone: what is refused and what can still be read.
//! * [`damage`] – files of the log that are damaged at random, or removed while they are in use.
//! * [`old_copy`] – a manager with an older copy of its folder, and one that has what the others lost.
//! * [`refusals`] – state folders that are damaged, foreign or full.
//! * [`clocks`] – clocks that are a year off, and swarms that were off for long.
//! * [`grow`] – more managers and fewer again, during a rolling update.
//! * [`handover`] – leaders killed in the middle of updates and of restart delays.
//! * [`membership`] – leaving, removal, coming back.
//! * [`twins`] – two machines with one state folder.
//! * [`upgrade`] – state folders of earlier releases are opened.
//! * [`wrong_input`] – what is refused, with which words.
//! * [`http`], [`daemon`], [`cluster`], [`engine`], [`wait`] – what the tests are made of.
//!
//! One program, so that tests that wait run beside tests that work.

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "test code")]

mod attachments;
mod attack;
mod autolock;
mod backup;
mod by_hand;
mod certificates;
mod clocks;
mod cluster;
mod containers;
mod crash;
mod daemon;
mod damage;
mod engine;
mod grow;
mod handover;
mod http;
mod killed;
mod load;
mod managers;
mod membership;
mod networks;
mod old_copy;
mod ports;
mod quorum;
mod refusals;
mod rollout;
mod story;
mod suspended;
mod twins;
mod upgrade;
mod wait;
mod wrong_input;
