//! Clocks that are wrong for a while: a manager without a real-time clock before its first synchronisation, and a swarm
//! that was off for long. The clocks are those of libfaketime.

use std::collections::BTreeMap;

use swarm_wire::{NodeIdentity, clock};

use crate::{
    cluster::{Cluster, Written, service},
    daemon::Daemon,
    managers,
    wait::until,
};

/// As long as certificates are valid, and more.
const YEAR: &str = "365d";

/// A swarm of one manager and one worker that begins at another time, with a service on both; none where there is no
/// libfaketime.
fn begun(clock: &str) -> Option<Cluster> {
    let cluster = Cluster::start_at("simulated", 2, Some(clock))?;
    cluster.create(&service("web", 4));
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 4)]));
    Some(cluster)
}

/// Stops all daemons and starts them with another clock.
fn restart(cluster: &mut Cluster, clock: Option<&str>) {
    for daemon in &mut cluster.nodes {
        assert!(daemon.stop().success());
        daemon.clock = clock.map(str::to_owned);
    }
    cluster.nodes.iter_mut().for_each(Daemon::start);
}

/// Whether the node's certificate is valid by the right clock.
fn wait_valid(daemon: &Daemon) {
    until(&format!("the certificate of {} is valid", daemon.name), || {
        let folder = daemon.state_dir().join("certificates");
        let peer = NodeIdentity::peek(&folder).map_err(|e| e.to_string())?.ok_or("it has none")?;
        let now = clock::now();
        if peer.cert_valid_from < now && now < peer.cert_expires_at { Ok(()) } else { Err(format!("{peer:?}")) }
    });
}

/// The swarm works: all nodes are there, and what is asked of them happens.
fn wait_works(cluster: &Cluster, replicas: u64) {
    cluster.wait_ready();
    until("the service is scaled", || match cluster.scale("web", replicas) {
        Written::Yes => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), replicas)]));
}

fn warnings(daemon: &Daemon) -> String {
    daemon.get("/swarmd/managers")["Warnings"].to_string()
}

#[test]
fn a_first_start_with_a_clock_that_is_a_year_ahead_costs_nothing_later() {
    let Some(mut cluster) = begun(&format!("+{YEAR}")) else { return };
    restart(&mut cluster, None);
    cluster.nodes.iter().for_each(wait_valid);
    wait_works(&cluster, 6);
    assert!(cluster.manager().log().contains("certificate is not valid yet"), "{}", cluster.manager().log_tail());
    assert!(cluster.manager().log().contains("clock is behind the newest entry of the log"));
    assert!(
        warnings(cluster.manager()).contains("the newest entry of the log is from"),
        "{}",
        warnings(cluster.manager())
    );
    // Who joins now finds its way as well, and so does who starts again.
    let newcomer = cluster.new_daemon();
    newcomer.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("it joins");
    cluster.nodes.push(newcomer);
    cluster.nodes.iter().for_each(wait_valid);
    restart(&mut cluster, None);
    wait_works(&cluster, 9);
}

#[test]
fn a_manager_that_starts_once_with_a_clock_that_is_a_year_off_loses_nothing() {
    for off in ["+", "-"] {
        let Some(mut cluster) = Cluster::start_at("simulated", 1, None) else { return };
        cluster.create(&service("web", 2));
        cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 2)]));
        restart(&mut cluster, Some(&format!("{off}{YEAR}")));
        wait_works(&cluster, 3);
        if off == "-" {
            assert!(cluster.manager().log().contains("clock is behind the newest entry of the log"));
            let warnings = warnings(cluster.manager());
            assert!(warnings.contains("the newest entry of the log is from"), "{warnings}");
        }
        restart(&mut cluster, None);
        wait_valid(cluster.manager());
        wait_works(&cluster, 4);
        let worker = cluster.new_daemon();
        worker.call("POST", "/swarm/join", Some(&cluster.join_request(&cluster.token("Worker")))).expect("it joins");
        cluster.nodes.push(worker);
        wait_works(&cluster, 6);
    }
}

#[test]
fn a_manager_whose_clock_is_a_year_behind_takes_part_and_is_named() {
    if Cluster::start_at("simulated", 1, None).is_none() {
        return;
    }
    let mut cluster = managers::start(3, 0);
    let late = &mut cluster.nodes[2];
    assert!(late.stop().success());
    late.clock = Some(format!("-{YEAR}"));
    late.start();
    let addr = late.addr();
    cluster.create(&service("web", 3));
    let names: Vec<&str> = cluster.nodes.iter().map(|daemon| &*daemon.name).collect();
    managers::wait_managers(&cluster, &names);
    cluster.wait_ready();
    until("it is named with both times", || {
        let named = warnings(cluster.manager());
        let expected = format!("the clock of the manager at {addr} says 20");
        if named.contains(&expected) && named.contains("and this manager's says 20") { Ok(()) } else { Err(named) }
    });
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 3)]));
}

#[test]
fn a_swarm_that_was_off_goes_on() {
    // For less than a certificate's life, and for more: then a worker, which nobody knows any more, says what to do.
    for (days, worker_is_back) in [(60, true), (200, false)] {
        let Some(mut cluster) = begun(&format!("-{days}d")) else { return };
        restart(&mut cluster, None);
        wait_valid(cluster.manager());
        if worker_is_back {
            wait_works(&cluster, 6);
            continue;
        }
        cluster.wait_state(&cluster.nodes[0], "ready");
        until("the worker says what to do", || {
            let error = cluster.nodes[1].swarm_info()["Error"].clone();
            let says = |part| error.as_str().is_some_and(|text| text.contains(part));
            if says("has expired") && says("swarm join") { Ok(()) } else { Err(error.to_string()) }
        });
        let lost = cluster.nodes[1].id();
        cluster.nodes[1].call("POST", "/swarm/leave?force=1", None).expect("it leaves");
        cluster.manager().call("DELETE", &format!("/nodes/{lost}?force=1"), None).expect("it is removed");
        let request = cluster.join_request(&cluster.token("Worker"));
        cluster.nodes[1].call("POST", "/swarm/join", Some(&request)).expect("it joins");
        wait_works(&cluster, 6);
    }
}
