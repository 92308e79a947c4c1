//! This crate against exchanges of the real docker CLI with a real Docker Engine (`recorded/README.md`).

use std::{fs, path::Path};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use swarm_docker_api::{
    Filters,
    logs::{FrameReader, LogLine},
    read_body, split_version,
    view::{
        CreateNetworkResponse, CreateServiceResponse, ErrorMessage, InfoView, InitRequest, NetworkRequest, NetworkView,
        NodeView, ServiceView, SwarmView, TaskView, UnlockKeyView, UpdateServiceResponse, VersionView,
    },
};
use swarm_model::{ClusterSpec, NodeSpec, ServiceSpec};

/// Fields that a view leaves out, since what they tell of is not there yet.
const LEFT_OUT: &[&str] = &["Volumes"];

struct Exchange {
    file: String,
    json: Value,
}

impl Exchange {
    fn named(name: &str) -> Self {
        exchanges().into_iter().find(|e| e.file == format!("{name}.json")).unwrap_or_else(|| panic!("no {name}.json"))
    }

    fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    /// The path without its version.
    fn path(&self) -> &str {
        split_version(self.text("path")).expect("the CLI's versions are spoken").1
    }

    fn response(&self) -> &Value {
        &self.json["resp_body"]
    }

    fn request<T: DeserializeOwned>(&self) -> T {
        let content_type = self.json["req_headers"]["Content-Type"].as_str();
        read_body(content_type, self.json["req_body"].to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", self.file))
    }

    fn flag(&self, key: &str) -> bool {
        self.json["query"][key] == "1"
    }
}

fn exchanges() -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut files: Vec<_> = fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    let read = |path: &Path| serde_json::from_slice(&fs::read(path).expect("file")).expect("JSON");
    let name = |path: &Path| path.file_name().expect("name").to_string_lossy().into_owned();
    files.iter().map(|path| Exchange { file: name(path), json: read(path) }).collect()
}

/// Fails unless `ours` says all that `theirs` says, and nothing else but zero values and the documented defaults.
fn assert_same(file: &str, place: &str, theirs: &Value, ours: &Value) {
    let zero = |v: &Value| match v {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty() || s == "0001-01-01T00:00:00Z",
        Value::Array(a) => a.is_empty(),
        Value::Object(_) => false,
    };
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs.iter().filter(|(k, v)| !v.is_null() && !LEFT_OUT.contains(&k.as_str())) {
                let mine = ours.get(key).unwrap_or_else(|| panic!("{file}: {place}.{key} is lost"));
                assert_same(file, &format!("{place}.{key}"), value, mine);
            }
            for (key, value) in ours.iter().filter(|(k, _)| theirs.get(*k).is_none_or(Value::is_null)) {
                let place = format!("{place}.{key}");
                match value {
                    Value::Object(_) => assert_same(file, &place, &Value::Object(Default::default()), value),
                    _ if key == "Replicas" => assert_eq!(value, 1, "{file}: {place}"),
                    _ => assert!(zero(value), "{file}: {place} is {value}, which nobody said"),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            assert_eq!(theirs.len(), ours.len(), "{file}: {place}");
            for (i, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                assert_same(file, &format!("{place}[{i}]"), theirs, ours);
            }
        }
        (Value::Number(theirs), Value::Number(ours)) => assert_eq!(theirs.as_f64(), ours.as_f64(), "{file}: {place}"),
        (theirs, ours) => assert_eq!(theirs, ours, "{file}: {place}"),
    }
}

fn assert_round_trip<T: Serialize + DeserializeOwned>(exchange: &Exchange) {
    let one = |theirs: &Value| {
        let view: T = serde_json::from_value(theirs.clone()).unwrap_or_else(|e| panic!("{}: {e}", exchange.file));
        assert_same(&exchange.file, "", theirs, &serde_json::to_value(view).expect("JSON"));
    };
    match exchange.response() {
        Value::Array(items) => items.iter().for_each(one),
        value => one(value),
    }
}

#[test]
fn requests_lose_nothing() {
    let mut seen = 0;
    for exchange in exchanges().iter().filter(|e| e.text("method") == "POST") {
        let path: Vec<&str> = exchange.path().split('/').skip(1).collect();
        let ours = match path[..] {
            ["services", "create"] | ["services", _, "update"] => {
                serde_json::to_value(exchange.request::<ServiceSpec>())
            }
            ["nodes", _, "update"] => serde_json::to_value(exchange.request::<NodeSpec>()),
            ["swarm", "update"] => serde_json::to_value(exchange.request::<ClusterSpec>()),
            ["swarm", "init"] => serde_json::to_value(exchange.request::<InitRequest>()),
            ["networks", "create"] => serde_json::to_value(exchange.request::<NetworkRequest>()),
            _ => panic!("{}: what is {}?", exchange.file, exchange.path()),
        };
        assert_same(&exchange.file, "", &exchange.json["req_body"], &ours.expect("JSON"));
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} requests were looked at");
}

