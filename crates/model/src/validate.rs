//! Which specs are accepted. Every rule of swarm-behaviour §1.2 and docker-api §5 that needs only the spec itself, but
//! for what this version knows of it: see [`crate::check_fields`].

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    ClusterSpec, Constraint, EndpointMode, FailureAction, GenericResource, Invalid, Labels, MountType, NodeSpec,
    OverlaySettings, PlacementStrategy, PublishMode, RestartCondition, ServiceMode, ServiceSpec, Settings, TaskSpec,
    UpdateConfig, format_duration,
};

/// Characters of a service name: it becomes a DNS label.
pub const NAME_LEN_MAX: usize = 63;
/// Smallest memory limit or reservation that the engine accepts.
pub const MEMORY_BYTES_MIN: i64 = 4 << 20;
/// Smallest CPU limit or reservation: 0.001 CPU.
pub const NANO_CPUS_MIN: i64 = 1_000_000;
/// All labels of one object together. They are copied to every agent that runs a task of it.
pub const LABELS_BYTES_MAX: usize = 64 << 10;
/// A whole spec in JSON; one log entry must hold it twice.
pub const SPEC_BYTES_MAX: usize = 512 << 10;
/// Tasks of one service. A cluster holds a million; one service of so many is a slip of the keyboard, and each look at
/// a service costs time in proportion.
pub const REPLICAS_MAX: u64 = 100_000;
/// Environment, arguments and labels are lists of people's making; this many is a mistake.
const LIST_LEN_MAX: usize = 4096;
/// Shortest validity of node certificates: one hour.
const NODE_CERT_EXPIRY_MIN_NS: i64 = 3_600_000_000_000;
/// Longest prefix of an overlay network: six addresses for tasks.
const SUBNET_SIZE_MAX: u32 = 29;
/// UDP ports that overlay traffic may have: those below belong to the system, those above to clients (as in Swarm).
const DATA_PATH_PORTS: std::ops::RangeInclusive<u32> = 1024..=49151;
/// Shortest interval or timeout of a health check: one millisecond.
const HEALTH_INTERVAL_MIN_NS: i64 = 1_000_000;

fn check(ok: bool, text: impl FnOnce() -> String) -> Result<(), Invalid> {
    if ok { Ok(()) } else { Err(Invalid(text())) }
}

/// Checks a service spec.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_service_spec(spec: &ServiceSpec) -> Result<(), Invalid> {
    validate_service_name(&spec.name)?;
    validate_labels(&spec.labels)?;
    validate_settings(spec)?;
    validate_task(&spec.task_template)?;
    validate_mode(spec)?;
    for (name, config) in [("UpdateConfig", &spec.update_config), ("RollbackConfig", &spec.rollback_config)] {
        if let Some(config) = config {
            validate_update_config(name, config)?;
        }
    }
    if let Some(config) = &spec.rollback_config {
        check(config.failure_action != FailureAction::Rollback, || {
            "RollbackConfig: failure action 'rollback' is not possible, use pause or continue".into()
        })?;
    }
    validate_endpoint(spec)?;
    let size = serde_json::to_vec(spec).map_err(|e| Invalid(e.to_string()))?.len();
    check(size <= SPEC_BYTES_MAX, || {
        format!("service spec of {size} bytes is too large, the limit is {SPEC_BYTES_MAX}")
    })
}

/// Warnings, for people, of settings that are accepted but hardly meant.
pub fn service_warnings(spec: &ServiceSpec) -> Vec<String> {
    let policy = spec.task_template.restart();
    let (window_ns, delay_ns) = (policy.window_or_default_ns(), policy.delay_or_default_ns());
    let attempts = policy.max_attempts;
    // A restart is counted from when the task before it ended. Each of them takes the delay at least.
    let needed_ns = i64::try_from(attempts).unwrap_or(i64::MAX).saturating_mul(delay_ns);
    let never = policy.condition != RestartCondition::None && attempts > 0 && window_ns > 0 && window_ns <= needed_ns;
    let warning = || {
        format!(
            "RestartPolicy: {attempts} restarts, each after {}, never fall into a window of {}, so that tasks are \
             restarted for ever; choose a window of more than {}, or none",
            format_duration(delay_ns),
            format_duration(window_ns),
            format_duration(needed_ns),
        )
    };
    never.then(warning).into_iter().collect()
}

