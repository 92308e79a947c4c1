//! Networks, and the services and tasks in them.

use proptest::prelude::*;
use swarm_model::{NetworkAddr, ObjectKind};

use super::*;

/// Requests and answers of the real CLI and the real engine.
fn recorded(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/docker-api/tests/recorded/");
    let text = std::fs::read(format!("{folder}{name}.json")).expect("a recording");
    serde_json::from_slice(&text).expect("JSON")
}

/// A network of which nothing but the name is said.
fn overlay(name: &str) -> Value {
    json!({"Name": name, "Driver": "overlay"})
}

async fn add(plane: &TestPlane, body: &Value) -> String {
    let answer = post(plane, "/networks/create", body).await.ok();
    let json = answer.json();
    assert_eq!((answer.status, &json["Warning"]), (201, &json!("")));
    json["Id"].as_str().expect("an id").to_owned()
}

async fn show(plane: &TestPlane, name: &str) -> Value {
    get(plane, &format!("/networks/{name}")).await.ok().json()
}

/// The subnets of a network.
async fn subnets(plane: &TestPlane, name: &str) -> Vec<String> {
    let configs = show(plane, name).await["IPAM"]["Config"].clone();
    let text = |config: &Value| config["Subnet"].as_str().expect("a subnet").to_owned();
    configs.as_array().expect("a list").iter().map(text).collect()
}

/// The VXLAN of a network.
async fn vni(plane: &TestPlane, name: &str) -> String {
    let options = show(plane, name).await["Options"].clone();
    options["com.docker.network.driver.overlay.vxlanid_list"].as_str().expect("a number").to_owned()
}

/// A service in these networks.
fn joining(name: &str, networks: Value) -> Value {
    let mut spec = plain(name);
    spec["TaskTemplate"]["Networks"] = networks;
    spec
}

#[tokio::test]
async fn a_network_of_the_real_cli_is_shown_as_docker_shows_it() {
    let plane = cluster();
    let id = add(&plane, &recorded("network_create_cli")["req_body"]).await;
    assert_eq!(id.len(), 25);
    let mut expected = recorded("network_inspect")["resp_body"].clone();
    let shown = get(&plane, "/networks/sm23027net?scope=swarm").await.ok().json();
    expected["Id"] = json!(id);
    expected["Created"] = shown["Created"].clone();
    // Docker 28.2 says so of all networks of the swarm, although they have IPv4 addresses.
    assert_eq!(expected["EnableIPv4"], false);
    expected["EnableIPv4"] = json!(true);
    assert_eq!(shown, expected);
    for text in ["SM23027net", &id, &id[..12]] {
        assert_eq!(show(&plane, text).await, expected);
    }
    add(&plane, &recorded("network_create_stack")["req_body"]).await;
    assert_eq!(subnets(&plane, "sm23027st_n").await, ["10.0.1.0/24"]);

    let gone = delete(&plane, "/networks/sm23027net").await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    for answer in [get(&plane, "/networks/sm23027net").await, delete(&plane, "/networks/sm23027net").await] {
        assert_eq!(answer.error(404), "network sm23027net not found");
    }
}

#[tokio::test]
async fn the_next_subnet_and_the_lowest_vxlan_are_chosen() {
    let plane = cluster();
    for (name, subnet, number) in
        [("a", "10.0.1.0/24", "4097"), ("b", "10.0.2.0/24", "4098"), ("c", "10.0.3.0/24", "4099")]
    {
        add(&plane, &overlay(name)).await;
        assert_eq!(subnets(&plane, name).await, [subnet]);
        assert_eq!(vni(&plane, name).await, number);
    }
    delete(&plane, "/networks/a").await.ok();
    let mut own = overlay("own");
    own["IPAM"] = json!({"Config": [{"Subnet": "10.0.4.0/23"}]});
    add(&plane, &own).await;
    add(&plane, &overlay("d")).await;
    assert_eq!(subnets(&plane, "d").await, ["10.0.6.0/24"], "behind the last one, and beside the user's");
    assert_eq!(vni(&plane, "own").await, "4097");
    assert_eq!(vni(&plane, "d").await, "4100");
}

