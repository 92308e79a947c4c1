use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A spec with a value at a path such as `TaskTemplate/ContainerSpec/Dir`.
fn with(path: &str, value: Value) -> Value {
    let mut spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "hello:1"}}});
    let mut place = &mut spec;
    for name in path.split('/') {
        place = &mut place[name];
    }
    *place = value;
    spec
}

fn read_spec(spec: &Value) -> ServiceSpec {
    serde_json::from_value(spec.clone()).expect("a spec")
}

fn problem(path: &str, value: Value) -> String {
    check_fields(&with(path, value.clone()), None).map_or_else(|e| e.to_string(), |()| format!("{path} {value} passes"))
}

#[test]
fn a_field_that_nobody_knows_is_named_with_the_nearest_one() {
    for (path, value, expected) in [
        ("Novelty", json!(1), "Novelty is not a field"),
        ("RestartPolicy", json!({"Condition": "none"}), "the nearest one is TaskTemplate.RestartPolicy"),
        (
            "Replicas",
            json!(3),
            "Replicas is not a field that this version knows; the nearest one is Mode.Replicated.Replicas",
        ),
        ("TaskTemplate/Env", json!(["A=1"]), "the nearest one is TaskTemplate.ContainerSpec.Env"),
        ("TaskTemplate/Placement/Constraint", json!(["a==b"]), "the nearest one is TaskTemplate.Placement.Constraints"),
        ("TaskTemplate/Placement/Preferences", json!([{"Pack": {"x": 1}}]), "Preferences[0].Pack is not a field"),
        (
            "TaskTemplate/RestartPolicy/MaxAttempt",
            json!(3),
            "the nearest one is TaskTemplate.RestartPolicy.MaxAttempts",
        ),
        (
            "TaskTemplate/Resources/Limits/Memory",
            json!(3),
            "the nearest one is TaskTemplate.Resources.Limits.MemoryBytes",
        ),
        ("TaskTemplate/Resources/Limit", json!({"Pids": 3}), "the nearest one is TaskTemplate.Resources.Limits"),
        (
            "TaskTemplate/Resources/Reservations/Pids",
            json!(3),
            "TaskTemplate.Resources.Reservations.Pids is not a field",
        ),
        ("TaskTemplate/LogDriver/Opts", json!({"a": "b"}), "the nearest one is TaskTemplate.LogDriver.Options"),
        ("UpdateConfig/Parallel", json!(3), "the nearest one is UpdateConfig.Parallelism"),
        ("RollbackConfig/Orders", json!("x"), "the nearest one is RollbackConfig.Order"),
        ("EndpointSpec/Port", json!([{}, 1]), "the nearest one is EndpointSpec.Ports"),
        (
            "EndpointSpec/Ports",
            json!([{"TargetPort": 80, "HostIP": "::1"}]),
            "EndpointSpec.Ports[0].HostIP is not a field",
        ),
        (
            "TaskTemplate/ContainerSpec/Healthcheck/Command",
            json!("x"),
            "the nearest one is TaskTemplate.ContainerSpec.Command",
        ),
        ("TaskTemplate/ContainerSpec/DNSConfig/Servers", json!(["::1"]), "DNSConfig.Servers is not a field"),
        ("TaskTemplate/ContainerSpec/Privileges", json!({"Novelty": 1}), "Privileges.Novelty is not a field"),
        ("TaskTemplate/Networks", json!([{"Target": "host", "Mac": "x"}]), "Networks[0].Mac is not a field"),
        (
            "TaskTemplate/ContainerSpec/Secrets",
            json!([{"SecretID": "x"}, {"Secretname": "x"}]),
            "the nearest one is TaskTemplate.ContainerSpec.Secrets[1].SecretName",
        ),
        (
            "TaskTemplate/ContainerSpec/Secrets",
            json!([{"File": {"Owner": "0"}}]),
            "TaskTemplate.ContainerSpec.Secrets[0].File.Owner is not a field",
        ),
        ("TaskTemplate/ContainerSpec/Configs", json!([{"SecretID": "x"}]), "Configs[0].SecretID is not a field"),
        ("TaskTemplate/ContainerSpec/Configs", json!([{"File": {"Path": "x"}}]), "Configs[0].File.Path is not a field"),
        (
            "TaskTemplate/Resources/Reservations/GenericResources",
            json!([{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1, "Shared": true}}]),
            "GenericResources[0].DiscreteResourceSpec.Shared is not a field",
        ),
        ("Mode", json!({"Replicate": {"Replicas": 1}}), "the nearest one is Mode.Replicated"),
        ("Mode", json!({"Replicated": {"Replica": 1}}), "the nearest one is Mode.Replicated.Replicas"),
        ("Mode", json!({"Global": {"Replicas": 1}}), "Mode.Global.Replicas is not a field"),
        ("Mode", json!({"ReplicatedJob": {"Concurrent": 1}}), "Mode.ReplicatedJob.Concurrent is not a field"),
    ] {
        let problem = problem(path, value);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn what_says_nothing_is_kept() {
    for nothing in [json!(null), json!(false), json!(0), json!(0.0), json!(""), json!([]), json!({"a": {"b": [null]}})]
    {
        for path in [
            "Novelty",
            "EndpointSpec/Novelty",
            "UpdateConfig/Novelty",
            "TaskTemplate/Novelty",
            "TaskTemplate/LogDriver/Novelty",
            "TaskTemplate/Placement/Novelty",
            "TaskTemplate/RestartPolicy/Novelty",
            "TaskTemplate/Resources/Limits/Novelty",
            "TaskTemplate/Resources/Reservations/Novelty",
            "TaskTemplate/ContainerSpec/DNSConfig/Novelty",
            "TaskTemplate/ContainerSpec/Healthcheck/Novelty",
            "TaskTemplate/ContainerSpec/Secrets",
        ] {
            let spec = with(path, nothing.clone());
            assert_eq!(check_fields(&spec, None), Ok(()), "{path} {nothing}");
            let shown = serde_json::to_value(read_spec(&spec)).expect("JSON");
            assert_eq!(shown.pointer(&format!("/{path}")), Some(&nothing), "{path}");
        }
        let spec = with("Mode", json!({"Novelty": nothing, "Global": {"Novelty": nothing}}));
        assert_eq!((check_fields(&spec, None), read_spec(&spec).mode), (Ok(()), crate::ServiceMode::Global));
    }
}

#[test]
fn values_that_no_engine_takes_are_refused() {
    for (path, value, expected) in [
        ("Dir", json!("work"), "\"work\" must be an absolute path"),
        ("Env", json!(["A=1", "=2"]), "Env[1] \"=2\": a variable needs a name"),
        ("Hosts", json!(["10.0.0.1"]), "Hosts[0] \"10.0.0.1\" should be an address and a name"),
        ("Hosts", json!(["db 10.0.0.1"]), "should be an address and a name"),
        ("DNSConfig", json!({"Nameservers": ["dns"]}), "DNSConfig.Nameservers[0] \"dns\" is not an IP address"),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 2, "Hard": 1}]), "nofile=2:1"),
        ("OomScoreAdj", json!(1001), "between -1000 and 1000"),
        ("Isolation", json!("hyperv"), "Isolation \"hyperv\" is for Windows"),
        ("Privileges", json!({"CredentialSpec": {"File": "x"}}), "Privileges.CredentialSpec is for Windows"),
        ("Privileges", json!({"Seccomp": {"Mode": "odd"}}), "\"odd\""),
        (
            "Mounts",
            json!([{"Target": "/a", "VolumeOptions": {"Subpath": "b"}}]),
            "Mounts[0].VolumeOptions.Subpath is not",
        ),
        ("Mounts", json!([{"Type": "bind", "BindOptions": {"Propagation": "odd"}}]), "Propagation \"odd\": possible"),
        ("Mounts", json!([{"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": true}}]), "is not supported"),
        ("Mounts", json!([{"Type": "bind", "VolumeOptions": {"NoCopy": true}}]), "do not fit its type bind"),
    ] {
        let problem = problem(&format!("TaskTemplate/ContainerSpec/{path}"), value);
        assert!(problem.contains("TaskTemplate.ContainerSpec.") && problem.contains(expected), "{problem}");
    }
    let problem = problem("TaskTemplate/Resources", json!({"SwapBytes": 1}));
    assert!(problem.contains("TaskTemplate.Resources cannot be: Resources.SwapBytes"), "{problem}");
}

