//! A flood of connections that say nothing, against a cluster that has work to do.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::{
    cluster::{Written, scale, service},
    managers::start,
    wait::until,
};

/// Connections at once, as far as this process may have so many files.
const CONNECTIONS: usize = 10_000;
/// Files of this process that are none of them.
const OTHER_FILES: usize = 600;

/// How many connections this process can hold.
fn possible() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed there are fewer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS.min(usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES))
}

#[test]
fn half_open_connections_disturb_nobody() {
    let cluster = start(3, 1);
    cluster.create(&service("web", 1));
    let leader =
        |view: &Value| view["Managers"].as_array().and_then(|all| all.iter().find(|m| m["Role"] == "leader").cloned());
    let before = cluster.manager().get("/swarmd/managers");
    let leads = leader(&before).expect("a leader")["ID"].clone();
    let target = &cluster.nodes.iter().find(|node| node.id() == leads).expect("it is one of ours").addr();
    let count = possible();
    let done = AtomicBool::new(false);
    let (open, longest_ms) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut longest = 0;
            let mut replicas = 1;
            while !done.load(Ordering::Relaxed) {
                replicas = replicas % 5 + 1;
                let begin = Instant::now();
                match scale(&cluster.nodes[1], "web", replicas) {
                    Written::Yes => {}
                    other => panic!("a write fails: {other:?}"),
                }
                longest = longest.max(begin.elapsed().as_millis());
            }
            longest
        });
        let open: Vec<_> = (0..count).filter_map(|_| TcpStream::connect(target).ok()).collect();
        // While all of them stand, a node comes in and goes.
        let mut newcomer = cluster.new_daemon();
        let request = cluster.join_request(&cluster.token("Worker"));
        until("a node joins", || newcomer.call("POST", "/swarm/join", Some(&request)).map(drop));
        newcomer.kill();
        done.store(true, Ordering::Relaxed);
        (open, writer.join().expect("the writer"))
    });
    assert!(open.len() >= count * 9 / 10, "{} of {count} connections were made", open.len());
    let after = cluster.manager().get("/swarmd/managers");
    assert_eq!(leader(&after).expect("a leader")["ID"], leads);
    assert_eq!(after["Term"], before["Term"], "nobody stood for election");
    cluster.wait_ready();
    let attacked = cluster.nodes.iter().find(|node| node.id() == leads).expect("it is one of ours");
    let refusals = attacked.log().lines().filter(|line| line.contains("connection refused")).count();
    assert!((1..100).contains(&refusals), "{refusals} lines in the log");
    eprintln!("{count} half-open connections: longest write {longest_ms} ms, {refusals} lines in the log");
}