#[tokio::test]
async fn pools_of_the_cluster_are_used_up_to_the_last_subnet() {
    let plane = cluster();
    let mut given = Cluster::clone(plane.state().cluster().expect("a cluster"));
    given.overlay.addr_pools = vec!["10.20.0.0/24".into(), "10.30.0.0/25".into()];
    given.overlay.subnet_size = 25;
    let plane = cluster_like(given, ENTRY_VERSION);
    for (name, subnet) in [("a", "10.20.0.128/25"), ("b", "10.30.0.0/25"), ("c", "10.20.0.0/25")] {
        add(&plane, &overlay(name)).await;
        assert_eq!(subnets(&plane, name).await, [subnet]);
    }
    let error = post(&plane, "/networks/create", &overlay("d")).await.error(400);
    assert!(
        error
            .starts_with("no subnet of size 25 is free in the address pools of the swarm (10.20.0.0/24, 10.30.0.0/25)"),
        "{error}"
    );
    delete(&plane, "/networks/b").await.ok();
    add(&plane, &overlay("d")).await;
    assert_eq!(subnets(&plane, "d").await, ["10.30.0.0/25"]);
}

#[tokio::test]
async fn all_that_a_user_chooses_is_kept_and_shown() {
    let plane = cluster();
    let config = json!([
        {"Subnet": "fd12::/64"},
        {"Subnet": "10.7.0.0/24", "IPRange": "10.7.0.128/25", "Gateway": "10.7.0.9", "AuxiliaryAddresses": {"nas": "10.7.0.200"}},
    ]);
    let options =
        json!({"com.docker.network.driver.mtu": "1400", "com.docker.network.driver.overlay.vxlanid_list": "5000"});
    let body = json!({"Name": "own", "Driver": "overlay", "CheckDuplicate": true, "Internal": true, "EnableIPv6": true,
        "IPAM": {"Driver": "default", "Config": config}, "Options": options, "Labels": {"a": "b"}});
    add(&plane, &body).await;
    let shown = show(&plane, "own").await;
    assert_eq!(shown["IPAM"]["Config"], json!([config[1], {"Subnet": "fd12::/64", "Gateway": "fd12::1"}]));
    assert_eq!((&shown["Options"], &shown["Labels"]), (&options, &body["Labels"]));
    assert_eq!(
        (&shown["Internal"], &shown["Attachable"], &shown["EnableIPv6"]),
        (&json!(true), &json!(false), &json!(true))
    );
    let kept = plane.state().objects(ObjectKind::Network).next().expect("it is there").clone();
    assert_eq!(kept.content.as_network().map(|network| (network.mtu, network.vni)), Some((Some(1400), 5000)));

    let mut six = overlay("six");
    six["EnableIPv6"] = json!(true);
    add(&plane, &six).await;
    let found = subnets(&plane, "six").await;
    assert!(found[0] == "10.0.1.0/24" && found[1].starts_with("fd") && found[1].ends_with("::/64"), "{found:?}");
    assert_ne!(subnets(&plane, "own").await[1], found[1]);
}

