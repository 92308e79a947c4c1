//! Commands that change something.

mod support;

use serde_json::{Value, json};
use support::{Fake, Reply, recorded};

const NODE: &str = "va7xb8g07gyik6k261534mhsc";
const WORKER_TOKEN: &str = "SWMTKN-1-64885tbqhxw14bbgneyfjmlqdnolbuka54z3fu3b6cncd1kglo-93ixrqyopshzcpvfm6y892svb";

fn with_swarm() -> Fake {
    let fake = Fake::start();
    fake.on_json("GET /swarm", &recorded("swarm_inspect"))
        .on_json("GET /info", &recorded("info_active"))
        .on_json(&format!("GET /nodes/{NODE}"), &recorded("node_list")[0]);
    fake
}

#[test]
fn swarm_init_prints_how_to_join() {
    let fake = with_swarm();
    fake.on_json("POST /swarm/init", &recorded("swarm_init"));
    assert_eq!(
        fake.run(&["swarm", "init", "--advertise-addr", "127.0.0.1", "--task-history-limit", "2"]).ok(),
        format!(
            "\
Swarm initialized: current node ({NODE}) is now a manager.

To add a worker to this swarm, run the following command:

    swarmctl swarm join --token {WORKER_TOKEN} 127.0.0.1:2377

To add a manager to this swarm, run 'swarmctl swarm join-token manager' and follow the instructions.
"
        )
    );
    let body = &fake.seen("POST /swarm/init")[0].body;
    assert_eq!(body["AdvertiseAddr"], "127.0.0.1");
    assert_eq!(body["ListenAddr"], "0.0.0.0:2377");
    assert_eq!(body["Spec"]["Orchestration"], json!({"TaskHistoryRetentionLimit": 2}));
    assert_eq!(body["Spec"]["Dispatcher"], json!({"HeartbeatPeriod": 0}));
    assert_eq!(body.get("EncryptNetworks"), None);
    fake.run(&["swarm", "init", "--encrypt-networks"]).ok();
    assert_eq!(fake.seen("POST /swarm/init")[1].body["EncryptNetworks"], true);
}

#[test]
fn swarm_init_names_the_flag_that_helps() {
    let fake = Fake::start();
    let message = "could not choose an IP address to advertise since this system has multiple addresses";
    fake.on("POST /swarm/init", [Reply::error(400, message)]);
    let error = fake.run(&["swarm", "init"]).failed();
    assert_eq!(error, format!("Error: {message}\nSay which one with --advertise-addr.\n"));
}

#[test]
fn swarm_join_and_leave() {
    let fake = with_swarm();
    fake.on("POST /swarm/join", [Reply::bytes(Vec::new())]);
    let join = fake.run(&["swarm", "join", "--token", WORKER_TOKEN, "10.0.0.1:2377"]).ok();
    assert_eq!(join, "This node joined a swarm as a manager.\n");
    let body = &fake.seen("POST /swarm/join")[0].body;
    assert_eq!((&body["RemoteAddrs"], &body["JoinToken"]), (&json!(["10.0.0.1:2377"]), &json!(WORKER_TOKEN)));

    fake.on("POST /swarm/join", [Reply::error(400, "the join token is of another cluster")]);
    let mut command = fake.command(&["swarm", "join", "10.0.0.1:2377"]);
    let output = command.env("SWARM_JOIN_TOKEN", "SWMTKN-1-secret").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "Error: the join token is of another cluster\n");
    assert_eq!(fake.seen("POST /swarm/join")[1].body["JoinToken"], "SWMTKN-1-secret");

    fake.on("POST /swarm/leave", [Reply::error(503, "You are a manager. Use `--force` to ignore this message. ")]);
    assert!(fake.run(&["swarm", "leave"]).failed().contains("With --force the node leaves anyway"));
    fake.on("POST /swarm/leave", [Reply::bytes(Vec::new())]);
    assert_eq!(fake.run(&["swarm", "leave", "--force"]).ok(), "Node left the swarm.\n");
    assert_eq!(fake.seen("POST /swarm/leave")[1].query["force"], "1");
}

