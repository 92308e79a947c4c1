//! A daemon that stands still for a while, as on a machine that was suspended: `kill -STOP`, later `kill -CONT`.
//! Time is the subject here, so these tests let it pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    cluster::{Cluster, service},
    wait::pass,
};

/// How long it stands still: more than the three heartbeats, 6 s, after which a lost node is down.
const STILL: Duration = Duration::from_secs(10);
/// How long the cluster is watched afterwards: longer than a node needs to be found down.
const WATCHED: Duration = Duration::from_secs(8);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Stops a daemon for a while; no node may count as down meanwhile or later, and no task may be touched.
fn suspend(stopped: usize) {
    let cluster = Cluster::start("simulated", 3);
    cluster.create(&service("web", 6));
    let before: BTreeSet<_> =
        cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 6)])).into_iter().map(|t| t.id).collect();
    let daemon = &cluster.nodes[stopped];
    daemon.signal(Signal::STOP);
    let look = || {
        let states = cluster.states().expect("the manager answers");
        assert!(states.values().all(|state| state == "ready"), "{states:?}");
    };
    let began = Instant::now();
    while began.elapsed() < STILL {
        // A manager that stands still cannot be asked.
        if stopped != 0 {
            look();
        }
        pass(LOOK);
    }
    daemon.signal(Signal::CONT);
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        look();
        pass(LOOK);
    }
    let after = cluster.tasks().expect("the tasks");
    assert!(after.iter().all(|task| task.runs()), "{after:?}");
    assert_eq!(after.into_iter().map(|t| t.id).collect::<BTreeSet<_>>(), before);
    assert!(!cluster.manager().log().contains("node is down"), "a node was down for a moment");
    // All nodes still take orders.
    cluster.scale_surely("web", 12);
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 12)]));
}

#[test]
fn no_node_is_down_because_the_manager_stood_still() {
    suspend(0);
}

#[test]
fn a_worker_that_stood_still_is_not_down() {
    suspend(1);
}
