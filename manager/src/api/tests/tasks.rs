//! Tasks.

use super::*;

#[tokio::test]
async fn a_task_is_shown_as_docker_shows_it() {
    let plane = cluster();
    let service = create(&plane, "web").await;
    let task = add_task(&plane, &service, 1, WORKER, TaskState::Running);
    let view = get(&plane, &format!("/tasks/{task}")).await.ok().json();
    assert_eq!(
        view,
        json!({
            "ID": task.to_string(),
            "Version": view["Version"],
            "CreatedAt": view["CreatedAt"],
            "UpdatedAt": view["UpdatedAt"],
            "Labels": {},
            "Spec": {"ContainerSpec": {"Image": "hello:1", "Isolation": "default"}, "ForceUpdate": 0},
            "ServiceID": service,
            "Slot": 1,
            "NodeID": WORKER.to_string(),
            "Status": {
                "Timestamp": "2023-11-14T22:21:40Z",
                "State": "running",
                "Message": "started",
                "PortStatus": {}
            },
            "DesiredState": "running"
        })
    );
}

#[tokio::test]
async fn tasks_are_found_by_id_prefix_and_name() {
    let plane = cluster();
    let service = create(&plane, "web").await;
    let id = add_task(&plane, &service, 1, WORKER, TaskState::Running).to_string();
    add_task(&plane, &service, 2, WORKER, TaskState::Running);
    for text in [&id, &id[..12], &format!("web.1.{id}")] {
        assert_eq!(get(&plane, &format!("/tasks/{text}")).await.ok().json()["ID"], id, "{text}");
    }
    for text in ["nope", &format!("db.1.{id}")] {
        assert_eq!(get(&plane, &format!("/tasks/{text}")).await.error(404), format!("task {text} not found"));
    }
}

#[tokio::test]
async fn lists_are_filtered() {
    let plane = cluster();
    let (web, db) = (create(&plane, "web").await, create(&plane, "db").await);
    let a = add_task(&plane, &web, 1, MANAGER, TaskState::Running).to_string();
    let b = add_task(&plane, &web, 2, WORKER, TaskState::Running).to_string();
    let c = add_task(&plane, &db, 1, WORKER, TaskState::Failed).to_string();
    plane.apply(vec![Op::SetDesired { desired: DesiredState::Shutdown, tasks: vec![c.parse().expect("id")] }]);
    for (filters, expected) in [
        (json!({}), vec![&a, &b, &c]),
        (json!({"service": {"web": true}}), vec![&a, &b]),
        (json!({"service": [web, "db"]}), vec![&a, &b, &c]),
        (json!({"node": ["beta"]}), vec![&b, &c]),
        (json!({"node": ["beta"], "service": ["web"]}), vec![&b]),
        (json!({"label": ["tier=db"]}), vec![&c]),
        (json!({"desired-state": ["running", "accepted"]}), vec![&a, &b]),
        (json!({"desired-state": ["shutdown"]}), vec![&c]),
        (json!({"id": [b[..9]]}), vec![&b]),
        (json!({"name": ["web.2"]}), vec![&b]),
        (json!({"_up-to-date": {"true": true}, "service": {web.clone(): true}}), vec![&a, &b]),
        (json!({"runtime": ["plugin"]}), vec![]),
    ] {
        let mut ids = filtered(&plane, "/tasks", filters.clone()).await.all("/ID");
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected, "{filters}");
    }
    assert_eq!(filtered(&plane, "/tasks", json!({"service": ["x"]})).await.error(404), "service x not found");
    assert_eq!(filtered(&plane, "/tasks", json!({"node": ["x"]})).await.error(404), "node x not found");
    assert_eq!(
        filtered(&plane, "/tasks", json!({"x": ["x"]})).await.error(400),
        "invalid filter 'x' (possible are id, name, service, node, label, desired-state, runtime)"
    );
    assert!(filtered(&plane, "/tasks", json!({"desired-state": ["x"]})).await.error(400).contains("'x'"));
}

#[tokio::test]
async fn tasks_of_an_older_spec_are_not_up_to_date() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    add_task(&plane, &id, 1, WORKER, TaskState::Running);
    let service: ServiceId = id.parse().expect("id");
    let mut spec = plane.state().service(service).expect("service").spec.as_ref().clone();
    spec.task_template.force_update = 1;
    plane.apply(vec![Op::UpdateService { service, spec: Arc::new(spec), registry_auth: None, alike: None }]);
    let new = add_task(&plane, &id, 2, WORKER, TaskState::Running);
    let filters = json!({"_up-to-date": ["true"], "service": [id]});
    assert_eq!(filtered(&plane, "/tasks", filters).await.all("/ID"), [new.to_string()]);
}

#[tokio::test]
async fn tasks_of_a_removed_service_keep_its_labels() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let task = add_task(&plane, &id, 1, WORKER, TaskState::Running);
    delete(&plane, "/services/web").await.ok();
    let filters = json!({"label": {"tier=web": true}});
    assert_eq!(filtered(&plane, "/tasks", filters).await.all("/ID"), [task.to_string()]);
}

/// Long lists are written piece by piece.
#[tokio::test]
async fn lists_of_any_length_are_whole() {
    let plane = cluster();
    assert_eq!(get(&plane, "/tasks").await.ok().json(), json!([]));
    let id = create(&plane, "web").await;
    let mut count = 0;
    for total in [1_usize, 255, 256, 257, 512, 600] {
        while count < total {
            count += 1;
            add_task(&plane, &id, u32::try_from(count).expect("few"), WORKER, TaskState::Running);
        }
        assert_eq!(get(&plane, "/tasks").await.all("/ID").len(), total);
    }
}