#[test]
fn join_tokens_are_shown_and_rotated() {
    let fake = with_swarm();
    fake.on("POST /swarm/update", [Reply::bytes(Vec::new())]);
    assert_eq!(fake.run(&["swarm", "join-token", "-q", "worker"]).ok(), format!("{WORKER_TOKEN}\n"));
    let text = fake.run(&["swarm", "join-token", "--rotate", "worker"]).ok();
    assert!(text.starts_with("Successfully rotated worker join token.\n\nTo add a worker to this swarm"), "{text}");
    assert!(text.contains(&format!("    swarmctl swarm join --token {WORKER_TOKEN} 127.0.0.1:2377\n")), "{text}");
    let update = &fake.seen("POST /swarm/update")[0];
    assert_eq!((&*update.query["version"], &*update.query["rotateWorkerToken"]), ("10", "true"));
    assert_eq!(&*update.query["rotateManagerToken"], "false");
    assert_eq!(update.body, recorded("swarm_inspect")["Spec"]);
}

#[test]
fn swarm_update_changes_what_it_is_told() {
    let fake = with_swarm();
    fake.on("POST /swarm/update", [Reply::bytes(Vec::new())]);
    let line = ["swarm", "update", "--task-history-limit", "-1", "--dispatcher-heartbeat", "3s", "--autolock=false"];
    assert_eq!(fake.run(&line).ok(), "Swarm updated.\n");
    let mut spec = recorded("swarm_inspect")["Spec"].clone();
    spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(-1);
    spec["Dispatcher"]["HeartbeatPeriod"] = json!(3_000_000_000_u64);
    assert_eq!(fake.seen("POST /swarm/update")[0].body, spec);
    assert_eq!(fake.run(&["swarm", "update"]).code, Some(2));
}

#[test]
fn node_update_and_rm() {
    let fake = with_swarm();
    let update = format!("POST /nodes/{NODE}/update");
    fake.on(&update, [Reply::bytes(Vec::new())]);
    let line = ["node", "update", "--availability", "drain", "--label-add", "zone=east", "self"];
    assert_eq!(fake.run(&line).ok(), "self\n");
    let seen = &fake.seen(&update)[0];
    assert_eq!(seen.query["version"], "16");
    assert_eq!(seen.body, json!({"Availability": "drain", "Labels": {"zone": "east"}, "Role": "manager"}));
    let error = fake.run(&["node", "update", "--label-rm", "rack", NODE]).failed();
    assert_eq!(error, "Error: the node has no label 'rack'\n");
    assert_eq!(fake.run(&["node", "update", "--role", "worker", "x"]).failed(), "Error: no such node: x\n");

    let text = "node vm is not down and can't be removed";
    fake.on("DELETE /nodes/vm", [Reply::error(400, text)]).on("DELETE /nodes/w2", [Reply::bytes(Vec::new())]);
    let ran = fake.run(&["node", "rm", "--force", "vm", "w2"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "w2\n"));
    assert!(
        ran.stderr.starts_with(&format!("Error: {text}\nLet it leave (`swarmctl swarm leave` there")),
        "{}",
        ran.stderr
    );
    assert_eq!(fake.seen("DELETE /nodes/w2")[0].query["force"], "1");
}

#[test]
fn service_rm_goes_on_after_a_mistake() {
    let fake = Fake::start();
    fake.on("DELETE /services/web", [Reply::bytes(Vec::new())]);
    let ran = fake.run(&["service", "rm", "a/../b", "web"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "web\n"));
    assert_eq!(ran.stderr, "Error: no such service: a/../b\n");
    assert_eq!(fake.seen("DELETE /services/a/../b").len(), 1);
}

#[test]
fn scale_changes_one_number_and_nothing_else() {
    let fake = Fake::start();
    let id = "hyfde9xmq0odkdfurduigpmms";
    let mut service = recorded("service_inspect");
    service["Spec"]["TaskTemplate"]["FutureField"] = json!({"x": [1.5, null]});
    fake.on_json("GET /services/web", &service)
        .on_json("GET /tasks", &json!([]))
        .on_json(&format!("POST /services/{id}/update"), &json!({"Warnings": ["careful"]}));
    let ran = fake.run(&["service", "scale", "-d", "web=5"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "web scaled to 5\n"));
    assert_eq!(ran.stderr, "Warning: careful\n");
    let update = &fake.seen(&format!("POST /services/{id}/update"))[0];
    assert_eq!(update.query["version"], "26");
    service["Spec"]["Mode"]["Replicated"]["Replicas"] = json!(5);
    assert_eq!(update.body, service["Spec"]);

    service["Spec"]["Mode"] = json!({"Global": {}});
    fake.on_json("GET /services/web", &service);
    assert!(fake.run(&["service", "scale", "web=5"]).failed().contains("only be used with replicated"));
}

