use std::net::IpAddr;

use serde_json::{Value, json};
use swarm_model::{DesiredState, NodeId, PortProtocol};

use super::*;
use crate::{
    executor::NodeIdentity,
    testing::{assigned_spec, assigned_task},
};

/// A folder that no test reads or writes.
fn folder() -> Folder {
    Folder::new(std::path::Path::new("/mem"), NodeId(3))
}

fn body(request: &ContainerRequest) -> Result<ContainerCreateBody, String> {
    super::body(request, &folder())
}

fn check(request: &ContainerRequest) -> Result<(), String> {
    super::check(request, &folder())
}

fn request(container: Value, ports: Value) -> ContainerRequest {
    let mut spec = assigned_spec("hello:1");
    spec.task = serde_json::from_value(json!({ "ContainerSpec": container })).expect("a task spec");
    spec.ports = serde_json::from_value(ports).expect("ports");
    let bind_addr = Some(IpAddr::from([127, 0, 0, 2]));
    let node = NodeIdentity { id: NodeId(3), hostname: "one".into(), platform: Default::default(), bind_addr };
    ContainerRequest {
        node: node.into(),
        task: assigned_task(7, DesiredState::Running),
        spec: spec.into(),
        objects: [].into(),
    }
}

fn built(container: Value) -> Value {
    serde_json::to_value(body(&request(container, json!([]))).expect("a body")).expect("JSON")
}

#[test]
fn a_plain_task_asks_for_little_and_carries_swarms_labels() {
    let body = built(json!({ "Image": "hello:1", "Labels": { "a": "b", "com.docker.swarm.node.id": "forged" } }));
    let task = assigned_task(7, DesiredState::Running);
    assert_eq!(body["Image"], "hello:1");
    assert_eq!(
        body["Labels"],
        json!({
            "a": "b",
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": task.id.to_string(),
            "com.docker.swarm.task.name": format!("web.1.{}", task.id),
            "com.docker.swarm.node.id": NodeId(3).to_string(),
            "com.docker.swarm.service.id": task.service.to_string(),
            "com.docker.swarm.service.name": "web",
        })
    );
    for absent in ["Entrypoint", "Cmd", "Env", "Hostname", "User", "Healthcheck"] {
        assert_eq!(body[absent], Value::Null, "{absent}");
    }
    assert_eq!(body["HostConfig"], json!({ "ReadonlyRootfs": false }));
}

