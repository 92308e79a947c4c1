//! Wrong input: each gets a clear message, changes nothing, and the daemon serves on.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, service},
    http,
    wait::until,
};

/// A service with one field set.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = service("other", 1);
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    spec.pointer_mut(parent).expect("a parent")[field] = value;
    spec
}

#[test]
fn bad_requests_are_refused_with_a_reason() {
    let cluster = Cluster::start("simulated", 1);
    let manager = cluster.manager();
    cluster.create(&service("web", 1));
    let seen = manager.get("/services/web");
    for (spec, status, part) in [
        (service("web", 1), 409, "service web already exists"),
        (service("no spaces", 1), 400, "DNS name component"),
        (with("/TaskTemplate/ContainerSpec", json!({})), 400, "image"),
        (with("/TaskTemplate/Resources", json!({ "Limits": { "MemoryBytes": 4194303 } })), 400, "at least 4MiB"),
        (with("/TaskTemplate/Resources", json!({ "Reservations": { "MemoryBytes": 1 } })), 400, "at least 4MiB"),
        (with("/TaskTemplate/Placement", json!({ "Constraints": ["node.role=worker"] })), 400, "==, !="),
        (with("/TaskTemplate/Placement", json!({ "Constraints": ["node.role == a;b"] })), 400, "a;b"),
        (with("/TaskTemplate/RestartPolicy", json!({ "Delay": "5 parsecs" })), 400, "Delay"),
        (with("/Mode", json!({ "Replicated": { "Replicas": -1 } })), 400, "Replicas"),
        (with("/Labels", json!({ "big": "x".repeat(1 << 20) })), 400, "labels of"),
        (with("/Labels", json!({ "swarmd.rebalence": "on" })), 400, "swarmd.rebalence"),
        (with("/EndpointSpec", json!({ "Ports": [{ "TargetPort": 80, "Protocol": "sctp" }] })), 501, "mode=host"),
    ] {
        let message = manager.refused(status, "POST", "/services/create", Some(&spec));
        assert!(message.contains(part), "{part}: {message}");
    }

    let version = &seen["Version"]["Index"];
    let update = format!("/services/web/update?version={version}");
    manager.call("POST", &update, Some(&service("web", 2))).expect("the first change");
    let message = manager.refused(500, "POST", &update, Some(&service("web", 3)));
    assert!(message.contains("update out of sequence") && message.contains("read it again"), "{message}");
    for (method, target, body, status, part) in [
        ("POST", "/services/web/update", json!({}), 400, "version"),
        ("POST", "/services/none/update?version=1", service("none", 1), 404, "service none not found"),
        ("GET", "/services?filters=%7B", Value::Null, 400, "filter"),
        ("GET", "/nodes/none", Value::Null, 404, "node none not found"),
        ("GET", "/tasks/none", Value::Null, 404, "task none not found"),
        ("GET", "/services/web/nothing", Value::Null, 404, "page not found"),
        ("GET", "/v9.99/services", Value::Null, 400, "1.50"),
        ("POST", "/swarm/init", json!({}), 503, "already part of a swarm"),
        ("GET", "/containers/json", Value::Null, 501, "simulated"),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let message = manager.refused(status, method, target, body.as_ref());
        assert!(message.contains(part), "{method} {target}: {message}");
    }

    let send = |kind, body: &[u8]| {
        let answer = http::send_bytes(&manager.socket(), "POST", "/services/create", kind, body).expect("an answer");
        (answer.status, answer.message())
    };
    let json = Some("application/json");
    for (kind, body, status, part) in [
        (json, &b""[..], 400, "no body"),
        (json, b"{\"Name\":", 400, "invalid JSON"),
        (json, b"\xff\xfe", 400, "invalid JSON"),
        (Some("text/plain"), b"{}", 400, "Content-Type"),
        (json, &vec![b'['; 1 << 20], 400, "invalid JSON"),
        (json, &vec![b' '; 9 << 20], 413, "too large"),
    ] {
        let (is, message) = send(kind, body);
        assert!(is == status && message.contains(part), "{part}: {is} {message}");
    }

    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET", b"GET / HTTP/9.9\r\n\r\n", &[b'A'; 1 << 20]] {
        let mut stream = UnixStream::connect(manager.socket()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        // It may be refused before all of it is written.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 2)]));
}

#[test]
fn joining_with_the_wrong_token_changes_nothing() {
    let (cluster, other) = (Cluster::start("simulated", 1), Cluster::start("simulated", 1));
    let mut stranger = cluster.new_daemon();
    let token = cluster.token("Worker");
    let (digest, secret) = token.rsplit_once('-').expect("digest and secret");
    let with_secret = |secret: &str| format!("{digest}-{secret}");
    let reversed: String = secret.chars().rev().collect();
    let rotated = {
        let manager = other.manager();
        let old = other.token("Worker");
        let swarm = manager.get("/swarm");
        let target = format!("/swarm/update?version={}&rotateWorkerToken=true", swarm["Version"]["Index"]);
        manager.call("POST", &target, Some(&swarm["Spec"])).expect("rotated");
        assert_ne!(other.token("Worker"), old);
        old
    };
    let free = stranger.addr();
    let (here, there) = (cluster.manager().addr(), other.manager().addr());
    for (token, addr, status, part) in [
        ("", &here, 400, "not a join token"),
        ("hello", &here, 400, "not a join token"),
        (&token[..token.len() - 1], &here, 400, "copied whole"),
        (&with_secret(&reversed), &here, 403, "not valid"),
        (&token, &there, 400, "another"),
        (&rotated, &there, 403, "rotated"),
        (&token, &free, 503, "refused"),
        (&token, &"nonsense address".to_owned(), 400, "nonsense address"),
    ] {
        let request = json!({ "RemoteAddrs": [addr], "JoinToken": token });
        let message = stranger.refused(status, "POST", "/swarm/join", Some(&request));
        assert!(message.contains(part), "{part}: {message}");
        assert!(secret.len() < 8 || !message.contains(secret), "a secret in {message}");
        assert_eq!(stranger.swarm_info()["LocalNodeState"], "inactive");
    }
    let log = stranger.log() + &cluster.manager().log();
    assert!(!log.contains(secret) && !log.contains(&reversed), "a secret is in a log");

    stranger.kill();
    stranger.start();
    assert_eq!(stranger.swarm_info()["LocalNodeState"], "inactive");
    stranger.call("POST", "/swarm/join", Some(&cluster.join_request(&token))).expect("the right token");
    cluster.wait_state(&stranger, "ready");
    assert_eq!(cluster.states().expect("states").len(), 2);
    assert_eq!(other.states().expect("states").len(), 1);
}

/// The first bytes of a real greeting in TLS 1.3, which announces 512 bytes.
const HELLO: &[u8] =
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd";

#[test]
fn garbage_on_the_managers_port_harms_nobody() {
    let mut cluster = Cluster::start("simulated", 2);
    cluster.create(&service("web", 4));
    let before = cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 4)]));
    let addr = cluster.manager().addr();
    let connect = || {
        let stream = TcpStream::connect(&addr).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        stream
    };
    let oversized = [&b"\x16\x03\x01\xff\xff"[..], &[1; 70_000]].concat();
    for garbage in [&b"GET /nodes HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"\0", &[0; 70_000], &oversized, HELLO, b""] {
        let mut stream = connect();
        // It may be refused before all of it is written.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // At most an alert of TLS: two bytes after a head of five.
        assert!(answer.len() <= 7, "{garbage:?} was answered with {answer:?}");
    }
    // Connections that say nothing, or stop half-way; more of them than there may be handshakes at once.
    let silent: Vec<TcpStream> = (0..150)
        .map(|number| {
            let mut stream = connect();
            stream.write_all(&HELLO[..number % HELLO.len()]).expect("the kernel takes it");
            stream
        })
        .collect();
    let newcomer = cluster.new_daemon();
    let request = cluster.join_request(&cluster.token("Worker"));
    until("a node joins all the same", || newcomer.call("POST", "/swarm/join", Some(&request)).map(drop));
    drop(silent);
    cluster.nodes.push(newcomer);
    cluster.wait_ready();
    assert!(!cluster.manager().log().contains("node is down"), "a node was lost");
    assert_eq!(cluster.wait_settled(&BTreeMap::from([("web".to_owned(), 4)])), before);
}