pub(crate) fn validate_service_name(name: &str) -> Result<(), Invalid> {
    check(name.len() <= NAME_LEN_MAX, || {
        format!("name must be {NAME_LEN_MAX} characters or fewer, '{name}' has {}", name.len())
    })?;
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    check(edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner), || {
        format!("name must be valid as a DNS name component: '{name}' (letters, digits, - and _ inside)")
    })
}

pub(crate) fn validate_labels(labels: &Labels) -> Result<(), Invalid> {
    let size: usize = labels.iter().map(|(k, v)| k.len() + v.len()).sum();
    check(size <= LABELS_BYTES_MAX, || {
        format!("labels of {size} bytes are too large, the limit is {LABELS_BYTES_MAX}")
    })?;
    check(labels.keys().all(|k| !k.is_empty()), || "a label needs a name".into())
}

fn validate_task(task: &TaskSpec) -> Result<(), Invalid> {
    validate_container(task)?;
    if let Some(resources) = &task.resources {
        if let Some(l) = &resources.limits {
            validate_cpu_and_memory(l.nano_cpus, l.memory_bytes)?;
            check(l.pids >= 0, || format!("invalid pids limit {}: must not be negative", l.pids))?;
        }
        if let Some(r) = &resources.reservations {
            validate_cpu_and_memory(r.nano_cpus, r.memory_bytes)?;
            validate_generic(&r.generic_resources)?;
        }
    }
    if let Some(restart) = &task.restart_policy {
        check(restart.delay_ns.unwrap_or(0) >= 0, || "TaskSpec: restart-delay cannot be negative".into())?;
        check(restart.window_or_default_ns() >= 0, || "TaskSpec: restart-window cannot be negative".into())?;
    }
    if let Some(placement) = &task.placement {
        for text in &placement.constraints {
            Constraint::parse(text)?;
        }
    }
    check(matches!(task.runtime.as_str(), "" | "container"), || {
        format!("TaskSpec: runtime '{}' is not supported, only container is", task.runtime)
    })
}

fn validate_cpu_and_memory(nano_cpus: i64, memory_bytes: i64) -> Result<(), Invalid> {
    check(nano_cpus == 0 || nano_cpus >= NANO_CPUS_MIN, || {
        format!("invalid cpu value {}: Must be at least 0.001", nano_cpus as f64 / 1e9)
    })?;
    check(memory_bytes == 0 || memory_bytes >= MEMORY_BYTES_MIN, || {
        format!("invalid memory value {memory_bytes}: Must be at least 4MiB")
    })
}

/// A task asks for a count, and one that it asks for by name counts one: which pieces it gets is the cluster's choice
/// (swarm-behaviour §5.7).
fn validate_generic(resources: &[GenericResource]) -> Result<(), Invalid> {
    for (number, resource) in resources.iter().enumerate() {
        match resource {
            GenericResource::Named { kind, value } => {
                check(!kind.is_empty() && !value.is_empty(), || {
                    format!("invalid generic resource '{kind}={value}': it must have a kind and a name")
                })?;
            }
            GenericResource::Discrete { kind, value } => {
                check(!kind.is_empty() && *value >= 0, || {
                    format!("invalid generic resource '{kind}={value}': it must have a kind and not be negative")
                })?;
                let same =
                    |r: &GenericResource| matches!(r, GenericResource::Discrete { kind: other, .. } if other == kind);
                check(!resources[..number].iter().any(same), || format!("generic resource {kind} is asked for twice"))?;
            }
        }
    }
    Ok(())
}