#[tokio::test]
async fn what_a_network_cannot_be_is_refused_by_name() {
    let plane = cluster();
    add(&plane, &overlay("net")).await;
    plane.inner().proposed.clear();
    let with = |field: &str, value: Value| {
        let mut body = overlay("new");
        body[field] = value;
        body
    };
    let ipam = |config: Value| with("IPAM", json!({"Config": [config]}));
    let option = |name: &str, value: &str| with("Options", json!({name: value}));
    for (body, status, part) in [
        (with("Name", json!("")), 400, "name must be provided"),
        (with("Name", json!("a.b")), 400, "DNS name component: 'a.b'"),
        (with("Name", json!("a".repeat(64))), 400, "63 characters or fewer"),
        (with("Name", json!("NET")), 409, "network with name NET already exists"),
        (with("Name", json!("ingress")), 409, "network with name ingress already exists"),
        (with("Name", json!("host")), 403, "operation is not permitted on predefined host network"),
        (with("Driver", json!("macvlan")), 501, "network driver 'macvlan' is not available for networks of the swarm"),
        (with("Scope", json!("local")), 400, "scope 'local' does not fit the driver overlay"),
        (with("Ingress", json!(true)), 501, "leave Ingress (--ingress) out"),
        (with("ConfigOnly", json!(true)), 501, "(--config-only) belongs to one node"),
        (with("ConfigFrom", json!({"Network": "x"})), 501, "takes no configuration from another network ('x')"),
        (with("EnableIPv4", json!(false)), 501, "without IPv4 addresses"),
        (with("Labels", json!({"com.docker.swarm.predefined": "true"})), 403, "cannot be applied by users"),
        (with("IPAM", json!({"Driver": "dhcp"})), 501, "IPAM driver 'dhcp' is not available"),
        (with("IPAM", json!({"Options": {"a": "b"}})), 501, "IPAM option 'a' is not available"),
        (ipam(json!({"Gateway": "10.9.0.1"})), 400, "need the subnet that they are in"),
        (ipam(json!({"Subnet": "10.9.0.0"})), 400, "invalid subnet '10.9.0.0'"),
        (ipam(json!({"Subnet": "10.9.0.7/24"})), 400, "the subnet is 10.9.0.0/24"),
        (ipam(json!({"Subnet": "10.9.0.0/24", "Gateway": "10.8.0.1"})), 400, "gateway 10.8.0.1 is no address"),
        (ipam(json!({"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.7/25"})), 400, "the IP range is 10.9.0.0/25"),
        (ipam(json!({"Subnet": "10.9.0.0/24", "IPRange": "10.8.0.0/25"})), 400, "IP range 10.8.0.0/25 is not within"),
        (
            ipam(json!({"Subnet": "10.9.0.0/24", "AuxiliaryAddresses": {"a": "b"}})),
            400,
            "invalid auxiliary address a 'b'",
        ),
        (ipam(json!({"Subnet": "10.0.0.0/16"})), 400, "overlaps a subnet of network net: choose another one"),
        (ipam(json!({"Subnet": "fd12::/64"})), 400, "set EnableIPv6 (--ipv6)"),
        (
            with("IPAM", json!({"Config": [{"Subnet": "10.8.0.0/24"}, {"Subnet": "10.9.0.0/24"}]})),
            400,
            "one subnet of each",
        ),
        (option("encrypted", "maybe"), 400, "encrypted"),
        (option("com.docker.network.driver.mtu", "big"), 400, "a number of bytes"),
        (option("com.docker.network.driver.mtu", "500"), 400, "an MTU is from 1280"),
        (option("com.docker.network.driver.overlay.vxlanid_list", "7"), 400, "one number from 4097 to 16777215"),
        (
            option("com.docker.network.driver.overlay.vxlanid_list", "4097"),
            400,
            "VXLAN 4097 is that of another network",
        ),
        (option("frob", "1"), 501, "network option 'frob' is not available"),
    ] {
        let message = post(&plane, "/networks/create", &body).await.error(status);
        assert!(message.contains(part), "{body}: {message}");
    }
    assert!(plane.inner().proposed.is_empty());
}

#[tokio::test]
async fn a_network_is_encrypted_if_the_option_says_so() {
    let plane = cluster();
    for (name, value, encrypted) in
        [("a", Some(""), true), ("b", Some("true"), true), ("c", Some("false"), false), ("d", None, false)]
    {
        let mut body = overlay(name);
        body["Options"] = value.map_or(Value::Null, |value| json!({"encrypted": value}));
        add(&plane, &body).await;
        let kept = plane.state().objects(ObjectKind::Network).find(|object| object.name == name).cloned();
        let content = kept.as_ref().and_then(|object| object.content.as_network()).map(|network| network.encrypted);
        assert_eq!(content, Some(encrypted), "{name}");
        assert_eq!(show(&plane, name).await["Options"]["encrypted"], value.map_or(Value::Null, Value::from));
    }
}

#[tokio::test]
async fn a_cluster_may_encrypt_networks_that_do_not_say_otherwise() {
    let plane = cluster();
    let mut given = Cluster::clone(plane.state().cluster().expect("a cluster"));
    given.overlay.encrypt_networks = true;
    let plane = cluster_like(given, ENTRY_VERSION);
    add(&plane, &overlay("by-default")).await;
    let mut clear = overlay("clear");
    clear["Options"] = json!({"encrypted": "false"});
    add(&plane, &clear).await;
    assert_eq!(show(&plane, "by-default").await["Options"]["encrypted"], "");
    assert_eq!(show(&plane, "clear").await["Options"]["encrypted"], "false");
    let state = plane.state();
    let encrypted = state
        .objects(ObjectKind::Network)
        .map(|network| (network.name.as_str(), network.content.as_network().is_some_and(|content| content.encrypted)));
    assert_eq!(encrypted.collect::<Vec<_>>(), [("by-default", true), ("clear", false)]);
}

