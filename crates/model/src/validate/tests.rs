//! Tests of the rules that a spec has to keep.

use proptest::prelude::*;

use super::*;
use crate::{PortConfig, ReplicatedJob, ServiceMode};

fn spec(json: &str) -> ServiceSpec {
    serde_json::from_str(json).expect("test spec")
}

const PLAIN: &str = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"hello:1"}}}"#;

#[test]
fn a_plain_service_has_one_replica_and_is_valid() {
    let spec = spec(PLAIN);
    assert_eq!(spec.replicas(), Some(1));
    assert_eq!(validate_service_spec(&spec), Ok(()));
}

#[test]
fn each_broken_rule_is_named() {
    type Change = fn(&mut ServiceSpec);
    let cases: &[(Change, &str)] = &[
        (|s| s.name = "a.b".into(), "DNS name component"),
        (|s| s.name = "x".repeat(64), "63 characters"),
        (|s| s.task_template.container_spec.image.clear(), "must be provided"),
        (|s| s.task_template.container_spec.image = "A B".into(), "not a valid repository/tag"),
        (
            |s| {
                let mount = r#"{"Type": "tmpfs", "Target": "/run/secrets/a/"}"#;
                s.task_template.container_spec.mounts = vec![serde_json::from_str(mount).expect("test mount")];
                let secret = serde_json::json!([{"SecretID": "x", "SecretName": "a"}]);
                s.task_template.container_spec.extra.insert("Secrets".into(), secret);
            },
            "duplicate mount point: /run/secrets/a is that of a mount and of secret 'a'",
        ),
        (
            |s| {
                let mount = r#"{"Type": "tmpfs", "Target": "/run/secrets/a/b"}"#;
                s.task_template.container_spec.mounts = vec![serde_json::from_str(mount).expect("test mount")];
                let secret = serde_json::json!([{"SecretID": "x", "SecretName": "a"}]);
                s.task_template.container_spec.extra.insert("Secrets".into(), secret);
            },
            "'/run/secrets/a/b' lies in /run/secrets/a, which is a file of secret 'a'",
        ),
        (
            |s| {
                let secret =
                    |n| serde_json::json!({"SecretID": "x", "SecretName": "a", "File": {"Name": format!("f{n}")}});
                let secrets = (0..=LIST_LEN_MAX).map(secret).collect();
                s.task_template.container_spec.extra.insert("Secrets".into(), secrets);
            },
            "Secrets and Configs have 4097 items",
        ),
        (
            |s| {
                let config = serde_json::json!([{"ConfigName": "a"}]);
                s.task_template.container_spec.extra.insert("Configs".into(), config);
            },
            "ContainerSpec.Configs[0]: ConfigID \"\"",
        ),
        (|s| drop(s.labels.insert("k".into(), "v".repeat(1 << 20))), "labels of"),
        (|s| s.mode = ServiceMode::Replicated { replicas: 1 << 40 }, "replicas"),
        (
            |s| {
                let job = ReplicatedJob { max_concurrent: Some(0), total_completions: Some(3) };
                s.mode = ServiceMode::ReplicatedJob(job);
            },
            "invalid max concurrent value 0",
        ),
        (|s| (s.mode, s.update_config) = (ServiceMode::GlobalJob, Some(Default::default())), "update config"),
        (|s| (s.mode, s.rollback_config) = (ServiceMode::GlobalJob, Some(Default::default())), "rollback config"),
        (
            |s| {
                s.mode = ServiceMode::Global;
                s.labels.insert("swarmd.rebalance".into(), "true".into());
            },
            "only the tasks of a replicated service",
        ),
        (
            |s| {
                s.labels.insert("swarmd.rebalance".into(), "true".into());
                s.labels.insert("swarmd.placement".into(), "pack".into());
            },
            "choose swarmd.placement=spread or swarmd.rebalance=false",
        ),
        (
            |s| {
                let port = PortConfig { publish_mode: PublishMode::Host, target_port: 80, ..Default::default() };
                s.endpoint_spec.get_or_insert_default().ports = vec![port];
                s.labels.insert("swarmd.ingress.source".into(), "proxy".into());
            },
            "swarmd.ingress.source=proxy: connections to ports with mode=host",
        ),
        (
            |s| {
                let port = PortConfig { publish_mode: PublishMode::Host, target_port: 80, ..Default::default() };
                s.endpoint_spec.get_or_insert_default().ports = vec![port];
                s.labels.insert("swarmd.ingress.accept-proxy".into(), "10.0.0.0/8".into());
            },
            "swarmd.ingress.accept-proxy: connections to ports with mode=host",
        ),
        (
            |s| {
                s.mode = ServiceMode::GlobalJob;
                s.labels.insert("swarmd.update.deadline".into(), "1m".into());
            },
            "jobs are not updated",
        ),
    ];
    for (change, part) in cases {
        let mut spec = spec(PLAIN);
        change(&mut spec);
        let error = validate_service_spec(&spec).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn memory_below_4_mib_is_refused() {
    let spec = spec(
        r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"},"Resources":{"Limits":{"MemoryBytes":1048576}}}}"#,
    );
    let error = validate_service_spec(&spec).expect_err("too small").to_string();
    assert_eq!(error, "invalid memory value 1048576: Must be at least 4MiB");
}

#[test]
fn generic_resources_are_counted_once_for_each_kind() {
    let mut spec = spec(PLAIN);
    let mut ask = |resources: serde_json::Value| {
        let reservations = serde_json::json!({"Reservations": {"GenericResources": resources}});
        spec.task_template.resources = serde_json::from_value(reservations).expect("resources");
        validate_service_spec(&spec).map_err(|error| error.to_string())
    };
    let gpu = |value: i64| serde_json::json!({"DiscreteResourceSpec": {"Kind": "gpu", "Value": value}});
    let named = serde_json::json!({"NamedResourceSpec": {"Kind": "gpu", "Value": "uuid1"}});
    assert_eq!(ask(serde_json::json!([gpu(2)])), Ok(()));
    assert!(ask(serde_json::json!([gpu(-1)])).is_err_and(|e| e.contains("gpu=-1")));
    assert!(ask(serde_json::json!([gpu(1), gpu(2)])).is_err_and(|e| e.contains("twice")));
    assert_eq!(ask(serde_json::json!([named, gpu(2)])), Ok(()));
    let nameless = serde_json::json!({"NamedResourceSpec": {"Kind": "gpu", "Value": ""}});
    assert!(ask(serde_json::json!([nameless])).is_err_and(|e| e.contains("'gpu='")));
}

#[test]
fn a_window_that_never_uses_up_its_attempts_is_warned_of() {
    let warnings = |policy: &str| {
        let template = format!(r#"{{"ContainerSpec":{{"Image":"x"}},"RestartPolicy":{policy}}}"#);
        service_warnings(&spec(&format!(r#"{{"Name":"a","TaskTemplate":{template}}}"#)))
    };
    const S: i64 = 1_000_000_000;
    for (window, delay, attempts, warned) in [
        (5, 5, 1, true),
        (3, 5, 2, true),
        (10, 5, 2, true),
        (11, 5, 2, false),
        (0, 5, 2, false),
        (3, 5, 0, false),
        (3, 0, 2, false),
    ] {
        let (window, delay) = (window * S, delay * S);
        let policy = format!(r#"{{"Condition":"any","Delay":{delay},"MaxAttempts":{attempts},"Window":{window}}}"#);
        assert_eq!(!warnings(&policy).is_empty(), warned, "{policy}");
    }
    let text = warnings(r#"{"MaxAttempts":3,"Window":5000000000}"#).concat();
    assert!(text.contains("3 restarts, each after 5s") && text.contains("a window of more than 15s"), "{text}");
    assert_eq!(warnings(r#"{"Condition":"none","MaxAttempts":3,"Window":1}"#), Vec::<String>::new());
}

#[test]
fn overlay_networks_are_made_from_what_fits() {
    let overlay = |pools: &[&str], subnet_size, data_path_port| OverlaySettings {
        addr_pools: pools.iter().map(|pool| (*pool).to_owned()).collect(),
        subnet_size,
        data_path_port,
        encrypt_networks: false,
    };
    for good in
        [overlay(&[], 0, 0), overlay(&["10.20.0.0/16", "10.30.0.0/24"], 24, 7777), overlay(&["10.20.0.0/29"], 29, 1024)]
    {
        assert_eq!(validate_overlay(&good), Ok(()));
    }
    for (bad, part) in [
        (overlay(&["10.20.0.0"], 24, 0), "invalid address pool 10.20.0.0"),
        (overlay(&["10.20.0.0/33"], 24, 0), "10.20.0.0/33"),
        (overlay(&["fd00::/8"], 24, 0), "IPv4"),
        (overlay(&["10.20.0.0/25"], 24, 0), "a subnet of size 24 does not fit"),
        (overlay(&["10.20.0.0/8"], 30, 0), "subnet size 30"),
        (overlay(&[], 24, 80), "data path port 80"),
        (overlay(&[], 24, 49152), "data path port 49152"),
    ] {
        assert!(validate_overlay(&bad).is_err_and(|error| error.to_string().contains(part)), "{part}");
    }
}

#[test]
fn image_references() {
    for good in [
        "hello",
        "hello:1",
        "a/b/c:v1.2",
        "reg.example:5000/x/y:z",
        "x@sha256:0123456789abcdef0123456789abcdef",
        "localhost/x",
    ] {
        assert!(is_image_reference(good), "{good}");
    }
    for bad in ["", ":1", "Hello", "x:", "x@sha256:zz", "a//b", "-x", "x/"] {
        assert!(!is_image_reference(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_image_or_not(text in "\\PC{0,40}") {
        let _ = is_image_reference(&text);
    }
}
