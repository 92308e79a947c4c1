//! Several managers: the loss of leaders under writers, promotion, demotion, leaving, handing over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Task, service},
    daemon::Daemon,
    wait::{Rng, pass, until},
};

/// Leaders killed.
const KILLS: u64 = 5;
/// Clients that write at once.
const CLIENTS: u64 = 3;
/// Longest time from the start of the writing to a kill.
const KILL_MS_MAX: u64 = 400;
/// Pause of a client between two writes, so that a fast machine does not pile up services.
const WRITE_PAUSE: Duration = Duration::from_millis(20);

/// A cluster with so many managers, which come first, and workers.
pub fn start(managers: usize, workers: usize) -> Cluster {
    let mut cluster = Cluster::start("simulated", 1);
    for (count, role) in [(managers - 1, "Manager"), (workers, "Worker")] {
        for _ in 0..count {
            let daemon = cluster.new_daemon();
            let request = cluster.join_request(&cluster.token(role));
            daemon.call("POST", "/swarm/join", Some(&request)).expect("join");
            cluster.nodes.push(daemon);
        }
    }
    cluster.wait_ready();
    cluster
}

/// Host name and `ManagerStatus` of the managers, as this one says.
fn managers(at: &Daemon) -> Result<BTreeMap<String, Value>, String> {
    let nodes = at.call("GET", "/nodes", None)?;
    let managers = nodes.as_array().into_iter().flatten().filter(|node| node["ManagerStatus"].is_object());
    let name = |node: &Value| node["Description"]["Hostname"].as_str().unwrap_or_default().to_owned();
    Ok(managers.map(|node| (name(node), node["ManagerStatus"].clone())).collect())
}

/// Name of the leader once all of these are managers that answer and vote, by the word of each of them.
pub fn wait_managers(cluster: &Cluster, names: &[&str]) -> String {
    let expected: BTreeSet<&str> = names.iter().copied().collect();
    until(&format!("the managers are {names:?}"), || {
        let mut leaders = BTreeSet::new();
        for daemon in cluster.nodes.iter().filter(|daemon| expected.contains(daemon.name.as_str())) {
            let found = managers(daemon)?;
            if found.keys().map(String::as_str).collect::<BTreeSet<_>>() != expected {
                return Err(format!("{}: {found:?}", daemon.name));
            }
            if found.values().any(|status| status["Reachability"] != "reachable") {
                return Err(format!("{}: {found:?}", daemon.name));
            }
            let status = daemon.call("GET", "/swarmd/managers", None)?;
            let roles: Vec<_> = status["Managers"].as_array().into_iter().flatten().map(|m| &m["Role"]).collect();
            if roles.len() != names.len()
                || roles.iter().any(|role| !["leader", "voter"].map(Value::from).contains(role))
            {
                return Err(format!("{}: {status}", daemon.name));
            }
            leaders.extend(found.into_iter().filter(|(_, status)| status["Leader"] == true).map(|(name, _)| name));
        }
        match leaders.len() {
            1 => leaders.pop_first().ok_or_else(String::new),
            _ => Err(format!("leaders: {leaders:?}")),
        }
    })
}

pub fn index(cluster: &Cluster, name: &str) -> usize {
    cluster.nodes.iter().position(|daemon| daemon.name == name).expect("a node of the cluster")
}

/// What a write came to.
pub enum Written {
    Yes,
    Unknown,
    /// It has not happened.
    No,
}

pub fn create(at: &Daemon, name: &str) -> Written {
    match at.send("POST", "/services/create", Some(&service(name, 0))) {
        Ok(answer) if answer.is_ok() => Written::Yes,
        Ok(answer) if answer.status == 503 => Written::No,
        Ok(answer) if answer.message().contains("it is not known") => Written::Unknown,
        Ok(answer) => panic!("{name}: {} {}", answer.status, answer.message()),
        // The manager itself was killed.
        Err(_) => Written::Unknown,
    }
}

/// Names that were acknowledged, and names that may be there.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeSet<String>,
    unknown: BTreeSet<String>,
    /// When each acknowledgement came.
    times: Vec<Instant>,
}

pub fn names(cluster: &Cluster, at: usize) -> Result<BTreeSet<String>, String> {
    let list = cluster.nodes[at].call("GET", "/services", None)?;
    let name = |service: &Value| service["Spec"]["Name"].as_str().unwrap_or_default().to_owned();
    Ok(list.as_array().ok_or("no list")?.iter().map(name).collect())
}

