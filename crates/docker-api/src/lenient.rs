//! Request bodies, read as leniently as Go reads them (docker-api §0.18, §0.19).
//!
//! A `null` is the same as nothing, and the case of a field's name does not matter. Fields that this program does not
//! know are kept by the types of `swarm-model`. Maps whose keys are the user's own (labels, driver options, kernel
//! parameters) are left alone.

use std::{collections::BTreeMap, fmt, marker::PhantomData, sync::LazyLock};

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::ApiError;

/// Every field of a request that this program knows, as it is spelt.
const FIELDS: &[&str] = &[
    "AdvertiseAddr",
    "Aliases",
    "AppArmor",
    "Architecture",
    "Args",
    "Attachable",
    "AutoLockManagers",
    "AuxiliaryAddresses",
    "Availability",
    "BindOptions",
    "CAConfig",
    "CapabilityAdd",
    "CapabilityDrop",
    "Command",
    "Condition",
    "Config",
    "ConfigFrom",
    "ConfigID",
    "ConfigName",
    "ConfigOnly",
    "Configs",
    "Constraints",
    "ContainerSpec",
    "CreateMountpoint",
    "CredentialSpec",
    "DNSConfig",
    "Data",
    "DataPathAddr",
    "DataPathPort",
    "DefaultAddrPool",
    "Delay",
    "Dir",
    "Disable",
    "DiscreteResourceSpec",
    "Dispatcher",
    "Driver",
    "DriverConfig",
    "DriverOpts",
    "ElectionTick",
    "EnableIPv4",
    "EnableIPv6",
    "EncryptNetworks",
    "EncryptionConfig",
    "EndpointSpec",
    "Env",
    "FailureAction",
    "File",
    "ForceNewCluster",
    "ForceUpdate",
    "GID",
    "Gateway",
    "GenericResources",
    "Global",
    "GlobalJob",
    "Groups",
    "Hard",
    "Healthcheck",
    "HeartbeatPeriod",
    "HeartbeatTick",
    "Hostname",
    "Hosts",
    "IPAM",
    "IPRange",
    "Image",
    "Ingress",
    "Init",
    "Internal",
    "Interval",
    "Isolation",
    "JoinToken",
    "KeepOldSnapshots",
    "Kind",
    "Labels",
    "Level",
    "Limits",
    "ListenAddr",
    "LogDriver",
    "LogEntriesForSlowFollowers",
    "MaxAttempts",
    "MaxConcurrent",
    "MaxFailureRatio",
    "MaxReplicas",
    "MemoryBytes",
    "MemorySwappiness",
    "Mode",
    "Monitor",
    "Mounts",
    "Name",
    "NamedResourceSpec",
    "Nameservers",
    "NanoCPUs",
    "Network",
    "Networks",
    "NoCopy",
    "NoNewPrivileges",
    "Node",
    "NodeCertExpiry",
    "NonRecursive",
    "OS",
    "OomScoreAdj",
    "OpenStdin",
    "Options",
    "Orchestration",
    "Order",
    "Parallelism",
    "Pids",
    "Placement",
    "Platforms",
    "Ports",
    "Preferences",
    "Privileges",
    "Profile",
    "Propagation",
    "Protocol",
    "PublishMode",
    "PublishedPort",
    "Raft",
    "ReadOnly",
    "RemoteAddrs",
    "Replicas",
    "Replicated",
    "ReplicatedJob",
    "Reservations",
    "Resources",
    "RestartPolicy",
    "Retries",
    "Role",
    "RollbackConfig",
    "Runtime",
    "SELinuxContext",
    "Scope",
    "Search",
    "Seccomp",
    "SecretID",
    "SecretName",
    "Secrets",
    "Service",
    "SizeBytes",
    "SnapshotInterval",
    "Soft",
    "Source",
    "Spec",
    "Spread",
    "SpreadDescriptor",
    "StartInterval",
    "StartPeriod",
    "StopGracePeriod",
    "StopSignal",
    "Subnet",
    "SubnetSize",
    "SwapBytes",
    "Sysctls",
    "TTY",
    "Target",
    "TargetPort",
    "TaskDefaults",
    "TaskHistoryRetentionLimit",
    "TaskTemplate",
    "Templating",
    "Test",
    "Timeout",
    "TmpfsOptions",
    "To",
    "TotalCompletions",
    "Type",
    "UID",
    "Ulimits",
    "UnlockKey",
    "UpdateConfig",
    "User",
    "Value",
    "VolumeOptions",
    "Window",
];

