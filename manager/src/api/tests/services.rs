//! Services.

use swarm_model::{UpdateState, UpdateStatus};

use super::{rollout::settle, *};

/// `docker service create --publish mode=host,… ` as the real CLI sends it.
const RECORDED: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/docker-api/tests/recorded/service_create_publish_mode_host_port_i.json"
));

async fn inspect(plane: &TestPlane, id: &str) -> Value {
    get(plane, &format!("/services/{id}?insertDefaults=false")).await.ok().json()
}

/// Get, modify, put: what every client does.
async fn update(plane: &TestPlane, id: &str, change: impl FnOnce(&mut Value)) -> Answer {
    let mut view = inspect(plane, id).await;
    change(&mut view["Spec"]);
    post(plane, &format!("/services/{id}/update?version={}", view["Version"]["Index"]), &view["Spec"]).await
}

#[tokio::test]
async fn a_request_of_the_real_cli_is_kept_whole() {
    let plane = cluster();
    let recorded: Value = serde_json::from_str(RECORDED).expect("JSON");
    let answer = post(&plane, "/services/create", &recorded["req_body"]).await.ok();
    assert_eq!((answer.status, &answer.json()["Warnings"]), (201, &Value::Null));
    let view = inspect(&plane, answer.json()["ID"].as_str().expect("an id")).await;
    let mut expected = recorded["req_body"].clone();
    expected["TaskTemplate"]["ContainerSpec"]["Isolation"] = json!("default");
    expected["TaskTemplate"]["Runtime"] = json!("container");
    expected["Mode"]["Replicated"]["Replicas"] = json!(1);
    assert_eq!(view["Spec"], expected);
    assert_eq!(view["Endpoint"]["Ports"], expected["EndpointSpec"]["Ports"]);
    assert_eq!((view.get("ServiceStatus"), view.get("PreviousSpec")), (None, None));
}

#[tokio::test]
async fn services_are_found_by_id_name_and_prefix() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    create(&plane, "db").await;
    for text in [id.as_str(), &id[..12], "web", "Web"] {
        assert_eq!(inspect(&plane, text).await["ID"], id, "{text}");
    }
    assert_eq!(get(&plane, "/services/nope").await.error(404), "service nope not found");
    assert_eq!(get(&plane, "/services/%20").await.error(404), "service   not found");
    assert!(get(&plane, "/services/%ff").await.error(400).contains("UTF-8"));
}

#[tokio::test]
async fn ambiguous_prefixes_are_refused() {
    let plane = cluster();
    // 36 first characters: the 37th service shares one.
    let mut ids = Vec::new();
    for i in 0..37 {
        ids.push(create(&plane, &format!("s{i}")).await);
    }
    let shared = ids.iter().find(|a| ids.iter().filter(|b| a[..1] == b[..1]).count() > 1).expect("a shared one");
    let message = get(&plane, &format!("/services/{}", &shared[..1])).await.error(400);
    assert!(message.contains("is ambiguous (") && message.ends_with("matches found)"), "{message}");
}

#[tokio::test]
async fn defaults_are_inserted_only_when_asked_for() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    assert_eq!(inspect(&plane, &id).await["Spec"].get("RollbackConfig"), None);
    let view = get(&plane, &format!("/services/{id}?insertDefaults=True")).await.ok().json();
    assert_eq!(view["Spec"]["RollbackConfig"]["Monitor"], 5_000_000_000_i64);
    assert!(get(&plane, &format!("/services/{id}?insertDefaults=si")).await.error(400).contains("'si'"));
}

#[tokio::test]
async fn a_service_without_a_name_gets_one() {
    let plane = cluster();
    let spec = json!({"TaskTemplate": {"ContainerSpec": {"Image": "hello:1"}}});
    let first = post(&plane, "/services/create", &spec).await.ok().json()["ID"].clone();
    let second = post(&plane, "/services/create", &spec).await.ok().json()["ID"].clone();
    let names =
        [inspect(&plane, first.as_str().expect("id")).await, inspect(&plane, second.as_str().expect("id")).await]
            .map(|view| view["Spec"]["Name"].as_str().expect("a name").to_owned());
    assert!(names.iter().all(|name| name.contains('_')) && names[0] != names[1], "{names:?}");
}