#[test]
fn each_field_reaches_the_engine() {
    let body = built(json!({
        "Image": "hello:1", "Command": ["/hello"], "Args": ["-v"], "Hostname": "{{.Task.Slot}}-{{.Node.Hostname}}",
        "Env": ["NAME={{.Task.Name}}"], "Dir": "/srv", "User": "1:2", "Groups": ["adm"], "Init": true,
        "StopSignal": "SIGQUIT", "StopGracePeriod": 3_000_000_000_i64, "TTY": true, "OpenStdin": true, "ReadOnly": true,
        "Hosts": ["10.0.0.1 a b"], "DNSConfig": { "Nameservers": ["1.1.1.1"], "Search": ["x"], "Options": ["y"] },
        "Sysctls": { "net.core.somaxconn": "1" }, "CapabilityAdd": ["CAP_NET_RAW"], "CapabilityDrop": ["ALL"],
        "Ulimits": [{ "Name": "nofile", "Soft": 1, "Hard": 2 }], "OomScoreAdj": 5,
        "Privileges": { "NoNewPrivileges": true, "SELinuxContext": null, "Seccomp": { "Mode": "unconfined" } },
        "Healthcheck": { "Test": ["CMD", "x"], "Interval": 1_000_000_000, "Retries": 2 },
        "Mounts": [
            { "Type": "bind", "Source": "/{{.Node.Hostname}}", "Target": "/a", "BindOptions": { "Propagation": "rslave" } },
            { "Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": { "NoCopy": true,
              "Labels": { "s": "{{.Service.Name}}" }, "DriverConfig": { "Name": "local", "Options": { "o": "{{.Task.Slot}}" } } } },
            { "Type": "tmpfs", "Target": "/c", "TmpfsOptions": { "SizeBytes": 4096, "Mode": 448 } },
        ],
    }));
    let task = assigned_task(7, DesiredState::Running);
    assert_eq!(body["Entrypoint"], json!(["/hello"]));
    assert_eq!(body["Cmd"], json!(["-v"]));
    assert_eq!(body["Hostname"], "1-one");
    assert_eq!(body["Env"], json!([format!("NAME=web.1.{}", task.id)]));
    assert_eq!((&body["WorkingDir"], &body["User"]), (&json!("/srv"), &json!("1:2")));
    assert_eq!((&body["StopSignal"], &body["StopTimeout"]), (&json!("SIGQUIT"), &json!(3)));
    assert_eq!((&body["Tty"], &body["OpenStdin"]), (&json!(true), &json!(true)));
    assert_eq!(body["Healthcheck"], json!({ "Test": ["CMD", "x"], "Interval": 1_000_000_000, "Retries": 2 }));
    let host = &body["HostConfig"];
    assert_eq!(host["ExtraHosts"], json!(["a:10.0.0.1", "b:10.0.0.1"]));
    assert_eq!(
        (&host["Dns"], &host["DnsSearch"], &host["DnsOptions"]),
        (&json!(["1.1.1.1"]), &json!(["x"]), &json!(["y"]))
    );
    assert_eq!(host["Sysctls"], json!({ "net.core.somaxconn": "1" }));
    assert_eq!((&host["CapAdd"], &host["CapDrop"]), (&json!(["CAP_NET_RAW"]), &json!(["ALL"])));
    assert_eq!(host["Ulimits"], json!([{ "Name": "nofile", "Soft": 1, "Hard": 2 }]));
    assert_eq!((&host["GroupAdd"], &host["Init"]), (&json!(["adm"]), &json!(true)));
    assert_eq!((&host["OomScoreAdj"], &host["ReadonlyRootfs"]), (&json!(5), &json!(true)));
    assert_eq!(host["SecurityOpt"], json!(["seccomp=unconfined", "no-new-privileges"]));
    assert_eq!(
        host["Mounts"],
        json!([
            { "Type": "bind", "Source": "/one", "Target": "/a", "ReadOnly": false, "BindOptions": { "Propagation": "rslave" } },
            { "Type": "volume", "Source": "v", "Target": "/b", "ReadOnly": false, "VolumeOptions": { "NoCopy": true,
              "Labels": { "s": "web" }, "DriverConfig": { "Name": "local", "Options": { "o": "1" } } } },
            { "Type": "tmpfs", "Target": "/c", "ReadOnly": false, "TmpfsOptions": { "SizeBytes": 4096, "Mode": 448 } },
        ])
    );
    assert_eq!(host["RestartPolicy"], Value::Null);
}

#[test]
fn the_container_is_told_its_generic_resources() {
    let mut request = request(json!({ "Image": "x", "Env": ["A=1"] }), json!([]));
    request.task.generic_resources = serde_json::from_value(json!([
        { "NamedResourceSpec": { "Kind": "gpu", "Value": "uuid1" } },
        { "NamedResourceSpec": { "Kind": "gpu", "Value": "uuid2" } },
        { "DiscreteResourceSpec": { "Kind": "SSD", "Value": 3 } },
    ]))
    .expect("generic resources");
    let env = body(&request).expect("a body").env.expect("an environment");
    assert_eq!(env, ["A=1", "DOCKER_RESOURCE_GPU=uuid1,uuid2", "DOCKER_RESOURCE_SSD=3"]);
}

#[test]
fn limits_log_driver_and_network() {
    let mut request = request(json!({ "Image": "x" }), json!([]));
    let mut spec = (*request.spec).clone();
    spec.task = serde_json::from_value(json!({
        "ContainerSpec": { "Image": "x" },
        "Resources": { "Limits": { "NanoCPUs": 500_000_000, "MemoryBytes": 8_388_608, "Pids": 9 },
                       "Reservations": { "MemoryBytes": 4_194_304 }, "SwapBytes": 8, "MemorySwappiness": 0 },
        "Networks": [{ "Target": "host" }],
        "LogDriver": { "Name": "json-file", "Options": { "max-size": "1m" } },
    }))
    .expect("a task spec");
    request.spec = spec.into();
    let body = serde_json::to_value(body(&request).expect("a body")).expect("JSON");
    assert_eq!(
        body["HostConfig"],
        json!({
            "NanoCpus": 500_000_000, "Memory": 8_388_608, "PidsLimit": 9, "NetworkMode": "host", "ReadonlyRootfs": false,
            "MemorySwap": 8_388_616, "MemorySwappiness": 0,
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m" } },
        })
    );
}