#[test]
fn what_the_service_has_is_not_refused() {
    let subpath = json!({"Target": "/a", "VolumeOptions": {"Subpath": "b"}});
    let old = read_spec(&with("TaskTemplate/ContainerSpec/Mounts", json!([{"Target": "/first"}, subpath])));
    let check = |mounts: Value| check_fields(&with("TaskTemplate/ContainerSpec/Mounts", mounts), Some(&old));
    assert_eq!(check(json!([{"Target": "/first"}, subpath])), Ok(()));
    // The one before it has gone.
    assert_eq!(check(json!([subpath])), Ok(()));
    let other = json!({"Target": "/a", "VolumeOptions": {"Subpath": "c"}});
    assert!(check(json!([subpath, other])).is_err_and(|unfit| unfit.path.ends_with("Mounts[1].VolumeOptions.Subpath")));
    // Clients add what they were not shown, empty.
    let sent = json!({"Target": "/a", "VolumeOptions": {"Subpath": "b", "Labels": {}}, "BindOptions": null});
    assert_eq!(check(json!([sent])), Ok(()));
    let old = read_spec(&with("Novelty", json!({"a": 1})));
    assert_eq!(check_fields(&with("Novelty", json!({"a": 1, "b": ""})), Some(&old)), Ok(()));
    assert!(check_fields(&with("Novelty", json!({"a": 2})), Some(&old)).is_err());
}