#[test]
fn scale_of_several_reads_all_before_it_changes_one() {
    let (fake, _, update) = with_web();
    let ran = fake.run(&["service", "scale", "-d", "web=5", "nope=1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        ran.stderr,
        "Error: nope: no such service: nope\n`swarmctl service ls` lists all services.\nNothing was scaled.\n"
    );
    let error = fake.run(&["service", "scale", "-d", "web=5", "web=100001"]).failed();
    assert!(error.contains("100001: at most 100000 are possible\nNothing was scaled."), "{error}");
    let error = fake.run(&["service", "scale", "-d", "web=5", "web=6"]).failed();
    assert!(error.contains("web is named twice; nothing was scaled"), "{error}");
    assert_eq!(fake.seen(&update).len(), 0);
}

/// A fake with the recorded service `web`, and what it shows of it.
fn with_web() -> (Fake, Value, String) {
    let fake = Fake::start();
    let mut service = recorded("service_inspect");
    service["Spec"]["TaskTemplate"]["FutureField"] = json!({"x": [1.5, null]});
    let update = format!("POST /services/{}/update", service["ID"].as_str().expect("the recording has an id"));
    fake.on_json("GET /services/web", &service)
        .on_json("GET /tasks", &json!([]))
        .on_json(&update, &json!({"Warnings": null}));
    (fake, service["Spec"].clone(), update)
}

#[test]
fn update_changes_what_it_is_told_and_nothing_else() {
    let (fake, mut spec, update) = with_web();
    let line = ["--replicas", "7", "--env-add", "A=1", "--env-rm", "NO", "--update-parallelism", "2", "--detach=true"];
    let ran = fake.run(&[&["service", "update"], &line[..], &["web"]].concat());
    assert_eq!(
        (ran.code, &*ran.stdout, &*ran.stderr),
        (Some(0), "web\n", "Warning: --env-rm NO: the service has none\n")
    );
    let seen = &fake.seen(&update)[0];
    assert_eq!((&*seen.query["version"], &*seen.query["registryAuthFrom"]), ("26", "spec"));
    assert!(!seen.query.contains_key("rollback") && !seen.headers.contains_key("x-registry-auth"));
    spec["Mode"]["Replicated"]["Replicas"] = json!(7);
    let mut sent = seen.body.clone();
    assert_eq!(sent["UpdateConfig"]["Parallelism"].take(), json!(2));
    assert_eq!(sent["TaskTemplate"]["ContainerSpec"]["Env"].as_array().unwrap().last(), Some(&json!("A=1")));
    for field in ["/UpdateConfig", "/TaskTemplate/ContainerSpec/Env"] {
        *sent.pointer_mut(field).unwrap() = Value::Null;
        let (parent, key) = field.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).unwrap()[key] = Value::Null;
    }
    assert_eq!(sent, spec);
}

#[test]
fn an_updated_image_is_pinned_unless_that_is_not_wanted() {
    let (fake, _, update) = with_web();
    let home = tempfile::tempdir().unwrap();
    let config = json!({"auths": {"reg.example": {"auth": "dTpwYXNzd29yZA=="}}});
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    let digest = "sha256:00000000000000000000000000000000";
    fake.on_json("GET /distribution/reg.example/app:2/json", &json!({"Descriptor": {"digest": digest}}));
    let line = ["service", "update", "-dq", "--with-registry-auth", "--image", "reg.example/app:2", "web"];
    let output = fake.command(&line).env("DOCKER_CONFIG", home.path()).output().unwrap();
    assert_eq!(support::Ran::from(output).ok(), "web\n");
    let seen = &fake.seen(&update)[0];
    let image = |body: &Value| body["TaskTemplate"]["ContainerSpec"]["Image"].clone();
    assert_eq!(image(&seen.body), format!("reg.example/app:2@{digest}"));
    assert!(seen.headers.contains_key("x-registry-auth") && !seen.query.contains_key("registryAuthFrom"));

    fake.run(&["service", "update", "-d", "--no-resolve-image", "--image", "hello:2", "web"]).ok();
    assert_eq!(image(&fake.seen(&update)[1].body), "hello:2");
}