/// Fields whose value, if it is an object, has keys of the user's own.
const FREE_FORM: &[&str] = &["AuxiliaryAddresses", "DriverOpts", "Labels", "Options", "Sysctls"];

static BY_LOWER_CASE: LazyLock<BTreeMap<String, &'static str>> =
    LazyLock::new(|| FIELDS.iter().map(|field| (field.to_ascii_lowercase(), *field)).collect());

/// Reads the body of a request that needs one.
///
/// # Errors
/// 400 when there is none, when its content type is not JSON, or when it is not what is expected: where, and why.
pub fn read_body<T: DeserializeOwned>(content_type: Option<&str>, body: &[u8]) -> Result<T, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("the request has no body, expected a JSON object"));
    }
    let content_type = content_type.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::bad_request(format!(
            "unsupported Content-Type header ({content_type}): must be 'application/json'"
        )));
    }
    read_json(body)
}

/// Reads JSON as leniently as Go does. What is spelt as it should be, as nearly everything is, is read at once; the rest,
/// and what cannot be read, goes through a tree in which it can be mended and its place be named.
///
/// # Errors
/// 400 that says where the text is not what is expected, and why.
pub fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if is_settled(body)
        && let Ok(read) = serde_json::from_slice(body)
    {
        return Ok(read);
    }
    read_tree(body)
}

fn read_tree<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut value: Value =
        serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("invalid JSON in the request: {e}")))?;
    if !value.is_object() {
        return Err(ApiError::bad_request("invalid JSON in the request: expected an object"));
    }
    settle(&mut value);
    read_value(value)
}

/// Reads a request that was read as a [`Value`] before.
///
/// # Errors
/// 400 that says where the value is not what is expected, and why.
pub fn read_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let place = e.path().to_string();
        let place = if place == "." { "the request".into() } else { place };
        ApiError::bad_request(format!("invalid value in {place}: {}", e.into_inner()))
    })
}

/// Whether a text is an object in which [`settle`] would change nothing.
fn is_settled(body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    first == Some(&b'{') && Settled::Fields.deserialize(&mut serde_json::Deserializer::from_slice(body)).is_ok()
}

/// Walks over a value and ends at the first thing that [`settle`] would change.
#[derive(Clone, Copy)]
enum Settled {
    /// Objects in it have fields.
    Fields,
    /// If it is an object, its keys are the user's own.
    Keys,
}

impl<'de> DeserializeSeed<'de> for Settled {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Settled {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything but null")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self::Fields)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        match self {
            Self::Fields => {
                while let Some(inside) = object.next_key_seed(Field)? {
                    object.next_value_seed(inside)?;
                }
            }
            Self::Keys => while object.next_entry_seed(PhantomData::<IgnoredAny>, self)?.is_some() {},
        }
        Ok(())
    }
}

/// The name of a field, spelt as it should be; what its value is to be walked over as.
struct Field;

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Settled;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Settled, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Field {
    type Value = Settled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Settled, E> {
        if FREE_FORM.contains(&name) {
            return Ok(Settled::Keys);
        }
        FIELDS.binary_search(&name).map(|_| Settled::Fields).map_err(|_| E::custom("a name to look at again"))
    }
}

