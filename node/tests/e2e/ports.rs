//! Published ports: every node answers, and no request is lost while tasks and daemons come and go.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, service},
    daemon::Daemon,
    engine::{CleanUp, Engine},
    http,
    load::Load,
    wait::until,
};

const PORT: u16 = 19_080;
/// Requests that are answered after each change before the next one.
const REQUESTS_BETWEEN: usize = 500;
const CLIENTS: usize = 20;
/// Rounds of changes under load.
const ROUNDS: usize = 3;

/// A service whose containers stop at SIGTERM, with a published port.
fn published(name: &str, replicas: u64, port: u16) -> Value {
    let mut spec = service(name, replicas);
    spec["EndpointSpec"] = json!({ "Ports": [{ "TargetPort": 8080, "PublishedPort": port }] });
    // As long as connections of clients that keep them hold up the stop of a task.
    spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(1_000_000_000);
    spec["UpdateConfig"] = json!({ "Parallelism": 1, "Monitor": 100_000_000 });
    spec
}

fn addresses(cluster: &Cluster, port: u16) -> Vec<SocketAddr> {
    cluster.nodes.iter().map(|node| SocketAddr::from((node.ip, port))).collect()
}

/// The answer of a port.
fn ask(address: SocketAddr) -> Result<String, String> {
    let answer = http::get(address).map_err(|error| format!("{address}: {error}"))?;
    if answer.is_ok() { Ok(answer.message()) } else { Err(format!("{address}: {}", answer.status)) }
}

fn wait_answers(cluster: &Cluster, port: u16) {
    for address in addresses(cluster, port) {
        until(&format!("{address} answers"), || ask(address));
    }
}

fn wait_update(cluster: &Cluster, name: &str) {
    until("the update is complete", || match cluster.service(name)? {
        service if service["UpdateStatus"]["State"] == "completed" => Ok(()),
        service => Err(service["UpdateStatus"].to_string()),
    });
}

fn settle(cluster: &Cluster, count: u64) {
    cluster.wait_settled(&[("web".to_owned(), count)].into());
}

/// Lets clients go on for a while.
fn load_goes_on(load: &Load) {
    let before = load.answered();
    until("requests are answered", || match load.answered() - before {
        more if more >= REQUESTS_BETWEEN => Ok(()),
        more => Err(format!("{more} answers")),
    });
}

#[test]
fn every_node_answers_and_no_request_is_lost() {
    let Some(engine) = Engine::of_this_machine() else { return };
    let mut clean_up = CleanUp::new(&engine);
    let mut cluster = Cluster::start(&engine.address(), 3);
    clean_up.note(&cluster);
    cluster.set_availability(&cluster.nodes[2], "pause");
    cluster.create(&published("web", 4, PORT));
    settle(&cluster, 4);
    // Also the node that is paused, and has no task.
    wait_answers(&cluster, PORT);
    cluster.set_availability(&cluster.nodes[2], "active");

    let load = Load::start(CLIENTS, &addresses(&cluster, PORT));
    for round in 0..ROUNDS {
        change(&mut cluster, &load, round);
    }
    let (answered, failed) = (load.answered(), load.end());
    assert!(
        failed.is_empty(),
        "{} of {answered} requests failed: {:#?}",
        failed.len(),
        &failed[..failed.len().min(20)]
    );

    // A data plane that is killed listens again.
    let pids = data_planes(&cluster.nodes[1]);
    assert_eq!(pids.len(), 1, "{pids:?}");
    rustix::process::kill_process(pids[0], rustix::process::Signal::KILL).expect("it runs");
    wait_answers(&cluster, PORT);
    assert!(data_planes(&cluster.nodes[1]).iter().all(|pid| !pids.contains(pid)), "it is another one");

    cluster.manager().call("DELETE", "/services/web", None).expect("it is removed");
    for address in addresses(&cluster, PORT) {
        until(&format!("{address} is closed"), || match ask(address) {
            Err(error) if error.contains("refused") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Updates, moves, scales, and kills, while clients ask.
fn change(cluster: &mut Cluster, load: &Load, round: usize) {
    let image = if round.is_multiple_of(2) { "hello:2" } else { "hello:1" };
    let order = if round == 1 { "start-first" } else { "stop-first" };
    cluster.update("web", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
        spec["UpdateConfig"]["Order"] = json!(order);
    });
    wait_update(cluster, "web");
    load_goes_on(load);
    cluster.set_availability(&cluster.nodes[1], "drain");
    settle(cluster, 4);
    load_goes_on(load);
    cluster.set_availability(&cluster.nodes[1], "active");
    cluster.scale_surely("web", 8);
    settle(cluster, 8);
    cluster.scale_surely("web", 4);
    settle(cluster, 4);
    load_goes_on(load);
    // The daemons go; their data planes stay.
    let victim = round % cluster.nodes.len();
    let before = data_planes(&cluster.nodes[victim]);
    cluster.nodes[victim].kill();
    load_goes_on(load);
    cluster.nodes[victim].start();
    cluster.wait_ready();
    assert_eq!(data_planes(&cluster.nodes[victim]), before, "the daemon took up its data plane");
    load_goes_on(load);
}

/// The process ids of the data planes of a node.
fn data_planes(node: &Daemon) -> Vec<rustix::process::Pid> {
    let socket = node.state_dir().join("data/socket");
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_of_node = |id: &i32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|part| part == socket.to_string_lossy())
    };
    ids.filter(is_of_node).filter_map(rustix::process::Pid::from_raw).collect()
}

#[test]
fn ports_that_are_left_open_are_chosen_and_a_taken_one_is_refused_by_name() {
    let cluster = Cluster::start("simulated", 1);
    let mut chosen = BTreeSet::new();
    for name in ["one", "two"] {
        cluster.create(&published(name, 0, 0));
        let service = cluster.service(name).expect("it is there");
        assert_eq!(service["Spec"]["EndpointSpec"]["Ports"][0].get("PublishedPort"), None, "the spec stays as it is");
        chosen.insert(service["Endpoint"]["Ports"][0]["PublishedPort"].as_u64().expect("a number"));
    }
    assert_eq!(chosen, [30_000, 30_001].into());
    let taken = published("three", 1, 30_000);
    let message = cluster.manager().refused(400, "POST", "/services/create", Some(&taken));
    assert!(message.contains("port '30000' is already in use by service 'one'"), "{message}");
}