#[tokio::test]
async fn the_network_ingress_is_shown_and_stays_as_it_is() {
    let plane = cluster();
    let list = get(&plane, "/networks").await.ok().json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let shown = show(&plane, "ingress").await;
    assert_eq!(shown, list[0]);
    for (field, value) in [
        ("Driver", json!("overlay")),
        ("Scope", json!("swarm")),
        ("Ingress", json!(true)),
        ("Attachable", json!(false)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let id = shown["Id"].as_str().expect("an id").to_owned();
    assert_eq!(show(&plane, &id[..12]).await, shown);
    for text in ["ingress", &id] {
        let error = delete(&plane, &format!("/networks/{text}")).await.error(403);
        assert!(error.starts_with("ingress is a pre-defined network and cannot be removed"), "{error}");
        let error = post(&plane, "/services/create", &joining("web", json!([{"Target": text}]))).await.error(400);
        assert_eq!(error, "Service cannot be explicitly attached to the ingress network \"ingress\"");
    }
}

#[tokio::test]
async fn networks_that_every_engine_has_are_named_for_services() {
    let plane = cluster();
    for (name, driver) in [("host", "host"), ("bridge", "bridge"), ("none", "null")] {
        // Docker's client asks so, and sends the id that it finds.
        let shown = get(&plane, &format!("/networks/{name}?scope=swarm")).await.ok().json();
        assert_eq!(
            (&shown["Name"], &shown["Driver"], &shown["Scope"]),
            (&json!(name), &json!(driver), &json!("swarm"))
        );
        let spec = joining(&format!("in-{name}"), json!([{"Target": shown["Id"]}]));
        post(&plane, "/services/create", &spec).await.ok();
        let kept = get(&plane, &format!("/services/in-{name}")).await.json();
        assert_eq!(kept["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": name}]));
        assert_eq!(kept["Endpoint"].get("VirtualIPs"), None);
        // Without the scope it is the engine's.
        assert_eq!(get(&plane, &format!("/networks/{name}")).await.error(404), format!("network {name} not found"));
    }
    assert_eq!(get(&plane, "/networks/ingress?scope=local").await.error(404), "network ingress not found");
}

