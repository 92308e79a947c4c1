//! Reasons, as clients get them.

use swarm_core::{Context, Dirty, decide};

use super::*;

#[tokio::test]
async fn a_task_that_no_node_takes_says_which_and_why() {
    let plane = cluster();
    let mut spec = plain("web");
    spec["TaskTemplate"]["Resources"] = json!({"Reservations": {"NanoCPUs": 8_000_000_000_u64}});
    post(&plane, "/services/create", &spec).await.ok();
    let plan = decide(&plane.state(), &Dirty::everything(), &Context::at(plane.now(), 1));
    plan.txs.into_iter().for_each(|tx| plane.apply(tx.ops));

    let why = get(&plane, "/swarmd/services/web/why").await.ok().json();
    let text = "waits for a node: no suitable node (insufficient resources on 2 nodes)";
    assert_eq!(why["Summary"], format!("0 of 2 tasks run; {text}"));
    assert_eq!(why["Tasks"].as_array().map(Vec::len), Some(2));
    assert_eq!(why["Rejections"][0]["Asked"], "8 CPUs");
    assert_eq!(why["Rejections"][0]["Nodes"][1]["Found"], "2 free of 2");
    assert!(why["Fixes"][0].as_str().expect("a text").contains("--reserve-cpu 2 web"));

    let id = why["Tasks"][1]["ID"].as_str().expect("an id").to_owned();
    for name in [id.as_str(), &id[..12], "web.2", &format!("web.2.{id}")] {
        let why = get(&plane, &format!("/swarmd/tasks/{name}/why")).await.ok().json();
        assert_eq!((&why["Tasks"][0]["ID"], &why["Summary"]), (&json!(id), &json!(text)), "{name}");
        assert_eq!(why["Tasks"][0]["Name"], "web.2");
    }
    assert_eq!(get(&plane, "/tasks/web.2").await.ok().json()["ID"], json!(id));
    assert!(get(&plane, "/swarmd/tasks/web.3/why").await.error(404).contains("web.3"));
    assert!(get(&plane, "/swarmd/services/nope/why").await.error(404).contains("nope"));
    // Docker's clients get the text that they know, and the numbers.
    let tasks = get(&plane, "/tasks").await.all("/Status/Err");
    let asks = "asks for 8 CPUs (most free: 2 on beta)";
    assert_eq!(tasks, [format!("no suitable node (insufficient resources on 2 nodes): {asks}"), tasks[1].clone()]);
    assert_eq!(tasks[0], tasks[1]);

    // What is free where a constraint lets no task go is of no use.
    spec["Name"] = json!("there");
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.hostname==alpha"]});
    post(&plane, "/services/create", &spec).await.ok();
    let plan = decide(&plane.state(), &Dirty::everything(), &Context::at(plane.now(), 2));
    plan.txs.into_iter().for_each(|tx| plane.apply(tx.ops));
    let tasks = filtered(&plane, "/tasks", json!({"service": ["there"]})).await.all("/Status/Err");
    let asks = "asks for 8 CPUs (most free: 2 on alpha)";
    assert!(tasks.iter().all(|err| err.contains(asks)), "{tasks:?}");
}
