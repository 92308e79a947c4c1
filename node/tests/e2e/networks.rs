//! Networks: tasks of several nodes reach each other by name.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, service},
    engine::{CleanUp, Engine, networks_alone},
    wait::until,
};

/// Containers that connect to a name.
const STARTS: u64 = 12;

fn create_network(cluster: &Cluster, name: &str, subnet: &str) -> String {
    let body = json!({
        "Name": name, "Driver": "overlay", "IPAM": { "Config": [{ "Subnet": subnet }] },
    });
    let made = cluster.manager().call("POST", "/networks/create", Some(&body)).expect("a network");
    made["Id"].as_str().expect("an id").to_owned()
}

fn in_network(mut spec: Value, network: &str) -> Value {
    spec["TaskTemplate"]["Networks"] = json!([{ "Target": network }]);
    spec
}

/// A job whose tasks ask a service, from their first instruction on. On a busy machine the names of a container may come later
/// than that: a task asks again for a while, and one that fails is tried again, so often.
fn asks(name: &str, network: &str, place: &str, tasks: u64, retries: u64) -> Value {
    let mut spec = in_network(service(name, 0), network);
    spec["TaskTemplate"]["ContainerSpec"]["Args"] = json!(["ask", place]);
    let condition = if retries == 0 { "none" } else { "on-failure" };
    spec["TaskTemplate"]["RestartPolicy"] =
        json!({ "Condition": condition, "MaxAttempts": retries, "Delay": 100_000_000 });
    spec["Mode"] = json!({ "ReplicatedJob": { "MaxConcurrent": 4, "TotalCompletions": tasks } });
    spec
}

/// The states of a service's tasks, and the errors.
fn ends(cluster: &Cluster, name: &str) -> Result<Vec<(String, String)>, String> {
    let tasks = cluster.tasks_with(&json!({ "service": [name] }))?;
    let ended = |state: &str| ["complete", "failed", "rejected", "shutdown"].contains(&state);
    match tasks.iter().find(|task| !ended(&task.state)) {
        None => Ok(tasks.into_iter().map(|task| (task.state, task.err)).collect()),
        Some(task) => Err(format!("a task is {}: {}", task.state, task.err)),
    }
}

fn wait_all(cluster: &Cluster, name: &str, count: u64, state: &str) {
    until(&format!("the tasks of {name} have ended"), || {
        let ends = ends(cluster, name)?;
        match ends.iter().filter(|(ended, _)| ended == state).count() as u64 {
            found if found == count => Ok(()),
            _ => Err(format!("{ends:?}")),
        }
    });
}

#[test]
fn tasks_in_a_network_reach_each_other_by_name() {
    let Some(engine) = Engine::of_this_machine() else { return };
    let _alone = networks_alone();
    let mut clean_up = CleanUp::new(&engine);
    let cluster = Cluster::start(&engine.address(), 3);
    clean_up.note(&cluster);
    let (front, back) = (create_network(&cluster, "front", "10.211.1.0/24"), "10.211.2.0/24");
    let back = create_network(&cluster, "back", back);
    let mut web = in_network(service("web", 3), "front");
    web["TaskTemplate"]["Networks"][0]["Aliases"] = json!(["www"]);
    cluster.create(&web);
    cluster.wait_settled(&[("web".to_owned(), 3)].into());
    let shown = cluster.service("web").expect("it is there");
    assert_eq!(shown["Endpoint"]["VirtualIPs"], json!([{ "NetworkID": front, "Addr": "10.211.1.2/24" }]));

    // By its name and by another one, and by the names of its tasks.
    for (job, place) in
        [("name", "web:8080"), ("alias", "www:8080"), ("tasks", "tasks.web:8080"), ("task", "web.2:8080")]
    {
        let count = if job == "name" { STARTS } else { 2 };
        cluster.create(&asks(job, &front, place, count, 3));
        wait_all(&cluster, job, count, "complete");
    }
    // Another network has neither the name nor a way there.
    cluster.create(&asks("stranger", &back, "web:8080", 1, 0));
    wait_all(&cluster, "stranger", 1, "failed");
    cluster.create(&asks("lost", &back, "10.211.1.2:8080", 1, 0));
    wait_all(&cluster, "lost", 1, "failed");

    // In use it stays; with the last service it goes, and takes the engine's part along.
    let message = cluster.manager().refused(400, "DELETE", "/networks/front", None);
    assert!(message.starts_with("network front is in use by services "), "{message}");
    for name in ["web", "name", "alias", "tasks", "task", "stranger", "lost"] {
        cluster.manager().call("DELETE", &format!("/services/{name}"), None).expect("it is removed");
    }
    for name in ["front", "back"] {
        cluster.manager().call("DELETE", &format!("/networks/{name}"), None).expect("it is removed");
    }
    until("the engine has no part of the networks", || match engine.networks() {
        left if left.iter().any(|id| *id == front || *id == back) => Err(format!("{left:?}")),
        _ => Ok(()),
    });
}

#[test]
fn an_encrypted_network_has_no_device_that_sends_in_clear_text() {
    let Some(engine) = Engine::of_this_machine().filter(|_| Path::new("/dev/net/tun").exists()) else { return };
    let _alone = networks_alone();
    let mut clean_up = CleanUp::new(&engine);
    let cluster = Cluster::start(&engine.address(), 2);
    clean_up.note(&cluster);
    // No other cluster of this machine has the number.
    let number = 9_000_000 + std::process::id() % 1_000_000;
    let options = json!({ "encrypted": "", "com.docker.network.driver.overlay.vxlanid_list": number.to_string() });
    let body = json!({
        "Name": "secret", "Driver": "overlay", "Options": options,
        "IPAM": { "Config": [{ "Subnet": "10.213.1.0/24" }] },
    });
    cluster.manager().call("POST", "/networks/create", Some(&body)).expect("a network");
    let shown = cluster.manager().call("GET", "/networks/secret", None).expect("it is there");
    assert_eq!(shown["Options"], options);
    cluster.create(&in_network(service("web", 2), "secret"));
    cluster.wait_settled(&[("web".to_owned(), 2)].into());
    cluster.create(&asks("client", "secret", "web:8080", 2, 3));
    wait_all(&cluster, "client", 2, "complete");
    let devices = || {
        let names = std::fs::read_dir("/sys/class/net").expect("the devices of this host");
        let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('v') && name.contains(&number.to_string())).collect::<Vec<_>>()
    };
    let found = devices();
    assert!(found.len() == 1 && found[0].starts_with("vt"), "{found:?}");
    for name in ["web", "client"] {
        cluster.manager().call("DELETE", &format!("/services/{name}"), None).expect("it is removed");
    }
    cluster.manager().call("DELETE", "/networks/secret", None).expect("it is removed");
    until("the device is gone", || match devices() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_network_without_a_free_address_is_why_a_task_waits() {
    let cluster = Cluster::start("simulated", 1);
    create_network(&cluster, "small", "10.212.1.0/29");
    // One address is that of the bridge, one that of the service.
    cluster.create(&in_network(service("web", 6), "small"));
    let waiting = until("two tasks wait for an address", || {
        let tasks = cluster.tasks()?;
        let waiting: Vec<_> = tasks.into_iter().filter(|task| task.state == "pending").collect();
        if waiting.len() == 2 { Ok(waiting) } else { Err(format!("{} tasks wait", waiting.len())) }
    });
    assert!(waiting[0].err.contains("network small has no free address in 10.212.1.0/29"), "{}", waiting[0].err);
    // With a task that ends, another one has its address.
    cluster.scale_surely("web", 4);
    cluster.wait_settled(&[("web".to_owned(), 4)].into());
}