#[test]
fn rollback_asks_for_the_spec_before() {
    let (fake, _, update) = with_web();
    assert_eq!(fake.run(&["service", "rollback", "-d", "web"]).ok(), "web\n");
    assert_eq!(fake.run(&["service", "update", "-d", "--rollback", "web"]).ok(), "web\n");
    for seen in fake.seen(&update) {
        assert_eq!((&*seen.query["rollback"], &*seen.query["version"]), ("previous", "26"));
    }
    for flag in ["--force", "--image=x", "--label-rm=x", "--no-resolve-image"] {
        let error = fake.run(&["service", "update", "--rollback", flag, "web"]).failed();
        assert!(
            error.starts_with("Error: --rollback goes with --detach, --quiet, --timeout and --check-version only"),
            "{error}"
        );
    }
    assert_eq!(fake.seen(&update).len(), 2);
    assert!(fake.run(&["service", "rollback", "nope"]).failed().starts_with("Error: no such service: nope\n"));
    let text = "service web does not have a previous spec";
    fake.on(&update, [Reply::error(400, text)]);
    let error = fake.run(&["service", "rollback", "web"]).failed();
    assert!(error.starts_with(&format!("Error: {text}\n")) && error.lines().count() == 2, "{error}");
}

#[test]
fn create_pins_the_image_and_sends_credentials() {
    let fake = Fake::start();
    let home = tempfile::tempdir().unwrap();
    let config = json!({"auths": {"reg.example": {"auth": "dTpwYXNzd29yZA=="}}});
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    let digest = "sha256:00000000000000000000000000000000";
    fake.on_json("POST /services/create", &json!({"ID": "s1", "Warnings": null})).on_json(
        "GET /distribution/reg.example/app:latest/json",
        &json!({"Descriptor": {"digest": digest}, "Platforms": [{"architecture": "amd64", "os": "linux"}]}),
    );
    let line = ["service", "create", "-d", "--with-registry-auth", "--name", "web", "reg.example/app", "serve", "-v"];
    let output = fake.command(&line).env("DOCKER_CONFIG", home.path()).output().unwrap();
    assert_eq!(support::Ran::from(output).ok(), "s1\n");
    let create = &fake.seen("POST /services/create")[0];
    assert_eq!(
        create.body["TaskTemplate"]["ContainerSpec"],
        json!({"Image": format!("reg.example/app:latest@{digest}"), "Args": ["serve", "-v"]})
    );
    assert_eq!(
        create.body["TaskTemplate"]["Placement"],
        json!({"Platforms": [{"Architecture": "amd64", "OS": "linux"}]})
    );
    let distribution = &fake.seen("GET /distribution/reg.example/app:latest/json")[0];
    assert_eq!(distribution.headers["x-registry-auth"], create.headers["x-registry-auth"]);
    assert!(create.headers["x-registry-auth"].starts_with("eyJ"));

    let error = fake.run(&["service", "create", "-d", "--with-registry-auth", "x"]).failed();
    assert!(error.contains("--with-registry-auth: neither DOCKER_CONFIG nor HOME is set"), "{error}");
}

