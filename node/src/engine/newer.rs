//! Requests that the engine is too old for are refused. A client agrees on a version of the API with this daemon, so it does
//! not notice how old the engine is, and the engine ignores fields that it does not know without a word.

use axum::body::Body;
use hyper::{Method, Request, Uri};
use serde_json::{Map, Value};
use swarm_docker_api::{ApiError, ApiVersion};
use swarm_model::says_nothing;

use crate::bounded::collect;

/// Largest description of a container, a network or a volume: environment, labels and options.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Where something stands in a request.
enum Place {
    /// A parameter of the query.
    Query(&'static str),
    /// A field of the body, its path taken apart; `*` is each item of a list or each value of a map.
    Field(&'static [&'static str]),
    /// As [`Place::Field`], where only `false` is new.
    Off(&'static [&'static str]),
}

use Place::{Field, Off, Query};

struct Newer {
    method: Method,
    /// The route, `*` for a name; a name may have slashes.
    route: &'static str,
    /// What it is for people.
    command: &'static str,
    place: Place,
    /// The version `1.N` of the API that brought it.
    minor: u16,
}

const fn newer(method: Method, route: &'static str, command: &'static str, place: Place, minor: u16) -> Newer {
    Newer { method, route, command, place, minor }
}

const CREATE: (&str, &str) = ("/containers/create", "container create");
const CONNECT: (&str, &str) = ("/networks/*/connect", "network connect");
const PRUNE: (&str, &str) = ("/build/prune", "builder prune");

/// The fields and parameters that came after API 1.41. Two kinds are not listed: those that change nothing where they are
/// ignored (the size of a console, which clients set again), and those that engines refuse themselves (routes, filters, types
/// of mounts).
static NEWER: &[Newer] = &[
    newer(Method::POST, "/volumes/create", "volume create", Field(&["ClusterVolumeSpec"]), 42),
    newer(Method::POST, "/containers/*/stop", "container stop", Query("signal"), 42),
    newer(Method::POST, "/containers/*/restart", "container restart", Query("signal"), 42),
    newer(Method::GET, "/images/json", "image ls", Query("shared-size"), 42),
    newer(Method::GET, "/system/df", "system df", Query("type"), 42),
    newer(
        Method::POST,
        CREATE.0,
        CREATE.1,
        Field(&["HostConfig", "Mounts", "*", "BindOptions", "CreateMountpoint"]),
        42,
    ),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["HostConfig", "Annotations"]), 43),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["Healthcheck", "StartInterval"]), 44),
    newer(
        Method::POST,
        CREATE.0,
        CREATE.1,
        Field(&["HostConfig", "Mounts", "*", "BindOptions", "ReadOnlyNonRecursive"]),
        44,
    ),
    newer(
        Method::POST,
        CREATE.0,
        CREATE.1,
        Field(&["HostConfig", "Mounts", "*", "BindOptions", "ReadOnlyForceRecursive"]),
        44,
    ),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["NetworkingConfig", "EndpointsConfig", "*", "MacAddress"]), 44),
    newer(Method::POST, CONNECT.0, CONNECT.1, Field(&["EndpointConfig", "MacAddress"]), 44),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["HostConfig", "Mounts", "*", "VolumeOptions", "Subpath"]), 45),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["HostConfig", "Mounts", "*", "TmpfsOptions", "Options"]), 46),
    newer(Method::POST, "/images/*/push", "image push", Query("platform"), 46),
    newer(Method::GET, "/images/json", "image ls", Query("manifests"), 47),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["HostConfig", "Mounts", "*", "ImageOptions"]), 48),
    newer(Method::POST, CREATE.0, CREATE.1, Field(&["NetworkingConfig", "EndpointsConfig", "*", "GwPriority"]), 48),
    newer(Method::POST, CONNECT.0, CONNECT.1, Field(&["EndpointConfig", "GwPriority"]), 48),
    newer(Method::POST, "/networks/create", "network create", Off(&["EnableIPv4"]), 48),
    newer(Method::GET, "/images/*/history", "image history", Query("platform"), 48),
    newer(Method::POST, "/images/load", "image load", Query("platform"), 48),
    newer(Method::GET, "/images/*/get", "image save", Query("platform"), 48),
    newer(Method::GET, "/images/get", "image save", Query("platform"), 48),
    newer(Method::GET, "/images/*/json", "image inspect", Query("manifests"), 48),
    newer(Method::POST, PRUNE.0, PRUNE.1, Query("reserved-space"), 48),
    newer(Method::POST, PRUNE.0, PRUNE.1, Query("max-used-space"), 48),
    newer(Method::POST, PRUNE.0, PRUNE.1, Query("min-free-space"), 48),
    newer(Method::GET, "/images/*/json", "image inspect", Query("platform"), 49),
    newer(Method::DELETE, "/images/*", "image rm", Query("platforms"), 50),
];