fn validate_container(task: &TaskSpec) -> Result<(), Invalid> {
    let c = &task.container_spec;
    check(!c.image.is_empty(), || "ContainerSpec: image reference must be provided".into())?;
    check(is_image_reference(&c.image), || format!("ContainerSpec: \"{}\" is not a valid repository/tag", c.image))?;
    validate_labels(&c.labels)?;
    for (name, len) in
        [("Env", c.env.len()), ("Args", c.args.len()), ("Command", c.command.len()), ("Mounts", c.mounts.len())]
    {
        check(len <= LIST_LEN_MAX, || format!("ContainerSpec: {name} has {len} items, the limit is {LIST_LEN_MAX}"))?;
    }
    let mut targets = BTreeSet::new();
    for mount in &c.mounts {
        check(mount.target.starts_with('/'), || {
            format!("ContainerSpec: mount target '{}' must be an absolute path", mount.target)
        })?;
        check(targets.insert(mount.target.trim_end_matches('/')), || {
            format!("ContainerSpec: duplicate mount point: {}", mount.target)
        })?;
        match mount.kind {
            MountType::Bind => check(mount.source.starts_with('/'), || {
                format!("ContainerSpec: bind source '{}' must be an absolute path", mount.source)
            })?,
            MountType::Tmpfs => check(mount.source.is_empty(), || "ContainerSpec: a tmpfs mount has no source".into())?,
            MountType::Volume => {}
        }
    }
    let files = c.object_files()?;
    check(files.len() <= LIST_LEN_MAX, || {
        format!("ContainerSpec: Secrets and Configs have {} items, the limit is {LIST_LEN_MAX}", files.len())
    })?;
    for file in files {
        check(!targets.contains(file.path.as_str()), || {
            format!("ContainerSpec: duplicate mount point: {} is that of a mount and of {}", file.path, file.label())
        })?;
        let inside = format!("{}/", file.path);
        let mount = targets.range(inside.as_str()..).next().filter(|target| target.starts_with(&inside));
        check(mount.is_none(), || {
            let mount = mount.unwrap_or(&"");
            format!(
                "ContainerSpec: the mount target '{mount}' lies in {}, which is a file of {}",
                file.path,
                file.label()
            )
        })?;
    }
    check(c.stop_grace_period_ns.unwrap_or(0) >= 0, || "ContainerSpec: stop-grace-period cannot be negative".into())?;
    if let Some(h) = &c.healthcheck {
        for (name, ns) in [
            ("interval", h.interval_ns),
            ("timeout", h.timeout_ns),
            ("start-period", h.start_period_ns),
            ("start-interval", h.start_interval_ns),
        ] {
            check(ns == 0 || ns >= HEALTH_INTERVAL_MIN_NS, || {
                format!("ContainerSpec: health check {name} cannot be less than 1ms")
            })?;
        }
        check(h.retries >= 0, || "ContainerSpec: health check retries cannot be negative".into())?;
    }
    Ok(())
}

/// Whether a text can be an image reference: `[host[:port]/]path[:tag][@algorithm:hex]`, or an image id.
fn is_image_reference(text: &str) -> bool {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let ok = digest
            .split_once(':')
            .is_some_and(|(a, h)| !a.is_empty() && h.len() >= 32 && h.chars().all(|c| c.is_ascii_hexdigit()));
        if !ok {
            return false;
        }
    }
    let last_slash = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[last_slash..].split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    if let Some(tag) = tag {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let ok = tag.len() <= 128
            && tag.chars().next().is_some_and(word)
            && tag.chars().all(|c| word(c) || c == '.' || c == '-');
        if !ok {
            return false;
        }
    }
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, path),
    };
    host.is_none_or(|h| h.chars().all(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(c)))
        && rest.len() <= 255
        && rest.split('/').all(|part| {
            let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.chars().next().is_some_and(alnum)
                && part.chars().last().is_some_and(alnum)
                && part.chars().all(|c| alnum(c) || "._-".contains(c))
        })
}

/// A setting that could do nothing in this mode is refused, not ignored.
fn validate_settings(spec: &ServiceSpec) -> Result<(), Invalid> {
    let settings = Settings::parse(&spec.labels)?;
    let is_job = spec.mode.is_job();
    check(!settings.rebalance || matches!(spec.mode, ServiceMode::Replicated { .. }), || {
        "swarmd.rebalance: only the tasks of a replicated service can move to other nodes".into()
    })?;
    check(!settings.rebalance || settings.strategy != PlacementStrategy::Pack, || {
        "swarmd.rebalance=true and swarmd.placement=pack: tasks that are packed together are not kept even; choose \
         swarmd.placement=spread or swarmd.rebalance=false"
            .into()
    })?;
    let has_host_ports = spec.ports().iter().any(|port| port.publish_mode == PublishMode::Host);
    let (source, proxies) = (settings.ingress.source, &settings.ingress.proxies);
    for (label, needs_header) in [("source=proxy", source.has_header()), ("accept-proxy", !proxies.is_empty())] {
        check(!needs_header || !has_host_ports, || {
            format!(
                "swarmd.ingress.{label}: connections to ports with mode=host go to the task without swarmd, which neither \
                 reads nor writes a header there; choose mode=ingress"
            )
        })?;
    }
    check(!is_job || settings.max_unavailable.is_none() && settings.update_deadline_ns.is_none(), || {
        "swarmd.max-unavailable and swarmd.update.deadline: jobs are not updated".into()
    })
}