/// The table and the types of a spec have the same fields.
#[test]
fn the_table_has_the_fields_of_the_types() {
    let spec = json!({
        "Name": "web", "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "x", "Labels": {"a": "b"}, "Command": ["a"], "Args": ["a"], "Hostname": "h", "Env": ["A=1"],
                "Dir": "/", "User": "u", "Groups": ["g"], "Init": true, "StopSignal": "TERM", "TTY": true,
                "OpenStdin": true, "ReadOnly": true, "StopGracePeriod": 1, "Hosts": ["::1 db", "host-gateway gate"],
                "Mounts": [
                    {"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": true, "Consistency": "cached",
                     "BindOptions": {"Propagation": "rslave", "NonRecursive": true, "CreateMountpoint": true}},
                    {"Type": "volume", "Target": "/b", "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"},
                     "DriverConfig": {"Name": "local", "Options": {"o": "x"}}}},
                    {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 1, "Mode": 1}}
                ],
                "Healthcheck": {"Test": ["NONE"], "Interval": 1, "Timeout": 1, "StartPeriod": 1, "StartInterval": 1,
                    "Retries": 1},
                "DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["a"], "Options": ["b"]},
                "Sysctls": {"a.b": "1"}, "CapabilityAdd": ["ALL"], "CapabilityDrop": ["ALL"],
                "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": -1}], "OomScoreAdj": -1000, "Isolation": "default",
                "Privileges": {"SELinuxContext": {"User": "u", "Role": "r", "Type": "t", "Level": "l"},
                    "Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true},
                "Secrets": [{"File": {"Name": "a", "UID": "1", "GID": "1", "Mode": 292}, "SecretID": "x",
                    "SecretName": "a"}],
                "Configs": [{"File": {"Name": "a", "UID": "1", "GID": "1", "Mode": 292}, "ConfigID": "x",
                    "ConfigName": "a"}]
            },
            "Resources": {
                "Limits": {"NanoCPUs": 1, "MemoryBytes": 1, "Pids": 1}, "SwapBytes": 1, "MemorySwappiness": 1,
                "Reservations": {"NanoCPUs": 1, "MemoryBytes": 1, "GenericResources": [
                    {"NamedResourceSpec": {"Kind": "g", "Value": "a"}},
                    {"DiscreteResourceSpec": {"Kind": "g", "Value": 1}}]}
            },
            "RestartPolicy": {"Condition": "any", "Delay": 1, "MaxAttempts": 1, "Window": 1},
            "Placement": {"Constraints": ["a==b"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.a"}}],
                "MaxReplicas": 1, "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "Networks": [{"Target": "host", "Aliases": ["a"], "DriverOpts": {"a": "b"}}],
            "LogDriver": {"Name": "local", "Options": {"a": "b"}},
            "ForceUpdate": 1, "Runtime": "container"
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 1, "Delay": 1, "FailureAction": "pause", "Monitor": 1, "MaxFailureRatio": 1.0,
            "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Name": "a", "Protocol": "udp", "TargetPort": 1, "PublishedPort": 1,
            "PublishMode": "host"}]}
    });
    assert_eq!(serde_json::to_value(read_spec(&spec)).expect("JSON"), spec);
    assert_eq!(check_fields(&spec, None), Ok(()));
    // A field of the table that the text above leaves out would not be seen here.
    fn misses(shape: &Shape, value: &Value, path: &str) -> Vec<String> {
        match (shape, value) {
            (Object(fields) | Checked(fields, _), Value::Object(object)) => {
                let inner = |(name, shape): &(&str, Shape)| match (shape, object.get(*name)) {
                    (NotYet(_) | Never(_), _) => Vec::new(),
                    (_, None) => vec![join(path, name)],
                    (shape, Some(value)) => misses(shape, value, &join(path, name)),
                };
                fields.iter().flat_map(inner).collect()
            }
            _ => Vec::new(),
        }
    }
    let left_out = [
        "Mode.Global",
        "Mode.ReplicatedJob",
        "Mode.GlobalJob",
        // A manager puts them into the task template.
        "Networks",
        "RollbackConfig",
        "TaskTemplate.ContainerSpec.Privileges.SELinuxContext.Disable",
        "TaskTemplate.ContainerSpec.Privileges.Seccomp.Profile",
    ];
    let mut missed = misses(&SERVICE, &spec, "");
    missed.retain(|path| !left_out.contains(&path.as_str()));
    assert_eq!(missed, Vec::<String>::new());
}

proptest! {
    #[test]
    fn any_field_is_known_or_named(
        path in "(TaskTemplate/)?(ContainerSpec|Placement|EndpointSpec|Resources)?/?",
        name in "[A-Za-zäß]{1,12}",
        value in "0|1|\"\"|\"x\"|\\[\\]|\\[1\\]|\\{\\}|\\{\"a\": 1\\}",
    ) {
        let value: Value = serde_json::from_str(&value).expect("JSON");
        let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Image": "x"}}});
        let mut place = &mut spec;
        for name in path.split('/').filter(|name| !name.is_empty()).chain([&*name]) {
            place = &mut place[name];
        }
        *place = value.clone();
        if let Ok(read) = serde_json::from_value::<ServiceSpec>(spec.clone()) {
            let checked = check_fields(&spec, None);
            prop_assert!(!says_nothing(&value) || checked.is_ok());
            if let Err(unfit) = checked {
                prop_assert!(!unfit.path.is_empty() && unfit.to_string().starts_with(&unfit.path), "{unfit}");
            }
            prop_assert_eq!(check_fields(&spec, Some(&read)), Ok(()));
        }
    }
}