/// Lets a request through that the engine understands as a whole. `asked` is the version that the client speaks: of one
/// that is older than a field, the field means nothing.
///
/// # Errors
/// 400 for a field or parameter that the engine would ignore, 413 for a body that is too large to be looked at.
pub(super) async fn check(
    mut request: Request<Body>,
    path: &str,
    asked: Option<ApiVersion>,
    spoken: ApiVersion,
) -> Result<Request<Body>, ApiError> {
    let concerns = |newer: &&Newer| {
        let version = ApiVersion { major: 1, minor: newer.minor };
        spoken < version
            && asked.is_none_or(|asked| asked >= version)
            && newer.method == *request.method()
            && fits(newer.route, path)
    };
    let concerned: Vec<_> = NEWER.iter().filter(concerns).collect();
    let query = pairs(request.uri())?;
    for newer in &concerned {
        if let Query(name) = newer.place
            && query.iter().any(|(given, value)| given == name && !matches!(value.as_str(), "" | "0" | "false"))
        {
            return Err(too_old(newer, name, spoken));
        }
    }
    let of_body = |newer: &&&Newer| !matches!(newer.place, Query(_));
    if concerned.iter().any(|newer| of_body(&newer)) {
        let (parts, body) = request.into_parts();
        let body = collect(body, BODY_BYTES_MAX).await?;
        // What is no JSON is the engine's to refuse.
        let value = serde_json::from_slice(&body).unwrap_or_default();
        for newer in concerned.iter().filter(of_body) {
            let (names, says): (_, fn(&Value) -> bool) = match newer.place {
                Off(names) => (names, |value| *value == false),
                Field(names) => (names, |value| !says_nothing(value)),
                Query(_) => continue,
            };
            if stands(&value, names, says) {
                return Err(too_old(newer, &names.join(".").replace(".*", "[]"), spoken));
            }
        }
        request = Request::from_parts(parts, Body::from(body));
    }
    prune_volumes(request, path, &query, asked, spoken)
}

fn too_old(newer: &Newer, what: &str, spoken: ApiVersion) -> ApiError {
    let (command, minor) = (newer.command, newer.minor);
    ApiError::bad_request(format!("{command}: {what} needs Engine API 1.{minor}, the engine of this node has {spoken}"))
}