#[tokio::test]
async fn a_new_service_is_warned_of_what_it_will_hardly_mean() {
    let plane = cluster();
    let mut spec = plain("web");
    spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": "any", "MaxAttempts": 3, "Window": 5_000_000_000_i64});
    let answer = post(&plane, "/services/create", &spec).await.ok().json();
    let text = answer["Warnings"][0].as_str().expect("a warning");
    assert!(text.contains("never fall into a window of 5s"), "{text}");
}

#[tokio::test]
async fn templates_that_no_task_could_fill_in_are_refused() {
    let plane = cluster();
    let spec = |env: &str| {
        let container = json!({"Image": "hello:1", "Env": ["A=1", env]});
        json!({"Name": "web", "Labels": {"tier": "front"}, "TaskTemplate": {"ContainerSpec": container}})
    };
    for (env, problem) in [
        ("B={{.Node.Color}}", "unknown field '.Node.Color'"),
        ("B={{.Service.Labels.missing}}", "unknown field '.Service.Labels.missing'"),
        ("B={{frob .Task.ID}}", "unknown function 'frob'"),
        ("B={{range 9999999}}x{{end}}", "steps"),
    ] {
        let message = post(&plane, "/services/create", &spec(env)).await.error(400);
        assert!(message.contains("TaskTemplate.ContainerSpec.Env[1]: ") && message.contains(problem), "{message}");
    }
    let known = "B={{.Service.Labels.tier}}-{{.Task.Slot}}";
    post(&plane, "/services/create", &spec(known)).await.ok();
    // What is there already stays: the label that it names goes.
    let mut without = spec(known);
    without["Labels"] = json!({});
    let version = inspect(&plane, "web").await["Version"]["Index"].clone();
    post(&plane, &format!("/services/web/update?version={version}"), &without).await.ok();
}