#[test]
fn host_mode_ports_are_bound_to_the_nodes_own_address() {
    let request = request(
        json!({ "Image": "x" }),
        json!([
            { "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host" },
            { "TargetPort": 80, "PublishMode": "host" },
            { "TargetPort": 53, "PublishedPort": 53, "Protocol": "udp", "PublishMode": "host" },
            { "TargetPort": 99, "PublishedPort": 99, "PublishMode": "ingress" },
        ]),
    );
    assert_eq!(request.spec.ports[2].protocol, PortProtocol::Udp);
    let body = serde_json::to_value(body(&request).expect("a body")).expect("JSON");
    let at = |port: &str| json!({ "HostIp": "127.0.0.2", "HostPort": port });
    assert_eq!(body["HostConfig"]["PortBindings"], json!({ "80/tcp": [at("8080"), at("")], "53/udp": [at("53")] }));
    assert_eq!(body["ExposedPorts"], json!({ "80/tcp": {}, "53/udp": {} }));
}

#[test]
fn secrets_and_configs_are_mounted_from_the_folder_of_the_node() {
    let id = swarm_model::ObjectId(9).to_string();
    let file = |name: &str| json!({ "Name": name, "UID": "0", "GID": "0", "Mode": 292 });
    let found = built(json!({
        "Image": "x",
        "Mounts": [{ "Type": "volume", "Source": "data", "Target": "/data" }],
        "Secrets": [{ "SecretID": id, "SecretName": "key", "File": file("key") }],
        "Configs": [{ "ConfigID": id, "ConfigName": "app", "File": file("/etc/app") }],
    }));
    let mounts: Vec<_> = found["HostConfig"]["Mounts"].as_array().expect("mounts").iter().skip(1).collect();
    let (node, task) = (NodeId(3), swarm_model::TaskId(7));
    for (number, (mount, target)) in mounts.into_iter().zip(["/run/secrets/key", "/etc/app"]).enumerate() {
        let source = format!("/mem/{node}/{task}/{number}");
        assert_eq!(*mount, json!({ "Type": "bind", "ReadOnly": true, "Source": source, "Target": target }));
    }
}

#[test]
fn what_is_not_supported_is_said() {
    let refused = |container: Value| check(&request(container, json!([]))).expect_err("refused");
    for (container, part) in [
        (json!({ "Image": "x", "Secrets": [{ "SecretID": "a" }] }), "Secrets"),
        (json!({ "Image": "x", "Privileges": { "CredentialSpec": { "File": "x" } } }), "CredentialSpec is for Windows"),
        (json!({ "Image": "x", "Isolation": "hyperv" }), "Isolation"),
        (json!({ "Image": "x", "Novelty": 1 }), "ContainerSpec.Novelty"),
        (json!({ "Image": "x", "Hosts": ["10.0.0.1"] }), "should be an address and a name"),
        (json!({ "Image": "x", "Env": ["A={{.Foo}}"] }), "unknown field '.Foo'"),
        (json!({ "Image": "x", "Mounts": [{ "Type": "bind", "BindOptions": { "Propagation": "odd" } }] }), "odd"),
    ] {
        let error = refused(container);
        assert!(error.contains(part), "{error}");
    }
    let mut overlay = request(json!({ "Image": "x" }), json!([]));
    let mut spec = (*overlay.spec).clone();
    spec.task.networks = serde_json::from_value(json!([{ "Target": "backend" }])).expect("networks");
    overlay.spec = spec.into();
    assert_eq!(check(&overlay), Err("network backend is neither an id nor one of bridge, host and none".into()));
    // What the CLI always sends says nothing.
    let plain = json!({ "Image": "x", "Secrets": [], "Configs": null, "Isolation": "default",
                        "Privileges": { "CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false } });
    assert_eq!(check(&request(plain, json!([]))), Ok(()));
}