fn validate_mode(spec: &ServiceSpec) -> Result<(), Invalid> {
    let is_job = spec.mode.is_job();
    check(!is_job || spec.update_config.is_none(), || "Jobs may not have an update config".into())?;
    check(!is_job || spec.rollback_config.is_none(), || "Jobs may not have a rollback config".into())?;
    let replicas = spec.replicas().unwrap_or(0);
    check(replicas <= REPLICAS_MAX, || {
        format!("invalid replicas value {replicas}: at most {REPLICAS_MAX} are possible")
    })?;
    let never_runs = matches!(&spec.mode, ServiceMode::ReplicatedJob(job) if job.concurrent() == 0 && job.total() > 0);
    check(!never_runs, || {
        "invalid max concurrent value 0: no task of the job would ever run; at least 1 is needed".into()
    })
}

fn validate_update_config(name: &str, config: &UpdateConfig) -> Result<(), Invalid> {
    check(config.delay_ns >= 0, || format!("{name}: delay cannot be negative"))?;
    check(config.monitor_ns.unwrap_or(0) >= 0, || format!("{name}: monitor cannot be negative"))?;
    let ratio = config.max_failure_ratio;
    check((0.0..=1.0).contains(&ratio), || format!("{name}: max failure ratio {ratio} must be between 0 and 1"))
}

fn validate_endpoint(spec: &ServiceSpec) -> Result<(), Invalid> {
    let dnsrr = spec.endpoint_spec.as_ref().and_then(|e| e.mode) == Some(EndpointMode::Dnsrr);
    let mut published = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for port in spec.ports() {
        let protocol = port.protocol.as_str();
        check(port.target_port != 0, || "EndpointSpec: a port needs a target port between 1 and 65535".into())?;
        check(!(dnsrr && port.publish_mode == PublishMode::Ingress), || {
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode".into()
        })?;
        check(port.published_port == 0 || published.insert((protocol, port.published_port)), || {
            format!("EndpointSpec: duplicate published port {}/{protocol} provided", port.published_port)
        })?;
        check(targets.insert((protocol, port.target_port, port.published_port)), || {
            format!("EndpointSpec: duplicate target port {}/{protocol} provided", port.target_port)
        })?;
    }
    Ok(())
}

/// Checks a node spec.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_node_spec(spec: &NodeSpec) -> Result<(), Invalid> {
    validate_labels(&spec.labels)
}

/// Checks the cluster's settings, defaults filled in.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_cluster_spec(spec: &ClusterSpec) -> Result<(), Invalid> {
    check(spec.name == "default", || format!("swarm spec must be named \"default\", not \"{}\"", spec.name))?;
    validate_labels(&spec.labels)?;
    check(spec.ca_config.signing_ca_cert.is_empty() && spec.ca_config.signing_ca_key.expose().is_empty(), || {
        "CAConfig.SigningCACert and SigningCAKey are for a swarm that there is: swarm ca --rotate --ca-cert --ca-key"
            .into()
    })?;
    check(spec.ca_config.node_cert_expiry_ns >= NODE_CERT_EXPIRY_MIN_NS, || {
        "minimum certificate expiry time is 1h0m0s".into()
    })?;
    let period = spec.dispatcher.heartbeat_period_ns;
    check((100_000_000..=3_600_000_000_000).contains(&period), || {
        format!("heartbeat period of {period} ns must be between 100ms and 1h")
    })?;
    check(spec.raft.snapshot_interval > 0, || "snapshot interval must be at least 1".into())
}

/// Checks the settings of overlay networks.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_overlay(overlay: &OverlaySettings) -> Result<(), Invalid> {
    let port = overlay.data_path_port_or_default();
    check(DATA_PATH_PORTS.contains(&port), || {
        format!("data path port {port} is not between {} and {}", DATA_PATH_PORTS.start(), DATA_PATH_PORTS.end())
    })?;
    let size = overlay.subnet_size_or_default();
    check(size <= SUBNET_SIZE_MAX, || {
        format!("subnet size {size} is out of range: at most {SUBNET_SIZE_MAX} is possible")
    })?;
    for pool in &overlay.addr_pools {
        let prefix = pool.split_once('/').and_then(|(ip, prefix)| match ip.parse() {
            Ok(IpAddr::V4(_)) => prefix.parse::<u32>().ok().filter(|prefix| *prefix <= 32),
            _ => None,
        });
        let prefix = prefix.ok_or_else(|| {
            Invalid(format!("invalid address pool {pool}: an IPv4 network such as 10.20.0.0/16 is wanted"))
        })?;
        check(prefix <= size, || format!("invalid address pool {pool}: a subnet of size {size} does not fit into it"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