#[test]
fn create_shows_what_the_server_says() {
    let fake = Fake::start();
    let refused = "name conflicts with an existing object: service web already exists";
    fake.on("POST /services/create", [Reply::error(409, refused)]);
    let ran = fake.run(&["service", "create", "--no-resolve-image", "--name", "web", "x"]);
    assert_eq!((ran.code, ran.stderr), (Some(1), format!("Error: {refused}\n")));

    fake.on_json("POST /services/create", &json!({"ID": "s1", "Warnings": ["no digest"]}));
    let ran = fake.run(&["service", "create", "-d", "local:1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "s1\n"));
    let warning =
        "Warning: image local:1 could not be looked up in a registry, nodes may run different versions of it: ";
    assert!(ran.stderr.starts_with(warning) && ran.stderr.lines().count() == 2, "{}", ran.stderr);
    assert!(ran.stderr.ends_with("\nWarning: no digest\n"), "{}", ran.stderr);
}

#[test]
fn a_stale_version_comes_with_advice() {
    let fake = Fake::start();
    let id = "hyfde9xmq0odkdfurduigpmms";
    fake.on_json("GET /services/web", &recorded("service_inspect"))
        .on_json(&format!("GET /services/{id}"), &recorded("service_inspect"))
        .on_json("GET /tasks", &Value::Array(Vec::new()))
        .on(&format!("POST /services/{id}/update"), [Reply::error(500, "rpc error: update out of sequence")]);
    let error = fake.run(&["service", "scale", "web=5"]).failed();
    assert_eq!(
        error,
        "Error: web: rpc error: update out of sequence\nSomebody changed it at the same time: run the command again.\n"
    );
}

#[test]
fn credentials_come_from_the_helper_that_docker_uses() {
    use std::os::unix::fs::PermissionsExt;
    let fake = Fake::start();
    fake.on_json("POST /services/create", &json!({"ID": "s1", "Warnings": null}));
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-safe");
    let answers = "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get reg.example' ] && \\\n\
                   echo '{\"ServerURL\":\"reg.example\",\"Username\":\"me\",\"Secret\":\"s3cret\"}' && exit\n\
                   echo 'credentials not found in native keychain'; exit 1\n";
    std::fs::write(&helper, answers).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |config: &Value, image: &str| {
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let line = ["service", "create", "-d", "--with-registry-auth", "--no-resolve-image", image];
        let mut command = fake.command(&line);
        command.env("PATH", folder.path()).env("DOCKER_CONFIG", folder.path());
        support::Ran::from(command.output().unwrap())
    };
    let (store, one) = (json!({"credsStore": "safe"}), json!({"credHelpers": {"reg.example": "safe"}}));
    for config in [&store, &one] {
        run(config, "reg.example/x").ok();
        let sent = fake.seen("POST /services/create").pop().unwrap().headers["x-registry-auth"].clone();
        let sent = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE, sent).unwrap();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent, json!({"username": "me", "password": "s3cret", "serveraddress": "reg.example"}));
    }
    let error = run(&store, "other.example/x").failed();
    assert!(error.contains("there are no credentials for other.example; run: docker login other.example"), "{error}");
}

#[test]
fn a_change_that_goes_together_with_others_is_made_again() {
    let (fake, mut spec, update) = with_web();
    let id = recorded("service_inspect")["ID"].as_str().unwrap().to_owned();
    spec["Labels"]["theirs"] = json!("1");
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("other:2");
    let mut moved = recorded("service_inspect");
    (moved["Spec"], moved["Version"]["Index"]) = (spec.clone(), json!(31));
    fake.on_json(&format!("GET /services/{id}"), &moved);
    let refused = || Reply::error(500, "rpc error: update out of sequence");
    let taken = || Reply::json(&json!({"Warnings": null}));
    for line in [&["service", "update", "-d", "--label-add", "ours=2", "web"][..], &["service", "scale", "-d", "web=7"]]
    {
        let before = fake.seen(&update).len();
        fake.on(&update, [refused(), taken()]);
        fake.run(line).ok();
        let seen = fake.seen(&update)[before..].to_vec();
        assert_eq!(seen.iter().map(|seen| &*seen.query["version"]).collect::<Vec<_>>(), ["26", "31"]);
        let mut expected = spec.clone();
        match line[1] {
            "update" => expected["Labels"]["ours"] = json!("2"),
            _ => expected["Mode"]["Replicated"]["Replicas"] = json!(7),
        }
        assert_eq!(seen[1].body, expected);
    }
    // Two images do not go together.
    fake.on(&update, [refused(), taken()]);
    let error = fake.run(&["service", "update", "-d", "--image", "mine:3", "--no-resolve-image", "web"]).failed();
    assert!(error.contains("update out of sequence") && error.contains("run the command again"), "{error}");
}

#[test]
fn labels_of_a_node_are_changed_again_on_what_others_left() {
    let fake = with_swarm();
    let update = format!("POST /nodes/{NODE}/update");
    let refused = || Reply::error(500, "update out of sequence");
    fake.on(&update, [refused(), refused(), Reply::bytes(Vec::new())]);
    fake.run(&["node", "update", "--label-add", "zone=east", NODE]).ok();
    assert_eq!(fake.seen(&update).len(), 3);
    fake.on(&update, [refused(), Reply::bytes(Vec::new())]);
    let error = fake.run(&["node", "update", "--availability", "drain", NODE]).failed();
    assert!(error.contains("run the command again"), "{error}");
}