#[tokio::test]
async fn credentials_are_kept_and_never_shown() {
    let plane = cluster();
    let auth = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6Imh1bnRlcjIifQ==";
    let request = |auth: &str| {
        let request = Request::post("/services/create").header(CONTENT_TYPE, "application/json");
        request.header("X-Registry-Auth", auth).body(plain("web").to_string().into()).expect("a request")
    };
    let message = send(&plane, request("hunter2!")).await.error(400);
    assert!(message.contains("X-Registry-Auth") && !message.contains("hunter2"), "{message}");
    send(&plane, request(auth)).await.ok();
    let kept = plane
        .inner()
        .proposed
        .iter()
        .any(|op| matches!(op, Op::CreateService { registry_auth: Some(secret), .. } if secret.expose() == auth));
    assert!(kept);
    let shown = get(&plane, "/services/web").await.ok().body;
    assert!(!String::from_utf8_lossy(&shown).contains(&auth[..16]));
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_is_written() {
    let plane = cluster();
    create(&plane, "web").await;
    let before = plane.state().services().count();
    let with = |pointer: &str, value: Value| {
        let mut spec = plain("other");
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        spec.pointer_mut(parent).expect("parent")[key] = value;
        spec
    };
    let container = "/TaskTemplate/ContainerSpec";
    for (spec, status, part) in [
        (plain("WEB"), 409, "service WEB already exists"),
        (plain("a.b"), 400, "DNS name component"),
        (with("/TaskTemplate/ContainerSpec", json!({})), 400, "image reference must be provided"),
        (with("/TaskTemplate/Placement", json!({"Constraints": ["node.role=x"]})), 400, "==, !="),
        (with("/TaskTemplate/Resources", json!({"Limits": {"MemoryBytes": 1048576}})), 400, "at least 4MiB"),
        (with("/TaskTemplate/RestartPolicy", json!({"Delay": "5s"})), 400, "TaskTemplate.RestartPolicy.Delay"),
        (with("/Labels", json!({"big": "x".repeat(1 << 20)})), 400, "labels of"),
        (with("/Labels", json!({"swarmd.rebalence": "on"})), 400, "swarmd.rebalence"),
        (with("/Mode", json!({"GlobalJob": {}, "Global": {}})), 400, "only one service mode"),
        (
            with("/EndpointSpec", json!({"Ports": [{"TargetPort": 80, "Protocol": "sctp"}]})),
            501,
            "port 80 is published in ingress mode with SCTP",
        ),
        (with("/TaskTemplate/Networks", json!([{"Target": "n"}])), 404, "network n not found"),
        (with("/TaskTemplate/Networks", json!([{"Target": "host"}, {"Target": "n"}])), 404, "network n not found"),
        (with("/TaskTemplate/Networks", json!([{"Target": "host"}, {"Target": "none"}])), 400, "only one of the"),
        (with("/TaskTemplate/Networks", json!([{"Target": "host", "Aliases": ["a"]}])), 400, "neither aliases nor"),
        (with("/Networks", json!([{"Target": "n"}])), 404, "network n not found"),
        (with("/Networks", json!([{"Target": "n", "Alias": "x"}])), 400, "the nearest one is Networks[0].Aliases"),
        (with(&format!("{container}/Secrets"), json!([{"SecretID": "x"}])), 400, "ContainerSpec.Secrets[0]: SecretID"),
        (with(&format!("{container}/configs"), json!([{"ConfigID": "x"}])), 400, "ContainerSpec.Configs[0]: ConfigID"),
        (
            with(&format!("{container}/Privileges"), json!({"AppArmor": {"Mode": "odd"}})),
            400,
            "Privileges: AppArmor.Mode",
        ),
        (with(&format!("{container}/Privileges"), json!({"CredentialSpec": {"File": "x"}})), 400, "CredentialSpec is"),
        (with("/TaskTemplate/Resources", json!({"SwapBytes": 1})), 400, "Resources.SwapBytes"),
        (with(&format!("{container}/Isolation"), json!("process")), 400, "ContainerSpec.Isolation \"process\" is for"),
        (
            with(&format!("{container}/Mounts"), json!([{"Target": "/a", "VolumeOptions": {"Subpath": "b"}}])),
            400,
            "TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions.Subpath is not supported",
        ),
        (
            with("/TaskTemplate/Placement", json!({"constraint": ["node.role==worker"]})),
            400,
            "TaskTemplate.Placement.constraint is not a field that this version knows; the nearest one is \
             TaskTemplate.Placement.Constraints",
        ),
        (with("/RestartPolicy", json!({"Condition": "none"})), 400, "the nearest one is TaskTemplate.RestartPolicy"),
        (with("/Mode", json!({"Replicated": {"Replica": 3}})), 400, "the nearest one is Mode.Replicated.Replicas"),
    ] {
        let message = post(&plane, "/services/create", &spec).await.error(status);
        assert!(message.contains(part), "{message}");
    }
    // What says nothing asks for nothing: `docker stack deploy` sends this.
    let spec = with(
        &format!("{container}/Privileges"),
        json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false}),
    );
    post(&plane, "/services/create", &spec).await.ok();
    assert_eq!(plane.state().services().count(), before + 1);
    for network in ["none", "host", "bridge"] {
        let mut spec = with("/TaskTemplate/Networks", json!([{"Target": network}]));
        spec["Name"] = json!(network);
        post(&plane, "/services/create", &spec).await.ok();
        assert_eq!(inspect(&plane, network).await["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": network}]));
    }
}

#[tokio::test]
async fn what_an_older_version_took_is_not_refused_when_it_comes_back() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let service = id.parse().expect("an id");
    let mut stored = inspect(&plane, &id).await["Spec"].clone();
    stored["Novelty"] = json!({"a": 1});
    stored["TaskTemplate"]["ContainerSpec"]["Mounts"] = json!([{"Type": "volume", "Target": "/a"}, {"Type": "volume", "Target": "/b", "VolumeOptions": {"Subpath": "c"}}]);
    let spec = serde_json::from_value(stored.clone()).expect("a spec");
    plane.apply(vec![Op::UpdateService { service, spec: Arc::new(spec), registry_auth: None, alike: None }]);
    update(&plane, &id, |_| {}).await.ok();
    update(&plane, &id, |spec| spec["Labels"]["a"] = json!("b")).await.ok();
    update(&plane, &id, |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Mounts"].as_array_mut().expect("mounts").remove(0);
    })
    .await
    .ok();
    assert_eq!(inspect(&plane, &id).await["Spec"]["Novelty"], stored["Novelty"]);
    let change = |spec: &mut Value| spec["Novelty"] = json!({"a": 2});
    assert!(update(&plane, &id, change).await.error(400).contains("Novelty is not a field that this version knows"));
}

