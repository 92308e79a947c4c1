//! Queries, and the descriptions of networks and containers, as clients and engines write them.

use std::{collections::BTreeSet, net::IpAddr};

use hyper::Uri;
use serde_json::{Map, Value};
use swarm_agent::Attached;
use swarm_docker_api::{ApiError, view::SWARM_SCOPE};
use swarm_model::{NETWORK_ID_LABEL, NETWORK_NAME_LABEL, OVERLAY_DRIVER, PREDEFINED_NETWORKS};

/// The query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        serde_urlencoded::from_str(uri.query().unwrap_or_default()).map(Self).map_err(|error| invalid(&error))
    }

    /// A list of what has a label.
    pub(super) fn of_label(label: &str) -> Result<Self, ApiError> {
        let filters =
            serde_json::to_string(&serde_json::json!({"label": {label: true}})).map_err(|error| invalid(&error))?;
        Ok(Self(vec![("filters".to_owned(), filters)]))
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The same, for what has not this label either. Filters that cannot be read are the engine's to refuse.
    pub(super) fn without_label(&self, label: &str) -> Result<Self, ApiError> {
        let filters = self.get("filters").filter(|filters| !filters.is_empty()).unwrap_or("{}");
        let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(filters) else { return Ok(self.clone()) };
        let mut labels: Map<String, Value> = match fields.remove("label!") {
            Some(Value::Object(labels)) => labels,
            Some(Value::Array(labels)) => {
                labels.iter().filter_map(Value::as_str).map(|label| (label.to_owned(), true.into())).collect()
            }
            _ => Map::new(),
        };
        labels.insert(label.to_owned(), true.into());
        fields.insert("label!".to_owned(), labels.into());
        let filters = serde_json::to_string(&fields).map_err(|error| invalid(&error))?;
        let others = self.0.iter().filter(|(name, _)| name != "filters").cloned();
        Ok(Self(others.chain([("filters".to_owned(), filters)]).collect()))
    }

    /// As it stands behind a path.
    pub(super) fn text(&self) -> Result<String, ApiError> {
        match &self.0[..] {
            [] => Ok(String::new()),
            pairs => {
                serde_urlencoded::to_string(pairs).map(|query| format!("?{query}")).map_err(|error| invalid(&error))
            }
        }
    }
}

fn invalid(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("invalid query: {error}"))
}

/// Whether a description asks for a network of the swarm. What is no description is the engine's to refuse.
pub(super) fn spans_nodes(body: &[u8]) -> bool {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let says = |name: &str, value: &str| field(&fields, name).is_some_and(|given| given == value);
    says("Driver", OVERLAY_DRIVER) || says("Scope", SWARM_SCOPE)
}

/// The name in a description of a network.
pub(super) fn name_of(body: &[u8]) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    field(&fields, "Name")?.as_str().map(str::to_owned)
}

/// A field. Names of fields are read as the engine reads them, in any case.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The networks that a description of a container names, but for those that every engine has.
pub(super) fn joined_networks(fields: &Map<String, Value>) -> BTreeSet<String> {
    let inner = |outer: &str, name: &str| field(field(fields, outer)?.as_object()?, name);
    let mode = inner("HostConfig", "NetworkMode").and_then(Value::as_str).map(str::to_owned);
    let endpoints = inner("NetworkingConfig", "EndpointsConfig").and_then(Value::as_object);
    let names = mode.into_iter().chain(endpoints.into_iter().flat_map(|endpoints| endpoints.keys().cloned()));
    let is_own = |name: &String| !matches!(name.as_str(), "" | "default") && !name.starts_with("container:");
    names.filter(|name| is_own(name) && !PREDEFINED_NETWORKS.contains(&name.as_str())).collect()
}

/// A text in a description.
pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    field(fields, name)?.as_str().map(str::to_owned)
}