/// Since API 1.42 `POST /volumes/prune` removes only volumes without a name, unless all are asked for. An older engine
/// removes all, and does not know the filter.
fn prune_volumes(
    mut request: Request<Body>,
    path: &str,
    query: &[(String, String)],
    asked: Option<ApiVersion>,
    spoken: ApiVersion,
) -> Result<Request<Body>, ApiError> {
    const SINCE: ApiVersion = ApiVersion { major: 1, minor: 42 };
    if path != "/volumes/prune"
        || request.method() != Method::POST
        || spoken >= SINCE
        || asked.is_some_and(|asked| asked < SINCE)
    {
        return Ok(request);
    }
    let filters = query.iter().find(|(name, _)| name == "filters").map_or("{}", |(_, value)| value);
    let mut filters: Map<String, Value> = serde_json::from_str(filters).unwrap_or_default();
    let all = filters.remove("all").is_some_and(|all| match all {
        Value::Object(values) => values.keys().any(|value| matches!(value.as_str(), "1" | "true")),
        Value::Array(values) => values.iter().any(|value| value == "1" || value == "true"),
        _ => false,
    });
    if !all {
        return Err(ApiError::bad_request(format!(
            "volume prune: to remove only volumes without a name needs Engine API 1.42, the engine of this node has \
             {spoken} and would remove all that no container uses: if that is wanted, use `docker volume prune --all`"
        )));
    }
    let query = serde_urlencoded::to_string([("filters", Value::Object(filters).to_string())]);
    let query = query.map_err(|e| ApiError::bad_request(format!("invalid query: {e}")))?;
    *request.uri_mut() =
        format!("{path}?{query}").parse().map_err(|e| ApiError::bad_request(format!("invalid query: {e}")))?;
    Ok(request)
}

/// Whether a path is one of a route.
fn fits(route: &str, path: &str) -> bool {
    match route.split_once('*') {
        None => route == path,
        Some((before, after)) => {
            path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).is_some_and(|name| !name.is_empty())
        }
    }
}

/// The parameters of a query.
fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default())
        .map_err(|e| ApiError::bad_request(format!("invalid query: {e}")))
}

