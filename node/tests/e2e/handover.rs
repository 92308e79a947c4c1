//! What is under way when leaders die: a rolling update, delays of restarts, and tasks that nobody may touch.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Task, service, time},
    managers::{index, start, wait_managers},
    wait::{pass, until},
};

/// Leaders killed.
const KILLS: u64 = 3;
/// From one place of the update to the next.
const UPDATE_DELAY_NS: i64 = 1_500_000_000;
/// From the failure of a task to the start of the next.
const RESTART_DELAY_NS: i64 = 2_000_000_000;
const REPLICAS: u64 = 6;

fn on_workers(mut spec: Value) -> Value {
    spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.role == worker"] });
    spec
}

/// Tasks of a service in the order of their creation.
fn tasks(cluster: &Cluster, name: &str) -> Vec<Task> {
    let mut tasks = cluster.tasks_with(&json!({ "service": [name] })).expect("tasks");
    tasks.sort_by_key(|task| task.created);
    tasks
}

#[test]
fn what_is_under_way_goes_on_with_the_next_leader() {
    let mut cluster = start(3, 2);
    let all: Vec<String> = cluster.nodes[..3].iter().map(|daemon| daemon.name.clone()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for name in ["rest", "web"] {
        cluster.create(&on_workers(service(name, REPLICAS)));
    }
    cluster.wait_settled(&BTreeMap::from([("rest".to_owned(), REPLICAS), ("web".to_owned(), REPLICAS)]));
    let rest = tasks(&cluster, "rest");
    let mut failing = on_workers(service("failing", 1));
    failing["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:broken");
    failing["TaskTemplate"]["RestartPolicy"]["Delay"] = json!(RESTART_DELAY_NS);
    cluster.create(&failing);
    cluster.update("web", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:2");
        spec["UpdateConfig"] = json!({ "Parallelism": 1, "Delay": UPDATE_DELAY_NS, "Monitor": 100_000_000 });
    });
    let started = |status: &Value| time(&status["StartedAt"]);
    let began = until("the update begins", || {
        let service = cluster.service("web")?;
        if service["UpdateStatus"]["StartedAt"].is_string() {
            Ok(started(&service["UpdateStatus"]))
        } else {
            Err(String::new())
        }
    });

    for _ in 0..KILLS {
        let victim = index(&cluster, &wait_managers(&cluster, &all));
        // Somewhere in the middle of a delay.
        pass(Duration::from_millis(700));
        cluster.nodes[victim].kill();
        cluster.nodes[victim].start();
    }
    wait_managers(&cluster, &all);
    until("the update is complete", || {
        let service = cluster.service("web")?;
        let status = &service["UpdateStatus"];
        assert_eq!(started(status), began, "the update began anew: {status}");
        if status["State"] == "completed" { Ok(()) } else { Err(status.to_string()) }
    });

    let new: Vec<Task> = tasks(&cluster, "web").into_iter().filter(|task| task.image == "hello:2").collect();
    assert_eq!(new.len() as u64, REPLICAS, "a place was changed twice: {new:#?}");
    for pair in new.windows(2) {
        assert!(pair[1].created >= pair[0].since.plus_ns(UPDATE_DELAY_NS), "too early: {pair:#?}");
    }
    let failed = tasks(&cluster, "failing");
    assert!(failed.len() > 2, "{failed:#?}");
    for pair in failed.windows(2).filter(|pair| pair[1].state == "failed") {
        assert!(pair[1].since >= pair[0].since.plus_ns(RESTART_DELAY_NS), "too early: {pair:#?}");
    }
    let containers = |tasks: &[Task]| -> Vec<(String, String)> {
        tasks.iter().map(|task| (task.id.clone(), task.container.clone())).collect()
    };
    let now = tasks(&cluster, "rest");
    assert_eq!(containers(&now), containers(&rest));
    assert!(now.iter().all(Task::runs), "{now:#?}");
}