#[tokio::test]
async fn bodies_must_be_json_and_not_too_large() {
    let plane = cluster();
    let create = |content_type: &str, body: Body| {
        Request::post("/services/create").header(CONTENT_TYPE, content_type).body(body).expect("a request")
    };
    let message = send(&plane, create("text/plain", "{}".into())).await.error(400);
    assert_eq!(message, "unsupported Content-Type header (text/plain): must be 'application/json'");
    assert!(send(&plane, create("application/json", Body::empty())).await.error(400).contains("no body"));
    assert!(send(&plane, create("application/json", "{\"Name\":".into())).await.error(400).contains("invalid JSON"));
    let huge = vec![b' '; super::super::BODY_BYTES_MAX + 1];
    assert!(send(&plane, create("application/json", huge.into())).await.error(413).contains("4194304 bytes"));
}

#[tokio::test]
async fn scaling_keeps_the_tasks_spec() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let before = plane.state().service_by_name("web").expect("service").spec_version;
    let answer = update(&plane, &id, |spec| {
        spec["Mode"]["Replicated"]["Replicas"] = json!(9);
        spec["Labels"]["new"] = json!("1");
        spec["UpdateConfig"] = json!({"Parallelism": 2});
    });
    assert_eq!(answer.await.ok().json(), json!({"Warnings": null}));
    let view = inspect(&plane, "web").await;
    assert_eq!(view["Spec"]["Mode"], json!({"Replicated": {"Replicas": 9}}));
    assert_eq!(view["PreviousSpec"]["Mode"], json!({"Replicated": {"Replicas": 2}}));
    assert_eq!(plane.state().service_by_name("web").expect("service").spec_version, before);
}

#[tokio::test]
async fn other_changes_are_refused() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let refused = async |status, part: &str, change: fn(&mut Value)| {
        let message = update(&plane, &id, change).await.error(status);
        assert!(message.contains(part), "{message}");
    };
    refused(400, "repository/tag", |s| s["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:")).await;
    let sctp = |s: &mut Value| s["EndpointSpec"] = json!({"Ports": [{"TargetPort": 80, "Protocol": "sctp"}]});
    refused(501, "publish it with mode=host", sctp).await;
    refused(501, "renaming services is not supported", |s| s["Name"] = json!("web2")).await;
    refused(501, "service mode change is not allowed", |s| s["Mode"] = json!({"Global": {}})).await;
    refused(400, "max failure ratio", |s| s["UpdateConfig"] = json!({"MaxFailureRatio": 2.0})).await;
    let version = inspect(&plane, &id).await["Version"]["Index"].clone();
    let post = async |query: &str| post(&plane, &format!("/services/web/update?{query}"), &plain("web")).await;
    assert!(post("version=1").await.error(500).contains("update out of sequence"));
    assert!(post("version=1&rollback=previous").await.error(500).contains("update out of sequence"));
    assert!(post("").await.error(400).contains("invalid service version ''"));
    for (query, part) in [
        ("rollback=x", "rollback option x"),
        ("rollback=previous", "service web does not have a previous spec"),
        ("registryAuthFrom=previous-spec", "service web does not have a previous spec"),
        ("registryAuthFrom=x", "registryAuthFrom 'x'"),
    ] {
        let message = post(&format!("version={version}&{query}")).await.error(400);
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(inspect(&plane, &id).await["Version"]["Index"], version);
}