/// Whether a value at this place says something. Engines read the names of fields in any case.
fn stands(value: &Value, names: &[&str], says: fn(&Value) -> bool) -> bool {
    let Some((name, rest)) = names.split_first() else { return says(value) };
    match value {
        Value::Array(items) if *name == "*" => items.iter().any(|item| stands(item, rest, says)),
        Value::Object(object) => object
            .iter()
            .any(|(key, value)| (*name == "*" || key.eq_ignore_ascii_case(name)) && stands(value, rest, says)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const fn v(minor: u16) -> ApiVersion {
        ApiVersion { major: 1, minor }
    }

    async fn checked(
        (method, target): (&str, &str),
        body: &[u8],
        asked: Option<u16>,
        spoken: u16,
    ) -> Result<(String, Vec<u8>), ApiError> {
        let request = Request::builder().method(method).uri(target).body(Body::from(body.to_vec())).expect("a request");
        let path = target.split('?').next().expect("a text has a first part");
        let request = check(request, path, asked.map(v), v(spoken)).await?;
        let target = request.uri().to_string();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body in memory");
        Ok((target, body.to_vec()))
    }

    #[tokio::test]
    async fn what_an_engine_is_too_old_for_is_named() {
        let create = ("POST", "/containers/create?name=a");
        let mount = |field: &str, value: Value| json!({"hostconfig": {"Mounts": [{}, {field: value}]}});
        for (call, body, expected) in [
            (
                ("POST", "/volumes/create"),
                json!({"Name": "a", "ClusterVolumeSpec": {"Group": "x"}}),
                "volume create: ClusterVolumeSpec needs Engine API 1.42, the engine of this node has 1.41",
            ),
            (
                create,
                mount("VolumeOptions", json!({"Subpath": "a"})),
                "container create: HostConfig.Mounts[].VolumeOptions.Subpath needs Engine API 1.45, the engine of this \
                 node has 1.41",
            ),
            (create, mount("bindoptions", json!({"createMountpoint": true})), "BindOptions.CreateMountpoint needs"),
            (
                create,
                json!({"HostConfig": {"Annotations": {"a": "b"}}}),
                "HostConfig.Annotations needs Engine API 1.43",
            ),
            (create, json!({"Healthcheck": {"StartInterval": 5}}), "Healthcheck.StartInterval needs Engine API 1.44"),
            (
                create,
                json!({"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {"MacAddress": "02:00:00:00:00:01"}}}}),
                "NetworkingConfig.EndpointsConfig[].MacAddress needs",
            ),
            (("POST", "/networks/a/connect"), json!({"EndpointConfig": {"GwPriority": 1}}), "network connect: "),
            (("POST", "/networks/create"), json!({"EnableIPv4": false}), "network create: EnableIPv4 needs"),
            (
                ("POST", "/containers/a/stop?t=1&signal=INT"),
                json!(null),
                "container stop: signal needs Engine API 1.42",
            ),
            (("GET", "/images/json?shared-size=1"), json!(null), "image ls: shared-size needs"),
            (("GET", "/images/lib/a/json?%70latform=x"), json!(null), "image inspect: platform needs Engine API 1.49"),
            (("DELETE", "/images/a:1?platforms=x"), json!(null), "image rm: platforms needs Engine API 1.50"),
        ] {
            let body = body.to_string();
            for asked in [None, Some(50)] {
                let error = checked(call, body.as_bytes(), asked, 41).await.unwrap_err();
                assert!(error.status == 400 && error.message.contains(expected), "{error}");
            }
            // An engine that knows it gets it; of a client that does not know it, it means nothing.
            for (asked, spoken) in [(Some(50), 50), (Some(41), 41)] {
                let passed = checked(call, body.as_bytes(), asked, spoken).await.expect("it passes");
                assert_eq!(passed, (call.1.to_owned(), body.as_bytes().to_vec()));
            }
        }
    }

    #[tokio::test]
    async fn what_says_nothing_passes() {
        let create = ("POST", "/containers/create");
        for (call, body) in [
            (("POST", "/volumes/create"), json!({"Name": "ClusterVolumeSpec", "ClusterVolumeSpec": null})),
            (create, json!({"Healthcheck": {"StartInterval": 0}, "HostConfig": {"Annotations": {}, "Mounts": null}})),
            (create, json!({"HostConfig": {"Mounts": [{"BindOptions": {"CreateMountpoint": false}}]}})),
            (create, json!({"HostConfig": {"ConsoleSize": [24, 80]}, "Labels": {"Healthcheck": "StartInterval"}})),
            (("POST", "/networks/create"), json!({"EnableIPv4": true})),
            (("POST", "/networks/create"), json!({"EnableIPv4": null})),
            (("POST", "/containers/a/stop?signal=&t=1"), json!(null)),
            (("GET", "/system/df"), json!(null)),
            (("GET", "/images/json?shared-size=0&manifests=false"), json!(null)),
            (("POST", "/containers/signal/start?signal=1"), json!(null)),
        ] {
            let body = body.to_string();
            let passed = checked(call, body.as_bytes(), Some(50), 41).await.expect("it passes");
            assert_eq!(passed, (call.1.to_owned(), body.as_bytes().to_vec()));
        }
    }

    #[tokio::test]
    async fn an_older_engine_is_not_let_remove_volumes_with_names() {
        let prune = |filters: &str| {
            format!("/volumes/prune?{}", serde_urlencoded::to_string([("filters", filters)]).expect("a query"))
        };
        for target in ["/volumes/prune".to_owned(), prune("{}"), prune(r#"{"all": ["0"]}"#), prune("{")] {
            let error = checked(("POST", &target), b"", Some(50), 41).await.unwrap_err();
            assert!(error.status == 400 && error.message.contains("--all"), "{target}: {error}");
            for version in [41, 50] {
                let passed = checked(("POST", &target), b"", Some(version), version).await.expect("it passes");
                assert_eq!(passed.0, target);
            }
        }
        let all = prune(r#"{"all": {"true": true}, "label": {"a": true}}"#);
        let passed = checked(("POST", &all), b"", Some(50), 41).await.expect("it passes");
        assert_eq!(passed.0, prune(r#"{"label":{"a":true}}"#));
    }

    proptest! {
        #[test]
        fn any_body_passes_unchanged_or_is_refused(body in proptest::collection::vec(any::<u8>(), 0..64), query in "[a-z=&%]{0,12}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let target = format!("/volumes/create?{query}");
            if let Ok(passed) = runtime.block_on(checked(("POST", &target), &body, None, 41)) {
                prop_assert_eq!(passed, (target, body));
            }
        }
    }
}
