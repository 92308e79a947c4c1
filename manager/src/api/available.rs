//! Specs that ask for what they cannot have are refused: nothing is quietly left out.

use serde_json::Value;
use swarm_core::State;
use swarm_docker_api::ApiError;
use swarm_model::{
    ClusterSpec, Extra, NetworkAttachment, ObjectKind, ObjectReference, PREDEFINED_NETWORKS, PortProtocol, PublishMode,
    ServiceSpec, says_nothing,
};

/// Longest alias of a service: the longest name of a host.
const ALIAS_LEN_MAX: usize = 253;

/// Checks a service spec.
pub(super) fn check_service(spec: &ServiceSpec) -> Result<(), ApiError> {
    let ingress = || spec.ports().iter().filter(|port| port.publish_mode == PublishMode::Ingress);
    if let Some(port) = ingress().find(|port| port.protocol == PortProtocol::Sctp) {
        let text = "is published in ingress mode with SCTP, which is not available: publish it with mode=host";
        return Err(not_yet(&format!("port {} {text}", port.target_port)));
    }
    if ingress().next().is_some() && spec.task_template.networks.iter().any(|network| network.target == "none") {
        let text = "a task in the network none cannot be reached: leave the network or the published ports out";
        return Err(ApiError::bad_request(text));
    }
    check_networks(&spec.task_template.networks)
}

/// Refuses fields and values that this version cannot run, unless the service has them already.
pub(super) fn check_fields(given: &Value, old: Option<&ServiceSpec>) -> Result<(), ApiError> {
    swarm_model::check_fields(given, old).map_err(|unfit| match unfit.not_yet {
        true => not_yet(&unfit.to_string()),
        false => ApiError::bad_request(unfit.to_string()),
    })
}

/// Refuses templates that no task could fill in: its agent would reject it again and again. What the service has already
/// stays as it is.
pub(super) fn check_templates(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> Result<(), ApiError> {
    let known = old.map(|old| old.task_template.container_spec.templated()).unwrap_or_default();
    for (path, text) in spec.task_template.container_spec.templated() {
        if !known.iter().any(|(_, old)| *old == text) {
            swarm_template::spec::check(text, &spec.name, &spec.labels)
                .map_err(|error| ApiError::bad_request(format!("TaskTemplate.ContainerSpec.{path}: {error}")))?;
        }
    }
    Ok(())
}

/// Refuses a spec that names an object that is not there, or an id and a name of two objects. The error names all missing
/// objects of one kind, as Swarm's does. A reference that the service has already stays, even if its object is gone: a
/// rollback may have led back to it.
pub(super) fn check_objects(state: &State, spec: &ServiceSpec, old: Option<&ServiceSpec>) -> Result<(), ApiError> {
    let known = old.map(|old| old.task_template.container_spec.references()).unwrap_or_default();
    let references = spec.task_template.container_spec.references();
    let missing: Vec<(ObjectKind, String)> = references
        .into_iter()
        .filter_map(|reference| Some((missing(state, &reference)?, reference)))
        .filter(|(_, reference)| !known.contains(reference))
        .map(|(text, reference)| (reference.kind, text))
        .collect();
    let Some((kind, _)) = missing.first() else { return Ok(()) };
    let names: Vec<&str> = missing.iter().filter(|(other, _)| other == kind).map(|(_, text)| text.as_str()).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    Err(ApiError::bad_request(format!("{kind}{plural} not found: {}", names.join(", "))))
}

/// The text about an object that is not there; none if it is.
fn missing(state: &State, reference: &ObjectReference) -> Option<String> {
    let ObjectReference { kind, id, name } = reference;
    match reference.key().and_then(|key| state.object(key)) {
        Some(object) if object.name == *name => None,
        Some(object) => Some(format!("{name} (the id {id} is that of {kind} '{}')", object.name)),
        None => Some(name.clone()),
    }
}

/// A task can be in networks of the swarm, or in one of the engine's own, which know neither aliases nor driver options.
fn check_networks(networks: &[NetworkAttachment]) -> Result<(), ApiError> {
    let is_predefined = |network: &&NetworkAttachment| PREDEFINED_NETWORKS.contains(&network.target.as_str());
    match (networks.iter().find(is_predefined), networks) {
        (None, networks) => check_attachments(networks),
        (Some(one), [_]) if one.aliases.is_empty() && one.driver_opts.is_empty() => Ok(()),
        (Some(one), [_]) => Err(ApiError::bad_request(format!(
            "network {} takes neither aliases nor driver options: leave them out",
            one.target
        ))),
        (Some(_), _) => Err(ApiError::bad_request(
            "a task can be in only one of the networks bridge, host and none, and in no network of the swarm beside it",
        )),
    }
}

/// Checks the networks of the swarm in which a task is to be.
fn check_attachments(networks: &[NetworkAttachment]) -> Result<(), ApiError> {
    for (number, network) in networks.iter().enumerate() {
        if networks[..number].iter().any(|other| other.target == network.target) {
            return Err(ApiError::bad_request(format!("network {} is named twice", network.target)));
        }
        if let Some(option) = network.driver_opts.keys().next() {
            return Err(not_yet(&format!(
                "driver option '{option}' of network {} is not available: leave it out",
                network.target
            )));
        }
        // Containers ask for an alias as for a name of a host.
        let is_name = |alias: &&String| {
            !alias.is_empty()
                && alias.len() <= ALIAS_LEN_MAX
                && alias.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if let Some(alias) = network.aliases.iter().find(|alias| !is_name(alias)) {
            return Err(ApiError::bad_request(format!(
                "alias '{alias}' in network {} cannot be a name of a host: it has letters, digits, -, _ and ., and at most \
                 {ALIAS_LEN_MAX} characters",
                network.target
            )));
        }
    }
    Ok(())
}

/// Checks the settings of a cluster, also of one that is to be made.
///
/// # Errors
/// 501: what is not available.
pub fn check_cluster(spec: &ClusterSpec) -> Result<(), ApiError> {
    if asks(&spec.ca_config.extra, "ExternalCAs") {
        return Err(not_yet(
            "external certificate authorities are not available: managers sign the certificates of nodes themselves; to \
             have them under a root CA of your own use \"swarm ca --rotate --ca-cert FILE --ca-key FILE\"",
        ));
    }
    match spec.ca_config.extra.iter().find(|(_, value)| !says_nothing(value)) {
        None => Ok(()),
        Some((field, _)) => Err(not_yet(&format!("CAConfig.{field} is not available yet: leave it out"))),
    }
}

fn not_yet(text: &str) -> ApiError {
    ApiError::not_implemented(text)
}

fn asks(extra: &Extra, field: &str) -> bool {
    extra.get(field).is_some_and(|value| !says_nothing(value))
}