/// Tools wait for a version that moves, and compare the spec before an update with the one after it.
#[tokio::test]
async fn the_same_spec_again_moves_the_version_and_nothing_else() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let version = |view: &Value| view["Version"]["Index"].as_u64().expect("a number");
    let history = async || get(&plane, &format!("/swarmd/services/{id}/history")).await.ok().json();
    let spec_version = || plane.state().service_by_name("web").expect("service").spec_version;
    let roll_back = async || {
        let at = version(&inspect(&plane, &id).await);
        let path = format!("/services/{id}/update?version={at}&rollback=previous");
        post(&plane, &path, &inspect(&plane, &id).await["Spec"]).await
    };
    for round in 0..2 {
        let (before, history_before, tasks) = (inspect(&plane, &id).await, history().await, spec_version());
        update(&plane, &id, |_| {}).await.ok();
        let after = inspect(&plane, &id).await;
        assert!(version(&after) > version(&before));
        assert_eq!((&after["Spec"], &after["PreviousSpec"]), (&before["Spec"], &before["Spec"]));
        assert_eq!((after.get("UpdateStatus"), spec_version()), (before.get("UpdateStatus"), tasks));
        assert_eq!(history().await, history_before, "round {round}");
    }
    assert!(roll_back().await.error(400).contains("service web does not have a previous spec"));

    update(&plane, &id, |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["V=bad"])).await.ok();
    let changed = inspect(&plane, &id).await;
    assert_eq!(changed["PreviousSpec"]["TaskTemplate"]["ContainerSpec"].get("Env"), None);
    // As clients write the same spec: with its defaults, and with nulls and empty lists.
    let long = get(&plane, &format!("/services/{id}?insertDefaults=true")).await.ok().json()["Spec"].clone();
    let revisions = || plane.state().service_by_name("web").expect("service").history.len();
    update(&plane, &id, |spec| *spec = long.clone()).await.ok();
    assert_eq!(revisions(), 2);
    update(&plane, &id, |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Labels"] = json!(null);
        spec["TaskTemplate"]["Placement"] = json!({"Constraints": []});
        spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([]);
        spec["EndpointSpec"] = json!({});
    })
    .await
    .ok();
    assert_eq!(revisions(), 2);
    let same = inspect(&plane, &id).await;
    assert_eq!(same["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"], json!(["V=bad"]));
    roll_back().await.ok();
    let back = inspect(&plane, &id).await;
    assert_eq!(back["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env"), None, "the last different spec");
    assert_eq!(back["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"], json!(["V=bad"]));
}

/// The credentials that the tasks of a service's present spec pull with.
fn credentials(plane: &TestPlane) -> Option<String> {
    let state = plane.state();
    let service = state.service_by_name("web").expect("service");
    let version = state.spec(service.id, service.spec_version).expect("kept");
    version.registry_auth.as_ref().map(|auth| auth.expose().to_owned())
}

/// Updates to an image, with a header of credentials or without.
async fn update_image(plane: &TestPlane, image: &str, query: &str, auth: Option<&str>) {
    let view = inspect(plane, "web").await;
    let mut spec = view["Spec"].clone();
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
    let path = format!("/services/web/update?version={}{query}", view["Version"]["Index"]);
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    let request = auth.into_iter().fold(request, |request, auth| request.header("X-Registry-Auth", auth));
    send(plane, request.body(spec.to_string().into()).expect("a request")).await.ok();
}

#[tokio::test]
async fn credentials_stay_until_others_come() {
    let plane = cluster();
    create(&plane, "web").await;
    let (alice, bob) = ("eyJ1c2VybmFtZSI6ImFsaWNlIn0=", "eyJ1c2VybmFtZSI6ImJvYiJ9");
    for (image, query, header, expected) in [
        ("hello:2", "", Some(alice), Some(alice)),
        // The spec before had none.
        ("hello:3", "&registryAuthFrom=previous-spec", None, None),
        ("hello:3", "", Some(alice), Some(alice)),
        ("hello:4", "", None, Some(alice)),
        ("hello:5", "&registryAuthFrom=spec", None, Some(alice)),
        ("hello:6", "&registryAuthFrom=previous-spec", Some(bob), Some(bob)),
        ("hello:7", "&registryAuthFrom=previous-spec", None, Some(alice)),
        ("ignored", "&rollback=previous", None, Some(bob)),
    ] {
        update_image(&plane, image, query, header).await;
        assert_eq!(credentials(&plane).as_deref(), expected, "{image} {query}");
    }
}