fn running(cluster: &Cluster, at: usize) -> Result<BTreeSet<(String, String)>, String> {
    let tasks = cluster.nodes[at].call("GET", "/tasks", None)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let runs = |t: &&Value| t["Status"]["State"] == "running" && t["DesiredState"] == "running";
    let tasks = tasks.as_array().ok_or("no list")?.iter().filter(runs);
    Ok(tasks.map(|t| (text(&t["ID"]), text(&t["Status"]["ContainerStatus"]["ContainerID"]))).collect())
}

#[test]
fn leaders_are_killed_and_nothing_acknowledged_is_lost() {
    let mut cluster = start(3, 1);
    let all: Vec<String> = cluster.nodes[..3].iter().map(|daemon| daemon.name.clone()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut leader = wait_managers(&cluster, &all);
    // Tasks on the worker alone: it is never killed, so that whoever stops one is at fault.
    let mut spec = service("web", 6);
    spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role == worker"] });
    cluster.create(&spec);
    let web = cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 6)]));
    let web: BTreeSet<(String, String)> = web.into_iter().map(|Task { id, container, .. }| (id, container)).collect();

    let ledger = Mutex::new(Ledger::default());
    let mut gaps_ms = Vec::new();
    let mut rng = Rng::new(700);
    for round in 0..KILLS {
        let victim = index(&cluster, &leader);
        let over = AtomicBool::new(false);
        let killed = thread::scope(|scope| {
            for client in 0..CLIENTS {
                // Every manager is written to; who writes to the victim goes on with another one.
                let mut at = (victim + client as usize) % 3;
                let (cluster, ledger, over) = (&cluster, &ledger, &over);
                scope.spawn(move || {
                    for number in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let name = format!("r{round}-c{client}-{number}");
                        let written = create(&cluster.nodes[at], &name);
                        let mut ledger = ledger.lock().unwrap();
                        match written {
                            Written::Yes => {
                                ledger.times.push(Instant::now());
                                ledger.acknowledged.insert(name);
                            }
                            Written::Unknown => {
                                ledger.unknown.insert(name);
                                at = (at + 1) % 3;
                            }
                            Written::No => at = (at + 1) % 3,
                        }
                        drop(ledger);
                        pass(WRITE_PAUSE);
                    }
                });
            }
            pass(Duration::from_millis(100) + rng.time_below(KILL_MS_MAX));
            cluster.nodes[victim].signal(rustix::process::Signal::KILL);
            let killed = Instant::now();
            until("a write is acknowledged after the kill", || {
                // One that was under way may still arrive.
                let after = killed + Duration::from_millis(100);
                let ledger = ledger.lock().unwrap();
                if ledger.times.iter().any(|at| *at > after) { Ok(()) } else { Err("none".to_owned()) }
            });
            over.store(true, Ordering::Relaxed);
            killed
        });
        let after = killed + Duration::from_millis(100);
        let next = ledger.lock().unwrap().times.iter().filter(|at| **at > after).min().copied();
        gaps_ms.push(next.expect("there is one").duration_since(killed).as_millis());
        cluster.nodes[victim].kill();
        cluster.nodes[victim].start();
        leader = wait_managers(&cluster, &all);
    }
    gaps_ms.sort_unstable();
    eprintln!("from a kill of the leader to the next acknowledged write, in ms: {gaps_ms:?}");

    let ledger = ledger.into_inner().unwrap();
    assert!(ledger.acknowledged.len() as u64 > KILLS, "too few writes: {}", ledger.acknowledged.len());
    for at in 0..3 {
        let there = names(&cluster, at).expect("a list");
        let lost: Vec<_> = ledger.acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "{} acknowledged writes are not at {}: {lost:?}", lost.len(), cluster.nodes[at].name);
        let unasked = there
            .iter()
            .filter(|n| *n != "web" && !ledger.acknowledged.contains(*n) && !ledger.unknown.contains(*n))
            .collect::<Vec<_>>();
        assert!(unasked.is_empty(), "nobody asked for {unasked:?}");
        until("the tasks are those from the start", || match running(&cluster, at)? {
            now if now == web => Ok(()),
            now => Err(format!("{now:?}, not {web:?}")),
        });
    }
}

/// Sets the role of a node, by way of a manager.
pub fn set_role(cluster: &Cluster, at: usize, name: &str, role: &str) {
    set_role_of(cluster, at, &cluster.nodes[index(cluster, name)].id(), role);
}

/// The same for a node that may be down.
fn set_role_of(cluster: &Cluster, at: usize, id: &str, role: &str) {
    until(&format!("{id} is to be a {role}"), || {
        let mut node = cluster.nodes[at].call("GET", &format!("/nodes/{id}"), None)?;
        node["Spec"]["Role"] = json!(role);
        let target = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
        cluster.nodes[at].call("POST", &target, Some(&node["Spec"])).map(drop)
    });
}