#[tokio::test]
async fn a_service_names_its_networks_by_id_and_has_an_address_in_each() {
    let plane = cluster();
    let (front, back) = (add(&plane, &overlay("front")).await, add(&plane, &overlay("back")).await);
    let spec = joining("web", json!([{"Target": "front", "Aliases": ["www", "a.b"]}, {"Target": back}]));
    let id = post(&plane, "/services/create", &spec).await.ok().json()["ID"].as_str().expect("an id").to_owned();
    let shown = get(&plane, "/services/web").await.json();
    let networks = json!([{"Target": front, "Aliases": ["www", "a.b"]}, {"Target": back}]);
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], networks);
    let ips = json!([{"NetworkID": front, "Addr": "10.0.1.2/24"}, {"NetworkID": back, "Addr": "10.0.2.2/24"}]);
    assert_eq!(shown["Endpoint"]["VirtualIPs"], ips);
    assert_eq!(get(&plane, "/services").await.json()[0]["Endpoint"]["VirtualIPs"], ips);

    // Clients send back what they were shown; a network that goes takes its address along.
    let update = async |networks: Value, field: &str| {
        let shown = get(&plane, "/services/web").await.json();
        let mut spec = shown["Spec"].clone();
        spec["TaskTemplate"].as_object_mut().expect("a template").remove("Networks");
        match field {
            "Networks" => spec["Networks"] = networks,
            _ => spec["TaskTemplate"]["Networks"] = networks,
        }
        post(&plane, &format!("/services/{id}/update?version={}", shown["Version"]["Index"]), &spec).await
    };
    update(json!([{"Target": back}]), "TaskTemplate").await.ok();
    let shown = get(&plane, "/services/web").await.json();
    assert_eq!(shown["Endpoint"]["VirtualIPs"], json!([ips[1]]));
    // The former place for networks.
    update(json!([{"Target": "front"}]), "Networks").await.ok();
    let shown = get(&plane, "/services/web").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{"Target": front}]));
    assert_eq!(shown["Spec"].get("Networks"), None);

    for (networks, status, part) in [
        (json!([{"Target": "nope"}]), 404, "network nope not found"),
        (json!([{"Target": "front"}, {"Target": front}]), 400, "is named twice"),
        (json!([{"Target": "front"}, {"Target": "host"}]), 400, "only one of the networks bridge, host and none"),
        (json!([{"Target": "front", "Aliases": ["a b"]}]), 400, "alias 'a b' in network"),
        (json!([{"Target": "front", "DriverOpts": {"x": "y"}}]), 501, "driver option 'x' of network"),
    ] {
        let message = update(networks, "TaskTemplate").await.error(status);
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_service_gets_no_address_where_none_is_free() {
    let plane = cluster();
    let mut small = overlay("small");
    small["IPAM"] = json!({"Config": [{"Subnet": "10.9.0.0/30"}]});
    add(&plane, &small).await;
    post(&plane, "/services/create", &joining("a", json!([{"Target": "small"}]))).await.ok();
    let error = post(&plane, "/services/create", &joining("b", json!([{"Target": "small"}]))).await.error(400);
    assert!(error.starts_with("network small has no free address in 10.9.0.0/30"), "{error}");
    let mut names = joining("b", json!([{"Target": "small"}]));
    names["EndpointSpec"] = json!({"Mode": "dnsrr"});
    post(&plane, "/services/create", &names).await.ok();
}

#[tokio::test]
async fn tasks_and_networks_show_each_other() {
    let plane = cluster();
    let net = add(&plane, &recorded("network_create_cli")["req_body"]).await;
    let mut spec = joining("web", json!([{"Target": "sm23027net"}]));
    spec["EndpointSpec"] = json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]});
    let service = post(&plane, "/services/create", &spec).await.ok().json()["ID"].as_str().expect("an id").to_owned();
    let task = TaskId::make(plane.now(), plane.random());
    let id: ServiceId = service.parse().expect("an id");
    let addrs = [NetworkAddr { network: net.parse().expect("an id"), addr: "10.77.0.3".parse().expect("an address") }];
    plane.apply(vec![Op::CreateTasks {
        service: id,
        spec_version: plane.state().service(id).expect("made").spec_version,
        desired: DesiredState::Running,
        cause: Cause::Fill,
        beside: None,
        start_at: None,
        restarts: 0,
        tasks: vec![NewTask { id: task, slot: 1, place: Place::On(WORKER), addrs: addrs.into() }],
    }]);
    let shown = get(&plane, &format!("/tasks/{task}")).await.ok().json();
    let mut expected = recorded("task_running")["resp_body"]["NetworksAttachments"].clone();
    for field in ["ID", "Version", "CreatedAt", "UpdatedAt"] {
        expected[0]["Network"][field] = shown["NetworksAttachments"][0]["Network"][field].clone();
    }
    assert_eq!(shown["NetworksAttachments"], expected);
    assert_eq!(get(&plane, "/tasks").await.json()[0]["NetworksAttachments"], expected);
    assert_eq!(expected[0]["Network"]["ID"], json!(net));

    let shown = get(&plane, "/networks/sm23027net?verbose=true").await.ok().json();
    assert_eq!(shown["Peers"], json!([{"Name": "beta", "IP": "10.0.0.9"}]));
    assert_eq!(
        shown["Services"],
        json!({"web": {"VIP": "10.77.0.2", "Ports": ["Target: 80, Publish: 8080"], "LocalLBIndex": 0, "Tasks": [
            {"Name": format!("web.1.{task}"), "EndpointID": task.to_string(), "EndpointIP": "10.77.0.3",
                "Info": {"Host IP": "10.0.0.9"}}]}})
    );
    assert_eq!(show(&plane, "sm23027net").await.get("Services"), None);

    // The service is gone, and its task is being stopped: the network can go.
    delete(&plane, "/services/web").await.ok();
    delete(&plane, "/networks/sm23027net").await.ok();
    assert!(get(&plane, "/networks/sm23027net").await.status == 404);
}

#[tokio::test]
async fn a_network_that_a_service_names_stays() {
    let plane = cluster();
    add(&plane, &overlay("net")).await;
    for (name, users) in [("web", "service web"), ("api", "services api, web")] {
        post(&plane, "/services/create", &joining(name, json!([{"Target": "net"}]))).await.ok();
        assert_eq!(delete(&plane, "/networks/net").await.error(400), format!("network net is in use by {users}"));
    }
}