#[tokio::test]
async fn of_two_updates_from_the_same_version_one_wins() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let version = inspect(&plane, &id).await["Version"]["Index"].clone();
    let scale = |replicas: u64| {
        let mut spec = plain("web");
        spec["Mode"]["Replicated"]["Replicas"] = json!(replicas);
        spec
    };
    let path = format!("/services/{id}/update?version={version}&registryAuthFrom=spec");
    post(&plane, &path, &scale(5)).await.ok();
    assert!(post(&plane, &path, &scale(6)).await.error(500).contains("update out of sequence"));
    assert_eq!(plane.state().service_by_name("web").expect("service").spec.replicas(), Some(5));
}

#[tokio::test]
async fn lists_are_filtered_and_count_tasks_when_asked() {
    let plane = cluster();
    let web = create(&plane, "web").await;
    create(&plane, "web2").await;
    create(&plane, "db").await;
    for (filters, expected) in [
        (json!({"name": {"web": true}}), &["web", "web2"][..]),
        (json!({"name": ["DB"]}), &["db"]),
        (json!({"id": [web]}), &["web"]),
        (json!({"label": ["tier=db"]}), &["db"]),
        (json!({"mode": ["global"]}), &[]),
        (json!({"mode": ["replicated"], "name": ["web2"]}), &["web2"]),
        (json!({"runtime": ["plugin"]}), &[]),
    ] {
        let mut names = filtered(&plane, "/services", filters.clone()).await.all("/Spec/Name");
        names.sort();
        assert_eq!(names, expected, "{filters}");
    }
    assert_eq!(
        filtered(&plane, "/services", json!({"x": ["1"]})).await.error(400),
        "invalid filter 'x' (possible are id, name, label, mode, runtime)"
    );
    assert!(filtered(&plane, "/services", json!({"mode": ["x"]})).await.error(400).contains("'x'"));

    add_task(&plane, &web, 1, MANAGER, TaskState::Running);
    add_task(&plane, &web, 2, WORKER, TaskState::Running);
    add_task(&plane, &web, 3, MANAGER, TaskState::Failed);
    report_node(&plane, WORKER, NodeState::Down, None);
    let list = get(&plane, "/services?status=true").await.ok().json();
    let shown = list.as_array().expect("list").iter().find(|s| s["ID"] == *web).expect("web");
    assert_eq!(shown["ServiceStatus"], json!({"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 0}));
    let list = get(&plane, "/services?status=False").await.ok().json();
    assert_eq!(list[0].get("ServiceStatus"), None);
}

#[tokio::test]
async fn a_removed_service_is_gone_and_its_tasks_stop() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    let task = add_task(&plane, &id, 1, WORKER, TaskState::Running);
    let answer = delete(&plane, "/services/web").await.ok();
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(delete(&plane, "/services/web").await.error(404), "service web not found");
    settle(&plane);
    assert!(plane.state().task(task).is_none());
    assert_eq!(get(&plane, "/services").await.ok().json(), json!([]));
}

#[tokio::test]
async fn progress_of_an_update_is_shown() {
    let plane = cluster();
    let id = create(&plane, "web").await;
    assert_eq!(inspect(&plane, &id).await.get("UpdateStatus"), None);
    let update = UpdateStatus {
        state: UpdateState::Paused,
        started_at: Timestamp::from_millis(1_700_000_000_000),
        completed_at: None,
        message: "update paused due to failure".into(),
        slots: 2,
        failed: Default::default(),
    };
    plane.apply(vec![Op::SetUpdate { service: id.parse().expect("id"), update }]);
    assert_eq!(
        inspect(&plane, &id).await["UpdateStatus"],
        json!({"State": "paused", "StartedAt": "2023-11-14T22:13:20Z", "Message": "update paused due to failure"})
    );
}