/// A part of a description; nothing if it is not there.
pub(super) fn object(fields: &Map<String, Value>, name: &str) -> Map<String, Value> {
    field(fields, name).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Changes a part of a description, which is made if it is not there.
fn change(fields: &mut Map<String, Value>, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let key = fields.keys().find(|given| given.eq_ignore_ascii_case(name)).cloned();
    let key = key.unwrap_or_else(|| name.to_owned());
    let mut part = match fields.remove(&key) {
        Some(Value::Object(part)) => part,
        _ => Map::new(),
    };
    change(&mut part);
    fields.insert(key, part.into());
}

/// Sets a field, in whatever case the client has written its name.
fn set(fields: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    fields.retain(|given, _| !given.eq_ignore_ascii_case(name));
    fields.insert(name.to_owned(), value.into());
}

/// The settings for one network in the description of a container; empty without any.
pub(super) fn asked_place(container: &Map<String, Value>, network: &str) -> Map<String, Value> {
    let endpoints = object(&object(container, "NetworkingConfig"), "EndpointsConfig");
    endpoints.get(network).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The addresses that a container is to have in a network.
pub(super) fn asked_addrs(settings: &Map<String, Value>) -> Vec<IpAddr> {
    let asked = object(settings, "IPAMConfig");
    ["IPv4Address", "IPv6Address"].into_iter().filter_map(|name| text(&asked, name)?.parse().ok()).collect()
}

/// Puts a granted place into what a description says of a network. `says_mac` where each network has a hardware address.
pub(super) fn put_place(settings: &mut Map<String, Value>, place: &Attached, says_mac: bool) {
    change(settings, "IPAMConfig", |asked| {
        for addr in &place.addrs {
            set(asked, if addr.is_ipv4() { "IPv4Address" } else { "IPv6Address" }, addr.to_string());
        }
    });
    if let Some(mac) = place.mac.as_ref().filter(|_| says_mac) {
        set(settings, "MacAddress", mac.clone());
    }
}

/// Has a container, as a client describes it, made in the engine's part of a network.
pub(super) fn join(container: &mut Map<String, Value>, network: &str, place: &Attached, says_each_mac: bool) {
    let mut settings = asked_place(container, network);
    put_place(&mut settings, place, says_each_mac);
    change(container, "NetworkingConfig", |networking| {
        change(networking, "EndpointsConfig", |endpoints| {
            endpoints.remove(network);
            endpoints.insert(place.part.name.clone(), settings.into());
        });
    });
    let is_first = text(&object(container, "HostConfig"), "NetworkMode").is_some_and(|mode| mode == network);
    if is_first {
        change(container, "HostConfig", |host| set(host, "NetworkMode", place.part.name.clone()));
    }
    if let Some(mac) = place.mac.as_ref().filter(|_| is_first && !says_each_mac) {
        set(container, "MacAddress", mac.clone());
    }
}

/// Whether a container runs, as the engine shows it.
pub(super) fn is_running(container: &Map<String, Value>) -> bool {
    object(container, "State").get("Running").and_then(Value::as_bool).unwrap_or_default()
}

/// The networks that a container names, as the engine shows it, but for those that every engine has.
pub(super) fn places(container: &Map<String, Value>) -> Vec<(String, Map<String, Value>)> {
    let networks = object(&object(container, "NetworkSettings"), "Networks");
    let is_own = |name: &str| !PREDEFINED_NETWORKS.contains(&name);
    networks
        .into_iter()
        .filter(|(name, _)| is_own(name))
        .map(|(name, settings)| (name, settings.as_object().cloned().unwrap_or_default()))
        .collect()
}

/// Of a container's settings in a network the part that its user gave. The engine adds the short id to the aliases by itself.
pub(super) fn kept_settings(container: &str, settings: Map<String, Value>) -> Map<String, Value> {
    let kept = ["Aliases", "Links", "DriverOpts", "GwPriority"];
    let mut kept: Map<String, Value> = settings.into_iter().filter(|(name, _)| kept.contains(&name.as_str())).collect();
    if let Some(Value::Array(aliases)) = kept.get_mut("Aliases") {
        aliases.retain(|alias| !alias.as_str().is_some_and(|alias| container.starts_with(alias)));
    }
    kept
}

/// The id of a network.
pub(super) fn id_of(network: &Value) -> &str {
    network.get("Id").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a text is the whole id or the whole name of a network.
pub(super) fn is_exactly(network: &Value, text: &str) -> bool {
    id_of(network) == text
        || network.get("Name").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(text))
}

/// The id of the network of the swarm that a network of the engine stands for; none if it stands for itself.
pub(super) fn label_of(network: &Value) -> Option<&str> {
    network.get("Labels")?.get(NETWORK_ID_LABEL)?.as_str()
}

/// A network of the engine, shown as the network of the swarm that it stands for.
pub(super) fn stands_for(mut network: Value) -> Value {
    let label = |name: &str| network.get("Labels").and_then(|labels| labels.get(name)).cloned();
    let (id, name) = (label(NETWORK_ID_LABEL), label(NETWORK_NAME_LABEL));
    let Some(fields) = network.as_object_mut() else { return network };
    let scope =
        [("Scope", SWARM_SCOPE), ("Driver", OVERLAY_DRIVER)].map(|(field, value)| (field, Some(Value::from(value))));
    for (field, value) in [("Id", id), ("Name", name)].into_iter().chain(scope) {
        if let Some(value) = value {
            fields.insert(field.to_owned(), value);
        }
    }
    if let Some(labels) = fields.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.remove(NETWORK_ID_LABEL);
        labels.remove(NETWORK_NAME_LABEL);
    }
    network
}