#[test]
fn managers_come_and_go_and_tasks_stay() {
    let mut cluster = start(1, 2);
    let names = all_names(&cluster);
    let (a, b, c) = (names[0].as_str(), names[1].as_str(), names[2].as_str());
    cluster.create(&service("web", 6));
    let web = BTreeMap::from([("web".to_owned(), 6)]);
    let tasks = cluster.wait_settled(&web);

    for name in [b, c] {
        set_role(&cluster, 0, name, "manager");
    }
    assert_eq!(wait_managers(&cluster, &[a, b, c]), a);
    assert_eq!(cluster.nodes[2].swarm_info()["ControlAvailable"], true);
    // Any manager answers, also what only the leader knows.
    for daemon in &cluster.nodes {
        let logs = daemon.send("GET", "/services/web/logs?stdout=1", None).expect("an answer");
        assert!(logs.is_ok(), "{}: {}", daemon.name, logs.message());
        assert!(daemon.refused(404, "GET", "/services/none/logs?stdout=1", None).contains("none not found"));
        until("there is nothing to worry about", || match daemon.get("/swarmd/managers") {
            status if status["Warnings"] == json!([]) => Ok(()),
            status => Err(status.to_string()),
        });
    }
    cluster.nodes[1].call("POST", &format!("/swarmd/transfer?node={b}"), None).expect("handed over");
    assert_eq!(wait_managers(&cluster, &[a, b, c]), b);
    cluster.nodes[2].call("POST", &format!("/swarmd/transfer?node={a}"), None).expect("handed over");
    assert_eq!(wait_managers(&cluster, &[a, b, c]), a);

    // By way of a follower; the leader steps down before it goes.
    set_role(&cluster, 1, a, "worker");
    let leader = wait_managers(&cluster, &[b, c]);
    until("the old leader is a worker", || match cluster.nodes[0].swarm_info() {
        info if info["ControlAvailable"] == false && info["LocalNodeState"] == "active" => Ok(()),
        info => Err(info.to_string()),
    });
    assert!(cluster.nodes[0].refused(503, "GET", "/nodes", None).contains("not a swarm manager"));
    // A manager again, with another log.
    set_role(&cluster, 2, a, "manager");
    wait_managers(&cluster, &[a, b, c]);

    // A restart of all of them.
    for at in 0..3 {
        assert!(cluster.nodes[at].stop().success());
    }
    for at in 0..3 {
        cluster.nodes[at].start();
    }
    wait_managers(&cluster, &[a, b, c]);
    let now = cluster.wait_settled(&web);
    assert_eq!(now.len(), tasks.len());

    // Two of three leave without force, the last does not.
    for name in [leader.as_str(), if leader == b { c } else { b }] {
        let at = index(&cluster, name);
        cluster.nodes[at].call("POST", "/swarm/leave", None).expect("a manager that is not needed may leave");
        assert_eq!(cluster.nodes[at].swarm_info()["LocalNodeState"], "inactive");
    }
    assert_eq!(wait_managers(&cluster, &[a]), a);
    let refused = cluster.nodes[0].refused(503, "POST", "/swarm/leave", None);
    assert!(refused.contains("last manager") && refused.contains("--force"), "{refused}");
    until("all tasks run on the one that is left", || {
        let tasks = cluster.tasks()?;
        let here = tasks.iter().filter(|t| t.runs() && t.node == cluster.nodes[0].id()).count();
        if here == 6 { Ok(()) } else { Err(format!("{here}")) }
    });
}

fn all_names(cluster: &Cluster) -> Vec<String> {
    cluster.nodes.iter().map(|daemon| daemon.name.clone()).collect()
}

