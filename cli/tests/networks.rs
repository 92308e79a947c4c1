//! Networks, and the services in them.

mod support;

use std::{io::Write, process::Stdio};

use serde_json::{Value, json};
use support::{Fake, Ran, Reply, recorded};

const ID: &str = "sg0up8clyateog83lor407pz0";

/// A network of the swarm, as Docker's engine shows it.
fn network() -> Value {
    json!({
        "Name": "front", "Id": ID, "Created": "2026-11-22T11:43:18.311694753Z", "Scope": "swarm", "Driver": "overlay",
        "EnableIPv4": true, "EnableIPv6": false, "Internal": false, "Attachable": true, "Ingress": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]},
        "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": null,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"}, "Labels": {"a": "b"},
    })
}

#[test]
fn a_network_is_made_and_removed() {
    let fake = Fake::start();
    fake.on_json("POST /networks/create", &json!({"Id": ID, "Warning": ""}));
    let line = ["network", "create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "--label", "a=b", "front"];
    assert_eq!(fake.run(&line).ok(), format!("{ID}\n"));
    let body = &fake.seen("POST /networks/create")[0].body;
    assert_eq!(
        (&body["Name"], &body["Driver"], &body["Labels"]),
        (&json!("front"), &json!("overlay"), &json!({"a": "b"}))
    );
    assert_eq!(body["IPAM"]["Config"], json!([{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]));
    let text = "network option 'frob' is not available";
    fake.on("POST /networks/create", [Reply::error(501, text)]);
    assert_eq!(fake.run(&["network", "create", "-o", "frob", "x"]).failed(), format!("Error: {text}\n"));

    let used = "network a is in use by service web";
    fake.on("DELETE /networks/a", [Reply::error(400, used)]).on("DELETE /networks/b", [Reply::bytes(Vec::new())]);
    let ran = fake.run(&["network", "rm", "a", "nope", "b"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "b\n"));
    assert_eq!(ran.stderr, format!("Error: {used}\nError: no such network: nope\n"));
    assert_eq!(fake.run(&["network", "rm", "--force", "nope", "b"]).ok(), "b\n");
}

#[test]
fn networks_are_listed_and_shown() {
    let fake = Fake::start();
    // As an old engine shows its own.
    let own = json!({"Name": "bridge", "Id": "17b4ee15f8b3aa", "Created": "2026-11-22T11:43:18Z", "Scope": "local",
        "Driver": "bridge", "IPAM": {"Driver": "default", "Options": null, "Config": null}, "Labels": null,
        "Options": null, "Containers": {}});
    fake.on_json("GET /networks", &json!([network(), own]));
    assert_eq!(
        fake.run(&["network", "ls"]).ok(),
        "\
NETWORK ID     NAME      DRIVER    SCOPE     SUBNETS
17b4ee15f8b3   bridge    bridge    local
sg0up8clyate   front     overlay   swarm     10.77.0.0/24
"
    );
    let line = ["network", "ls", "-q", "--no-trunc", "--filter", "name=front"];
    assert_eq!(fake.run(&line).ok(), format!("17b4ee15f8b3aa\n{ID}\n"));
    assert_eq!(fake.seen("GET /networks")[1].query["filters"], r#"{"name":{"front":true}}"#);

    let mut shown = network();
    shown["Peers"] = json!([{"Name": "beta", "IP": "10.0.0.9"}]);
    shown["Services"] = json!({"web": {"VIP": "10.77.0.2", "Ports": ["Target: 80, Publish: 8080"], "LocalLBIndex": 0,
        "Tasks": [{"Name": "web.1.x", "EndpointID": "x", "EndpointIP": "10.77.0.3", "Info": {"Host IP": "10.0.0.9"}}]}});
    shown["Containers"] = json!({"c": {"Name": "web.1.x", "EndpointID": "e", "IPv4Address": "10.77.0.3/24"}});
    fake.on_json("GET /networks/front", &shown);
    let json: Value = serde_json::from_str(&fake.run(&["network", "inspect", "front"]).ok()).unwrap();
    assert_eq!(json, json!([shown]));
    let page = fake.run(&["network", "inspect", "--pretty", "-v", "front"]).ok();
    assert_eq!(
        page,
        format!(
            "\
ID:             {ID}
Name:           front
Labels:
 a=b
Created at:     2026-11-22T11:43:18.311694753Z
Driver:         overlay
Scope:          swarm
Options:
 com.docker.network.driver.overlay.vxlanid_list=4097
Attachable:     true
Subnet:         10.77.0.0/24
 Gateway:       10.77.0.1
Nodes:
 beta:          10.0.0.9
Service:        web
 VIP:           10.77.0.2
 Ports:         Target: 80, Publish: 8080
 Task:          10.77.0.3 web.1.x
Containers on this node:
 web.1.x:       10.77.0.3/24
"
        )
    );
    assert_eq!(fake.seen("GET /networks/front")[1].query["verbose"], "true");
    assert_eq!(fake.run(&["network", "inspect", "nope"]).failed(), "Error: no such network: nope\n");
}

#[test]
fn networks_are_pruned_when_a_person_says_so() {
    let fake = Fake::start();
    fake.on_json("POST /networks/prune", &json!({"NetworksDeleted": ["old", "older"]}));
    let line = ["network", "prune", "--force", "--filter", "until=24h"];
    assert_eq!(fake.run(&line).ok(), "old\nolder\n");
    assert_eq!(fake.seen("POST /networks/prune")[0].query["filters"], r#"{"until":{"24h":true}}"#);
    let with_input = |input: &[u8]| {
        let mut command = fake.command(&["network", "prune"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("swarmctl is there");
        child.stdin.take().expect("it is a pipe").write_all(input).expect("it reads");
        Ran::from(child.wait_with_output().expect("it ends"))
    };
    for (input, removed) in [(&b"n\n"[..], ""), (b"", ""), (b"y\n", "old\nolder\n")] {
        let ran = with_input(input);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), removed));
        assert!(ran.stderr.starts_with("WARNING! This will remove all networks"), "{}", ran.stderr);
    }
    assert_eq!(fake.seen("POST /networks/prune").len(), 2);
}

#[test]
fn a_service_joins_networks_by_their_ids() {
    let fake = Fake::start();
    fake.on_json("GET /networks/front", &network())
        .on_json("GET /networks/host", &json!({"Name": "host", "Id": "host", "Scope": "swarm"}))
        .on_json("POST /services/create", &json!({"ID": "s1"}));
    let create = ["service", "create", "-d", "--no-resolve-image"];
    let line = [&create[..], &["--network", "name=front,alias=www", "x"]].concat();
    assert_eq!(fake.run(&line).ok(), "s1\n");
    assert_eq!(fake.run(&[&create[..], &["--network", "host", "x"]].concat()).ok(), "s1\n");
    assert_eq!(fake.seen("GET /networks/host")[0].query["scope"], "swarm");
    let made = fake.seen("POST /services/create");
    let networks = |number: usize| made[number].body["TaskTemplate"]["Networks"].clone();
    assert_eq!(networks(0), json!([{"Target": ID, "Aliases": ["www"]}]));
    assert_eq!(networks(1), json!([{"Target": "host"}]));
    let error = fake.run(&[&create[..], &["--network", "nope", "x"]].concat()).failed();
    assert_eq!(error, "Error: network not found: nope\n`swarmctl network ls` lists all networks.\n");
}

#[test]
fn the_networks_of_a_service_are_changed_and_shown() {
    let fake = Fake::start();
    let web = recorded("service_inspect");
    assert_eq!(web["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": ID}]));
    let back = json!({"Name": "back", "Id": "2mpkrntjpw6aif4hho0w74222", "Scope": "swarm"});
    let update = format!("POST /services/{}/update", web["ID"].as_str().unwrap());
    fake.on_json("GET /services/web", &web)
        .on_json("GET /tasks", &json!([]))
        .on_json("GET /networks/front", &network())
        .on_json("GET /networks/back", &back)
        .on_json("GET /networks", &json!([network(), back]))
        .on_json(&update, &json!({}));
    let line = ["service", "update", "-d", "--network-rm", "front", "--network-add", "back", "web"];
    assert_eq!(fake.run(&line).ok(), "web\n");
    let mut expected = web["Spec"].clone();
    expected["TaskTemplate"]["Networks"] = json!([{"Target": "2mpkrntjpw6aif4hho0w74222"}]);
    assert_eq!(fake.seen(&update)[0].body, expected);
    let page = fake.run(&["service", "inspect", "--pretty", "web"]).ok();
    assert!(page.contains("Networks:       front\nVirtual IPs:\n front:         10.77.0.2/24\n"), "{page}");
}