#[test]
fn the_progress_of_an_update_is_no_change_by_somebody() {
    let (fake, spec, update) = with_web();
    let mut moved = recorded("service_inspect");
    moved["Spec"] = spec;
    moved["Version"]["Index"] = json!(31);
    let id = moved["ID"].as_str().unwrap().to_owned();
    fake.on_json(&format!("GET /services/{id}"), &moved);
    let refused = Reply::error(500, "rpc error: update out of sequence");
    fake.on(&update, [refused, Reply::json(&json!({"Warnings": null}))]);
    fake.run(&["service", "scale", "-d", "web=5"]).ok();
    let versions: Vec<_> = fake.seen(&update).iter().map(|seen| seen.query["version"].clone()).collect();
    assert_eq!(versions, ["26", "31"]);
}

#[test]
fn a_rollback_names_a_version_of_the_history() {
    let (fake, _, update) = with_web();
    let rollback = update.replace("/services/", "/swarmd/services/").replace("/update", "/rollback");
    fake.on(&rollback, [Reply::bytes(Vec::new())]);
    assert_eq!(fake.run(&["service", "rollback", "-d", "--to", "3", "web"]).ok(), "web\n");
    let seen = &fake.seen(&rollback)[0];
    assert_eq!((&*seen.query["to"], &*seen.query["version"]), ("3", "26"));
    assert!(fake.seen(&update).is_empty());
}

#[test]
fn a_change_refuses_when_something_moved_since_the_plan() {
    let (fake, spec, update) = with_web();
    let node = |version: u64| json!({"ID": "n1", "Version": {"Index": version}, "Description": {"Hostname": "n1"}});
    fake.on_json("GET /services", &json!([{"ID": "s1", "Version": {"Index": 26}, "Spec": spec}]))
        .on_json("GET /nodes", &json!([node(9)]));
    for line in [
        &["service", "update", "-d", "--check-version", "25", "--replicas", "3", "web"][..],
        &["service", "rollback", "-d", "--check-version", "25", "web"],
        &["service", "rollback", "-d", "--check-version", "25", "--to", "1", "web"],
        &["service", "scale", "-d", "--check-version", "25", "web=3"],
        &["service", "create", "-d", "--check-version", "25", "--no-resolve-image", "nginx:1"],
        &["node", "drain", "--check-version", "25", "n1"],
    ] {
        let error = fake.run(line).failed();
        let told = "changed since the plan: it is at version 26, the plan at 25\nNothing was done.";
        assert!(error.contains(told), "{error}");
    }
    let error = fake.run(&["service", "scale", "-d", "--check-version", "27", "web=3"]).failed();
    assert!(error.contains("no service or node is at version 27 any more"), "{error}");
    fake.on_json("GET /nodes", &json!([node(30)]));
    let error = fake.run(&["service", "scale", "-d", "--check-version", "26", "web=3"]).failed();
    assert!(error.contains("node n1 changed since the plan: it is at version 30"), "{error}");
    fake.on_json("GET /nodes", &json!([node(9)]));
    assert!(fake.seen(&update).is_empty());
    fake.run(&["service", "scale", "-d", "--check-version", "26", "web=3"]).ok();
    assert_eq!(fake.seen(&update)[0].query["version"], "26");
    let error = fake.run(&["service", "scale", "--check-version", "26", "web=3", "api=2"]).failed();
    assert!(error.contains("one at a time"), "{error}");
    let error = fake.run(&["node", "drain", "--check-version", "26", "n1", "n2"]).failed();
    assert_eq!(error, "Error: --check-version belongs to the plan of one node: drain one at a time\n");
}

#[test]
fn rebalance_asks_for_each_service_and_goes_on_after_one_that_is_not_there() {
    let fake = Fake::start();
    fake.on_json("POST /swarmd/services/web/rebalance", &json!(null))
        .on_json("POST /swarmd/services/api/rebalance", &json!(null));
    assert_eq!(fake.run(&["service", "rebalance", "web", "api"]).ok(), "web\napi\n");
    let ran = fake.run(&["service", "rebalance", "nothing", "web"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("web\n", "Error: no such service: nothing\n"));
    assert_eq!(ran.code, Some(1));
}