/// Three managers, of which one was killed and is demoted since then: the cluster, the index of the leader, the index of the
/// manager that is down, and its id.
fn start_with_one_demoted_while_down() -> (Cluster, usize, usize, String) {
    let mut cluster = start(3, 0);
    let names = all_names(&cluster);
    let at = index(&cluster, &wait_managers(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    let down = (at + 1) % 3;
    let id = cluster.nodes[down].id();
    cluster.nodes[down].kill();
    set_role_of(&cluster, at, &id, "worker");
    (cluster, at, down, id)
}

#[test]
fn a_manager_that_was_demoted_and_promoted_while_it_was_down_comes_back() {
    let (mut cluster, at, down, id) = start_with_one_demoted_while_down();
    until("it is out of Raft", || match cluster.nodes[at].call("GET", &format!("/nodes/{id}"), None)? {
        node if node["ManagerStatus"].is_null() => Ok(()),
        node => Err(node.to_string()),
    });
    set_role_of(&cluster, at, &id, "manager");
    cluster.nodes[down].start();
    let names = all_names(&cluster);
    wait_managers(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_manager_that_was_removed_while_it_was_down_leaves_without_force() {
    let (mut cluster, at, down, id) = start_with_one_demoted_while_down();
    until("it is removed", || cluster.nodes[at].call("DELETE", &format!("/nodes/{id}?force=1"), None).map(drop));
    cluster.nodes[down].start();
    until("it hears that it was removed", || match &cluster.nodes[down].get("/info")["Swarm"] {
        swarm if swarm["Error"].as_str().is_some_and(|error| error.contains("was removed")) => Ok(()),
        swarm => Err(swarm.to_string()),
    });
    cluster.nodes[down].call("POST", "/swarm/leave", None).expect("nothing has to be forced");
    assert_eq!(cluster.nodes[down].get("/info")["Swarm"]["LocalNodeState"], "inactive");
}

#[test]
fn a_majority_is_not_given_away() {
    let mut cluster = start(3, 0);
    let names = all_names(&cluster);
    let leader = wait_managers(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let at = index(&cluster, &leader);
    let (down, other) = ((at + 1) % 3, (at + 2) % 3);
    cluster.nodes[down].kill();
    until("it shows as unreachable", || match managers(&cluster.nodes[other])?.get(&names[down]) {
        Some(status) if status["Reachability"] == "unreachable" => Ok(()),
        status => Err(format!("{status:?}")),
    });
    let message = cluster.nodes[other].refused(503, "POST", "/swarm/leave", None);
    assert!(message.contains("loses the majority") && message.contains(&cluster.nodes[down].addr()), "{message}");
    let id = cluster.nodes[other].id();
    let mut node = cluster.nodes[at].get(&format!("/nodes/{id}"));
    node["Spec"]["Role"] = json!("worker");
    let target = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
    let message = cluster.nodes[at].refused(400, "POST", &target, Some(&node["Spec"]));
    assert!(message.contains("lose the majority"), "{message}");
}

#[test]
fn one_manager_goes_on_when_the_others_are_lost() {
    let mut cluster = start(3, 1);
    let names = all_names(&cluster);
    wait_managers(&cluster, &names[..3].iter().map(String::as_str).collect::<Vec<_>>());
    let mut spec = service("web", 4);
    spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role == worker"] });
    cluster.create(&spec);
    let web = cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 4)]));
    let web: BTreeSet<(String, String)> = web.into_iter().map(|Task { id, container, .. }| (id, container)).collect();
    let forced = json!({ "ForceNewCluster": true });
    let refused = cluster.nodes[0].refused(503, "POST", "/swarm/init", Some(&forced));
    assert!(refused.contains("nothing has to be forced"), "{refused}");

    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let id = cluster.nodes[0].id();
    let answer = cluster.nodes[0].call("POST", "/swarm/init", Some(&forced)).expect("it goes on alone");
    assert_eq!(answer, json!(id));
    assert_eq!(wait_managers(&cluster, &[&names[0]]), names[0]);
    let states = cluster.states().expect("states");
    assert_eq!(states.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&names[0], &names[3]]));
    cluster.wait_state(&cluster.nodes[3], "ready");
    until("the tasks are those from before", || match running(&cluster, 0)? {
        now if now == web => Ok(()),
        now => Err(format!("{now:?}, not {web:?}")),
    });
    // Those that come back as they were are two of three, but one that has heard of it votes no more, after a restart
    // either; so they cannot go on as the swarm that was.
    let is_removed = |daemon: &Daemon| {
        until("it hears that it was removed", || match daemon.get("/info")["Swarm"]["LocalNodeState"].as_str() {
            Some("error") => Ok(()),
            other => Err(format!("{} is {other:?}", daemon.name)),
        });
        let refused = daemon.refused(503, "POST", "/swarm/init", Some(&forced));
        assert!(refused.contains("was removed"), "{refused}");
    };
    cluster.nodes[1].start();
    is_removed(&cluster.nodes[1]);
    cluster.nodes[1].kill();
    cluster.nodes[0].kill();
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    let refused = cluster.nodes[2].refused(503, "POST", "/services/create", Some(&service("second", 1)));
    assert!(refused.contains("do not answer"), "{refused}");
    cluster.nodes[0].start();
    is_removed(&cluster.nodes[2]);
    is_removed(&cluster.nodes[1]);
    // It can grow again, also by the machines that were lost, once they have left. Nothing has to be forced.
    cluster.nodes[1].call("POST", "/swarm/leave", None).expect("it forgets the swarm");
    let request = cluster.join_request(&cluster.token("Manager"));
    cluster.nodes[1].call("POST", "/swarm/join", Some(&request)).expect("it joins as a new node");
    wait_managers(&cluster, &[&names[0], &names[1]]);
}