#[tokio::test]
async fn lists_of_networks_are_filtered() {
    let plane = cluster();
    for name in ["front", "front2", "back"] {
        let mut body = overlay(name);
        body["Labels"] = json!({"tier": name});
        add(&plane, &body).await;
    }
    post(&plane, "/services/create", &joining("web", json!([{"Target": "front"}]))).await.ok();
    let id = show(&plane, "back").await["Id"].as_str().expect("an id").to_owned();
    for (filters, expected) in [
        (json!({}), &["ingress", "front", "front2", "back"][..]),
        (json!({"name": {"ron": true}}), &["front", "front2"]),
        (json!({"name": ["^front$", "^back$"]}), &["front", "back"]),
        (json!({"id": [id[..9]]}), &["back"]),
        (json!({"label": ["tier=front"]}), &["front"]),
        (json!({"driver": ["overlay"], "scope": ["swarm"], "type": ["custom"]}), &["front", "front2", "back"]),
        (json!({"type": ["builtin"]}), &["ingress"]),
        (json!({"driver": ["bridge"]}), &[]),
        (json!({"scope": ["local"]}), &[]),
        (json!({"dangling": ["true"]}), &["front2", "back"]),
        (json!({"dangling": ["0"]}), &["ingress", "front"]),
    ] {
        assert_eq!(filtered(&plane, "/networks", filters.clone()).await.all("/Name"), expected, "{filters}");
    }
    for (filters, part) in [
        (json!({"colour": ["x"]}), "invalid filter 'colour'"),
        (json!({"type": ["odd"]}), "invalid type filter: 'odd'"),
        (json!({"dangling": ["maybe"]}), "invalid dangling filter: 'maybe'"),
    ] {
        let message = filtered(&plane, "/networks", filters).await.error(400);
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn networks_that_nobody_uses_are_pruned() {
    let plane = cluster();
    for name in ["used", "old", "kept"] {
        let mut body = overlay(name);
        body["Labels"] = json!({"name": name});
        add(&plane, &body).await;
    }
    post(&plane, "/services/create", &joining("web", json!([{"Target": "used"}]))).await.ok();
    let prune = async |filters: Value| {
        let text: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
        let request = Request::post(format!("/networks/prune?filters={text}")).body(Body::empty()).expect("a request");
        send(&plane, request).await
    };
    for nothing in
        [json!({"label": ["name=used"]}), json!({"until": ["1970-01-02T00:00:00Z"]}), json!({"until": ["999999h"]})]
    {
        assert_eq!(prune(nothing).await.ok().json(), json!({"NetworksDeleted": null}));
    }
    assert_eq!(prune(json!({"label!": ["name=kept"]})).await.ok().json(), json!({"NetworksDeleted": ["old"]}));
    assert_eq!(prune(json!({})).await.ok().json(), json!({"NetworksDeleted": ["kept"]}));
    assert_eq!(get(&plane, "/networks").await.all("/Name"), ["ingress", "used"]);
    assert_eq!(prune(json!({"until": ["x"]})).await.error(400).split(':').next(), Some("invalid since 'x'"));
    assert_eq!(prune(json!({"until": ["1h", "2h"]})).await.error(400), "more than one until filter specified");
}

#[tokio::test]
async fn what_others_took_meanwhile_is_chosen_anew() {
    let plane = cluster();
    let before = plane.state();
    add(&plane, &overlay("first")).await;
    // This manager does not know of the first network yet.
    plane.inner().leading = Some((1, Some(before)));
    add(&plane, &overlay("second")).await;
    assert_eq!(subnets(&plane, "second").await, ["10.0.2.0/24"]);
    // Nor does the newest state that it reads, twice.
    let before = plane.state();
    add(&plane, &overlay("third")).await;
    plane.inner().outdated_reads = vec![before.clone(), before];
    plane.inner().leading = None;
    add(&plane, &overlay("fourth")).await;
    assert_eq!(subnets(&plane, "fourth").await, ["10.0.4.0/24"]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,4}|overlay|swarm|default|10\\.[0-9]\\.0\\.0/(8|16|24|31|32|33)|fd00::/(8|64|128)|[0-9a-f:./]{0,10}"
            .prop_map(Value::from),
    ];
    let fields = "Name|Driver|Scope|EnableIPv[46]|IPAM|Config|Subnet|IPRange|Gateway|AuxiliaryAddresses|Internal|Options|\
                  Labels|encrypted|com\\.docker\\.network\\.driver\\.mtu|[a-z]{1,3}";
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(fields, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_request_is_answered(mut body in any_json(), config in any_json()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let plane = cluster();
        if let Some(fields) = body.as_object_mut() {
            fields.entry("Name").or_insert("net".into());
            fields.entry("IPAM").or_insert(json!({"Config": [config]}));
        }
        let answer = runtime.block_on(post(&plane, "/networks/create", &body));
        prop_assert!(matches!(answer.status, 201 | 400 | 403 | 409 | 501), "{} {:?}", answer.status, answer.body);
        let is_there = plane.state().objects(ObjectKind::Network).next().is_some();
        prop_assert_eq!(answer.status == 201, is_there);
    }
}
