//! Nodes.

use super::*;

#[tokio::test]
async fn nodes_are_shown_as_docker_shows_them() {
    let plane = cluster();
    let list = get(&plane, "/nodes").await.ok().json();
    let manager = &list[0];
    assert_eq!(manager["ID"], MANAGER.to_string());
    assert_eq!(manager["Spec"], json!({"Labels": {}, "Role": "manager", "Availability": "active"}));
    assert_eq!(manager["Description"]["Hostname"], "alpha");
    assert_eq!(manager["Description"]["TLSInfo"], get(&plane, "/swarm").await.json()["TLSInfo"]);
    assert_eq!(manager["Status"], json!({"State": "ready", "Addr": "10.0.0.9"}));
    assert_eq!(manager["ManagerStatus"], json!({"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}));
    assert_eq!(list[1].get("ManagerStatus"), None);
}

#[tokio::test]
async fn a_node_whose_engine_is_gone_says_so() {
    let plane = cluster();
    let status = NodeStatus { state: NodeState::Ready, engine_reachable: false, ..NodeStatus::default() };
    plane.apply(vec![Op::ReportNode { node: WORKER, status, description: None }]);
    assert_eq!(get(&plane, "/nodes/beta").await.ok().json()["Status"]["Message"], "engine unreachable");
}

#[tokio::test]
async fn nodes_are_found_by_id_name_and_prefix() {
    let plane = cluster();
    let id = WORKER.to_string();
    for text in [id.as_str(), &id[..12], "beta", "BETA"] {
        assert_eq!(get(&plane, &format!("/nodes/{text}")).await.ok().json()["ID"], id, "{text}");
    }
    assert_eq!(get(&plane, "/nodes/nope").await.error(404), "node nope not found");
    let description = NodeDescription { hostname: "alpha".into(), ..NodeDescription::default() };
    report_node(&plane, WORKER, NodeState::Ready, Some(description));
    assert_eq!(get(&plane, "/nodes/alpha").await.error(400), "node alpha is ambiguous (2 matches found)");
}

#[tokio::test]
async fn lists_are_filtered() {
    let plane = cluster();
    let mut spec = get(&plane, "/nodes/beta").await.json();
    spec["Spec"]["Labels"] = json!({"zone": "east"});
    let version = &spec["Version"]["Index"];
    post(&plane, &format!("/nodes/beta/update?version={version}"), &spec["Spec"]).await.ok();
    for (filters, expected) in [
        (json!({"name": {"al": true}}), &["alpha"][..]),
        (json!({"name": ["AL", "b"]}), &["alpha", "beta"]),
        (json!({"id": [WORKER.to_string()[..5]]}), &["beta"]),
        (json!({"role": ["worker"]}), &["beta"]),
        (json!({"node.label": ["zone=east"]}), &["beta"]),
        (json!({"label": ["disk=alpha"]}), &["alpha"]),
        (json!({"membership": ["pending"]}), &[]),
    ] {
        let names = filtered(&plane, "/nodes", filters.clone()).await.all("/Description/Hostname");
        assert_eq!(names, expected, "{filters}");
    }
    assert_eq!(
        filtered(&plane, "/nodes", json!({"x": ["1"]})).await.error(400),
        "invalid filter 'x' (possible are id, name, label, node.label, role, membership)"
    );
    assert!(filtered(&plane, "/nodes", json!({"role": ["boss"]})).await.error(400).contains("'boss'"));
}

#[tokio::test]
async fn what_the_operator_sets_is_kept() {
    let plane = cluster();
    let version = plane.state().node(WORKER).expect("node").version;
    let spec = json!({"Labels": {"a": ""}, "Role": "Worker", "Availability": "drain", "Own": 1});
    let path = format!("/nodes/beta/update?version={version}");
    let answer = post(&plane, &path, &spec).await.ok();
    assert!(answer.body.is_empty());
    let shown = get(&plane, "/nodes/beta").await.json()["Spec"].clone();
    assert_eq!(shown, json!({"Labels": {"a": ""}, "Role": "worker", "Availability": "drain", "Own": 1}));
    assert!(post(&plane, &path, &spec).await.error(500).contains("update out of sequence"));
}

#[tokio::test]
async fn a_drain_goes_by_policy_where_that_is_said() {
    let plane = cluster();
    let update = async |query: &str, availability: &str, label: Option<&str>| {
        let version = plane.state().node(WORKER).expect("node").version;
        let labels: serde_json::Map<String, Value> =
            label.map(|v| ("swarmd.drain".to_owned(), v.into())).into_iter().collect();
        let spec = json!({"Labels": labels, "Role": "worker", "Availability": availability});
        post(&plane, &format!("/nodes/beta/update?version={version}{query}"), &spec).await
    };
    let shown = async || get(&plane, "/nodes/beta").await.ok().json().get("DrainDeadline").is_some();
    for (query, availability, label, by_policy) in [
        ("", "drain", None, false),
        ("&drain=policy", "drain", None, true),
        // Another change by a client that knows nothing of policies.
        ("", "drain", None, true),
        ("&drain=now", "drain", None, false),
        ("", "active", Some("policy"), false),
        ("", "drain", Some("policy"), true),
        ("", "drain", None, false),
        ("", "drain", Some("policy"), true),
        ("", "pause", Some("policy"), false),
    ] {
        update(query, availability, label).await.ok();
        assert_eq!(shown().await, by_policy, "{query} {availability} {label:?}");
    }
    update("&drain=policy&drainTimeout=90s", "drain", None).await.ok();
    let node = plane.state().node(WORKER).expect("node").clone();
    let deadline = node.drain_deadline.expect("by policy");
    assert!((0..=90_000_000_000).contains(&deadline.since_ns(node.updated_at)));
    for (query, availability, label, part) in [
        ("&drain=policy", "active", None, "the request has active"),
        ("&drain=later", "drain", None, "possible are policy and now"),
        ("&drain=now&drainTimeout=1m", "drain", None, "belongs to drain=policy"),
        ("&drain=policy&drainTimeout=soon", "drain", None, "'soon' is not a duration"),
        ("", "drain", Some("polite"), "it must be policy"),
    ] {
        let message = update(query, availability, label).await.error(400);
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_drain_that_gets_no_deadline_says_so() {
    for (level, query, warning) in [
        (1, "", ""),
        (1, "&drain=policy&drainTimeout=90s", "this drain has no deadline: not all managers know deadlines yet"),
        (2, "&drain=policy&drainTimeout=90s", ""),
    ] {
        let plane = cluster_of_level(level);
        let version = plane.state().node(WORKER).expect("node").version;
        let spec = json!({"Role": "worker", "Availability": "drain"});
        let answer = post(&plane, &format!("/nodes/beta/update?version={version}{query}"), &spec).await.ok();
        assert_eq!(answer.warning, warning, "{level} {query}");
        let has_deadline = plane.state().node(WORKER).expect("node").drain_deadline.is_some();
        assert_eq!(has_deadline, level == 2);
    }
}

#[tokio::test]
async fn roles_must_be_said_and_the_last_manager_stays() {
    let plane = cluster();
    let update = async |node: NodeId, spec: Value| {
        let version = plane.state().node(node).expect("node").version;
        post(&plane, &format!("/nodes/{node}/update?version={version}"), &spec).await
    };
    let message = update(MANAGER, json!({"Role": "worker", "Availability": "active"})).await.error(400);
    assert_eq!(message, "attempting to demote the last manager of the swarm");
    update(WORKER, json!({"Role": "manager", "Availability": "active"})).await.ok();
    // The worker that is to be a manager is none yet.
    let message = update(MANAGER, json!({"Role": "worker", "Availability": "active"})).await.error(400);
    assert!(message.contains("would lose the majority") && message.contains("the last manager"), "{message}");
    let message = update(WORKER, json!({"Availability": "active"})).await.error(400);
    assert!(message.starts_with("invalid Role: \"\""), "{message}");
    let message = update(WORKER, json!({"Role": "worker", "Availability": "gone"})).await.error(400);
    assert!(message.starts_with("invalid Availability: \"gone\""), "{message}");
}

#[tokio::test]
async fn only_nodes_that_are_down_are_removed_unless_forced() {
    let plane = cluster();
    assert!(delete(&plane, "/nodes/alpha").await.error(400).contains("is a cluster manager"));
    assert!(delete(&plane, "/nodes/beta?force=false").await.error(400).contains("is not down and can't be removed"));
    let answer = delete(&plane, "/nodes/beta?force=1").await.ok();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(get(&plane, "/nodes/beta").await.error(404), "node beta not found");
    assert!(plane.state().cluster().expect("cluster").removed_nodes.contains_key(&WORKER));
}