/// Drops nulls and spells the names of fields as this program does. What needs none of that is left where it is.
fn settle(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if !object.iter().all(|(key, value)| !value.is_null() && FIELDS.binary_search(&key.as_str()).is_ok()) {
                *object = respell(std::mem::take(object));
            }
            for (key, value) in object {
                match value {
                    Value::Object(map) if FREE_FORM.contains(&key.as_str()) => settle_map(map),
                    value => settle(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}

fn respell(object: Map<String, Value>) -> Map<String, Value> {
    let mut settled = Map::new();
    for (key, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        match BY_LOWER_CASE.get(&key.to_ascii_lowercase()) {
            // A field that comes twice counts in its proper spelling.
            Some(field) if *field != key => drop(settled.entry(*field).or_insert(value)),
            _ => drop(settled.insert(key, value)),
        }
    }
    settled
}

/// In a map of texts null is the empty text; the keys stay.
fn settle_map(map: &mut Map<String, Value>) {
    map.values_mut().filter(|value| value.is_null()).for_each(|value| *value = Value::from(""));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use swarm_model::{ClusterSpec, NodeSpec, ServiceSpec};

    use super::*;
    use crate::view::{ConfigReference, IpamConfigView, IpamView, NetworkRequest};

    fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
        read_body(Some("application/json"), value.to_string().as_bytes())
    }

    #[test]
    fn nulls_are_nothing_and_case_does_not_matter() {
        let spec: ServiceSpec = read(&json!({
            "name": "web",
            "LABELS": null,
            "taskTemplate": {
                "ContainerSpec": {"image": "x", "Env": null, "Sysctls": {"Net.Core": null}, "Mounts": [{"type": "tmpfs", "Target": "/t", "tmpfsoptions": {"sizeBYTES": 5}}],
                    "secrets": [{"file": {"name": "a", "uid": "1", "gid": "2", "mode": null}, "secretID": "x"}]},
                "RestartPolicy": null,
                "LogDriver": {"Name": "local", "Options": {"Mode": "name", "name": "x"}}
            },
            "mode": {"replicated": {"replicas": null}},
            "Own": {"name": 1, "x": null}
        }))
        .expect("lenient");
        assert_eq!((spec.name.as_str(), spec.replicas()), ("web", Some(1)));
        let container = &spec.task_template.container_spec;
        assert_eq!(container.sysctls["Net.Core"], "");
        assert_eq!(container.mounts[0].tmpfs_options.as_ref().expect("given").size_bytes, 5);
        assert_eq!(
            container.extra["Secrets"],
            json!([{"File": {"Name": "a", "UID": "1", "GID": "2"}, "SecretID": "x"}])
        );
        assert_eq!(spec.task_template.log_driver.expect("given").options.keys().collect::<Vec<_>>(), ["Mode", "name"]);
        assert_eq!(spec.extra["Own"], json!({"Name": 1}));
        let spec: ServiceSpec = read(&json!({"Name": "proper", "NAME": "other"})).expect("lenient");
        assert_eq!(spec.name, "proper");
    }

    #[test]
    fn errors_name_the_place() {
        let message = |json| read::<ServiceSpec>(&json).expect_err("refused").message;
        let text = message(json!({"TaskTemplate": {"RestartPolicy": {"Delay": "5s"}}}));
        assert!(text.contains("TaskTemplate.RestartPolicy.Delay") && text.contains("\"5s\""), "{text}");
        let text = message(json!({"Mode": {"Global": {}, "Replicated": {}}}));
        assert!(text.contains("must specify only one service mode"), "{text}");
        let text = message(json!([1]));
        assert!(text.contains("expected an object"), "{text}");
    }

    #[test]
    fn the_body_must_be_json_and_say_so() {
        let read = |content_type, body: &[u8]| read_body::<NodeSpec>(content_type, body);
        let text = read(Some("text/plain"), b"{}").expect_err("refused").message;
        assert_eq!(text, "unsupported Content-Type header (text/plain): must be 'application/json'");
        assert!(read(None, b"{}").is_err());
        assert!(read(Some("application/json"), b" \n").expect_err("refused").message.contains("no body"));
        assert!(read(Some("application/json"), b"{} {}").expect_err("refused").message.contains("trailing"));
        assert!(read(Some("Application/JSON; charset=utf-8"), b"{}").is_ok());
    }

    #[test]
    fn only_what_needs_no_mending_is_read_at_once() {
        let settled = [
            r#"{}"#,
            r#" {"Name": "web", "Labels": {"name": "x", "Own": ""}, "Mode": {"Replicated": {"Replicas": 3}}}"#,
            r#"{"TaskTemplate": {"ContainerSpec": {"Args": ["a", "b"], "Mounts": [{"Type": "tmpfs"}]}, "ForceUpdate": 1}}"#,
        ];
        let unsettled = [
            "",
            "null",
            "3",
            "[]",
            r#"{"name": "web"}"#,
            r#"{"Name": null}"#,
            r#"{"Own": 1}"#,
            r#"{"Labels": {"a": null}}"#,
            r#"{"TaskTemplate": {"containerSpec": {}}}"#,
            r#"{"TaskTemplate": {"ContainerSpec": {"Mounts": [{"type": "x"}]}}}"#,
        ];
        let all = settled.map(|text| (text, true)).into_iter().chain(unsettled.map(|text| (text, false)));
        for (text, expected) in all {
            assert_eq!(is_settled(text.as_bytes()), expected, "{text}");
            assert_eq!(read_json::<ServiceSpec>(text.as_bytes()), read_tree(text.as_bytes()), "{text}");
        }
        // Twice: the last one counts, as in Go.
        let twice: NodeSpec =
            read_json(br#"{"Role": "worker", "Availability": "drain", "Role": "manager"}"#).expect("good");
        assert_eq!(twice.role, swarm_model::NodeRole::Manager);
    }

    /// A network of which something is said in each field.
    fn network() -> NetworkRequest {
        let config = IpamConfigView {
            subnet: "10.0.0.0/8".into(),
            ip_range: "10.1.0.0/16".into(),
            gateway: "10.0.0.1".into(),
            aux_addresses: [("Name".into(), "10.0.0.2".into())].into(),
        };
        NetworkRequest {
            enable_ipv4: Some(true),
            enable_ipv6: Some(true),
            ipam: Some(IpamView { config: vec![config], ..IpamView::default() }),
            config_from: Some(ConfigReference::default()),
            ..NetworkRequest::default()
        }
    }

    #[test]
    fn names_of_addresses_are_the_users_own() {
        let config = json!([{"subnet": "10.0.0.0/8", "auxiliaryaddresses": {"name": "10.0.0.2", "x": null}}]);
        let request: NetworkRequest = read(&json!({"ipam": {"config": config}})).expect("lenient");
        let config = &request.ipam.expect("given").config[0];
        assert_eq!(config.subnet, "10.0.0.0/8");
        assert_eq!(config.aux_addresses.keys().collect::<Vec<_>>(), ["name", "x"]);
    }

    /// Every field that the types write is in the list, so that none is case-sensitive.
    #[test]
    fn all_fields_are_known() {
        fn walk(value: &Value) {
            match value {
                Value::Object(object) => {
                    for (key, value) in object {
                        assert!(FIELDS.contains(&key.as_str()), "{key} is missing in FIELDS");
                        if !FREE_FORM.contains(&key.as_str()) {
                            walk(value);
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(walk),
                _ => {}
            }
        }
        let mut cluster = ClusterSpec::default();
        cluster.fill_defaults();
        for value in [
            serde_json::to_value(ServiceSpec::default().with_defaults()),
            serde_json::to_value(NodeSpec::default()),
            serde_json::to_value(cluster),
            serde_json::to_value(crate::view::InitRequest::default()),
            serde_json::to_value(crate::view::JoinRequest::default()),
            serde_json::to_value(network()),
        ] {
            walk(&value.expect("JSON"));
        }
        assert!(FIELDS.is_sorted());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            let _ = read_json::<ServiceSpec>(&body);
        }

        #[test]
        fn any_json_is_read_or_refused(
            key in "(?i)(name|labels|mode|tasktemplate|endpointspec|\\PC{0,4})",
            inner in "(?i)(name|containerspec|replicated|ports|\\PC{0,4})",
            leaf in "null|true|-1|1e9|99999999999999999999|\"\"|\"x\"|\\[\\]|\\[null\\]|\\{\\}|\\{\"a\":null\\}",
        ) {
            let leaf: Value = serde_json::from_str(&leaf).expect("valid JSON");
            let text = json!({key: {inner: leaf}}).to_string();
            let read = read_json::<ServiceSpec>(text.as_bytes());
            prop_assert!(read.as_ref().err().is_none_or(|error| error.status == 400));
            prop_assert_eq!(read, read_tree(text.as_bytes()));
        }
    }
}