#[test]
fn responses_lose_nothing() {
    for exchange in exchanges() {
        let path: Vec<&str> = exchange.path().split('/').skip(1).collect();
        let body = exchange.response();
        match (exchange.text("method"), &path[..]) {
            _ if body.is_null() || exchange.path().ends_with("/logs") => {}
            _ if exchange.json["status"].as_u64() >= Some(400) => assert_round_trip::<ErrorMessage>(&exchange),
            ("GET", ["services", ..]) => assert_round_trip::<ServiceView>(&exchange),
            ("GET", ["nodes", ..]) => assert_round_trip::<NodeView>(&exchange),
            ("GET", ["tasks", ..]) => assert_round_trip::<TaskView>(&exchange),
            ("GET", ["networks", ..]) => assert_round_trip::<NetworkView>(&exchange),
            ("POST", ["networks", "create"]) => assert_round_trip::<CreateNetworkResponse>(&exchange),
            ("GET", ["swarm"]) => assert_round_trip::<SwarmView>(&exchange),
            ("GET", ["swarm", "unlockkey"]) => assert_round_trip::<UnlockKeyView>(&exchange),
            ("GET", ["info"]) => assert_round_trip::<InfoView>(&exchange),
            ("GET", ["version"]) => assert_round_trip::<VersionView>(&exchange),
            ("POST", ["swarm", "init"]) => assert!(body.is_string()),
            ("POST", ["services", "create"]) => assert_round_trip::<CreateServiceResponse>(&exchange),
            ("POST", ["services", _, "update"]) => assert_round_trip::<UpdateServiceResponse>(&exchange),
            other => panic!("{}: what is {other:?}?", exchange.file),
        }
    }
}

#[test]
fn a_created_service_is_shown_as_docker_shows_it() {
    let mut spec: ServiceSpec = Exchange::named("service_create_service_create_waits_unt").request();
    spec.normalize();
    let spec = serde_json::to_value(&spec).expect("JSON");
    assert_same("create", "", &Exchange::named("service_inspect").response()["Spec"], &spec);
    assert_same("create", "", &spec, &Exchange::named("service_inspect").response()["Spec"]);
}

#[test]
fn defaults_are_shown_as_docker_shows_them() {
    let plain: ServiceView =
        serde_json::from_value(Exchange::named("service_inspect").response().clone()).expect("a service");
    let shown = serde_json::to_value(plain.spec.with_defaults()).expect("JSON");
    assert_same("defaults", "", &Exchange::named("service_inspect_defaults").response()["Spec"], &shown);
}

#[test]
fn filters_of_the_cli_are_read() {
    let mut seen = 0;
    for exchange in exchanges() {
        if let Some(text) = exchange.json["query"]["filters"].as_str() {
            let filters = Filters::parse(Some(text), &["service", "_up-to-date"]).expect("the CLI's filters");
            assert_eq!(filters.values("service").map(|s| s.len()), Some(1), "{}", exchange.file);
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} filters were looked at");
}

#[test]
fn log_streams_are_taken_apart_and_put_together_again() {
    let mut lines = 0;
    for exchange in exchanges().iter().filter(|e| e.path().ends_with("/logs")) {
        // The recording has one character for each byte.
        let bytes: Vec<u8> = exchange.text("resp_body").chars().map(|c| u8::try_from(c).expect("a byte")).collect();
        let (timestamps, details) = (exchange.flag("timestamps"), exchange.flag("details"));
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        let mut again = Vec::new();
        while let Some((stream, payload)) = reader.next_frame().expect("frames") {
            let line = LogLine::parse(payload.clone(), timestamps, details).expect("a line");
            assert_eq!((line.timestamp.is_some(), line.task_id().is_some()), (timestamps, details));
            let mut text: Vec<u8> = line.timestamp.map(|t| t + " ").unwrap_or_default().into();
            let pairs: Vec<String> = line.details.iter().map(|(k, v)| format!("{k}={v}")).collect();
            text.extend(if details { pairs.join(",") + " " } else { String::new() }.bytes());
            text.extend(line.text);
            assert_eq!(Bytes::from(text.clone()), payload);
            again.extend(swarm_docker_api::logs::write_frame(stream, &text));
            lines += 1;
        }
        assert!(!reader.is_cut() && again == bytes, "{}", exchange.file);
    }
    assert!(lines >= 15, "only {lines} lines were looked at");
}
