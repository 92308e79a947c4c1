//! From a task's spec to the engine's request (swarm-behaviour §7.4).

use std::collections::BTreeMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig as DockerHealth, HostConfig, HostConfigLogConfig, Mount as DockerMount,
    MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountTmpfsOptions, MountType as DockerMountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, PortBinding, ResourcesUlimits,
};
use swarm_model::{
    ContainerSpec, Extra, GenericResource, HealthConfig, MemorySwap, Mount, MountType, PortConfig, PublishMode,
    says_nothing,
};

use super::{LABEL_NODE, LABEL_TASK, folder::Folder, networks};
use crate::{executor::ContainerRequest, template};

/// Networks that every engine has; a task may name one of them.
const PREDEFINED_NETWORKS: [&str; 3] = ["bridge", "host", "none"];

/// Whether the task can be run at all, before anything is pulled.
///
/// # Errors
/// What is not supported, for people.
pub(super) fn check(request: &ContainerRequest, folder: &Folder) -> Result<(), String> {
    body(request, folder).map(drop)
}

/// The engine's request.
///
/// # Errors
/// As [`check`].
pub(super) fn body(request: &ContainerRequest, folder: &Folder) -> Result<ContainerCreateBody, String> {
    let task = &request.spec.task;
    let spec = &task.container_spec;
    refuse_unknown("TaskSpec", &task.extra, &[])?;
    if let Some(resources) = &task.resources {
        refuse_unknown("Resources", &resources.extra, &["SwapBytes", "MemorySwappiness"])?;
    }
    refuse_unknown("ContainerSpec", &spec.extra, &["Privileges", "Isolation", "Secrets", "Configs"])?;
    let expand = |text: &String| template::expand(text, request);
    let ports: Vec<_> = request.spec.ports.iter().filter(|p| p.publish_mode == PublishMode::Host).collect();
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        labels: Some(labels(request).collect()),
        entrypoint: list(&spec.command),
        cmd: list(&spec.args),
        hostname: text(&expand(&spec.hostname)?),
        env: list(&env(request)?),
        working_dir: text(&spec.dir),
        user: text(&spec.user),
        stop_signal: text(&spec.stop_signal),
        stop_timeout: spec.stop_grace_period_ns.map(|ns| ns.max(0) / 1_000_000_000),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        healthcheck: spec.healthcheck.as_ref().map(health).transpose()?,
        exposed_ports: (!ports.is_empty()).then(|| ports.iter().map(|p| target(p)).collect()),
        host_config: Some(host_config(request, &ports, folder)?),
        ..ContainerCreateBody::default()
    })
}

/// The spec's environment, then what the task got of the node's generic resources: `DOCKER_RESOURCE_GPU=uuid1,uuid2`
/// for names, `DOCKER_RESOURCE_SSD=3` for a count (swarm-behaviour §5.7).
pub(super) fn env(request: &ContainerRequest) -> Result<Vec<String>, String> {
    let spec = &request.spec.task.container_spec;
    let mut env = spec.env.iter().map(|text| template::expand(text, request)).collect::<Result<Vec<_>, _>>()?;
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in request.task.generic_resources.iter() {
        let (kind, value) = match resource {
            GenericResource::Discrete { kind, value } => (kind, value.to_string()),
            GenericResource::Named { kind, value } => (kind, value.clone()),
        };
        values.entry(kind.to_uppercase()).or_default().push(value);
    }
    env.extend(values.into_iter().map(|(kind, values)| format!("DOCKER_RESOURCE_{kind}={}", values.join(","))));
    Ok(env)
}

fn host_config(request: &ContainerRequest, ports: &[&PortConfig], folder: &Folder) -> Result<HostConfig, String> {
    let task = &request.spec.task;
    let spec = &task.container_spec;
    let limits = task.resources.as_ref().and_then(|r| r.limits.clone()).unwrap_or_default();
    let swap = task.resources.as_ref().map(MemorySwap::of).transpose().map_err(|e| e.to_string())?.unwrap_or_default();
    let dns = spec.dns_config.clone().unwrap_or_default();
    let mut mounts = spec.mounts.iter().map(|m| mount(m, request)).collect::<Result<Vec<_>, _>>()?;
    mounts.extend(file_mounts(request, folder)?);
    Ok(HostConfig {
        network_mode: network_mode(request)?,
        port_bindings: (!ports.is_empty()).then(|| bindings(request, ports).collect()),
        mounts: (!mounts.is_empty()).then_some(mounts),
        nano_cpus: number(limits.nano_cpus),
        memory: number(limits.memory_bytes),
        memory_swap: swap.total_bytes,
        memory_swappiness: swap.swappiness,
        pids_limit: number(limits.pids),
        ulimits: list(&spec.ulimits).map(|ulimits| {
            let convert = |u: swarm_model::Ulimit| ResourcesUlimits {
                name: Some(u.name),
                soft: Some(u.soft),
                hard: Some(u.hard),
            };
            ulimits.into_iter().map(convert).collect()
        }),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        cap_add: list(&spec.capability_add),
        cap_drop: list(&spec.capability_drop),
        group_add: list(&spec.groups),
        dns: list(&dns.nameservers),
        dns_search: list(&dns.search),
        dns_options: list(&dns.options),
        extra_hosts: list(&extra_hosts(&spec.hosts)?),
        oom_score_adj: number(spec.oom_score_adj),
        readonly_rootfs: Some(spec.read_only),
        init: spec.init,
        security_opt: security_options(spec)?,
        // Options without a driver are for the engine's default one.
        log_config: task.log_driver.as_ref().map(|l| HostConfigLogConfig {
            typ: Some(l.name.clone()),
            config: Some(l.options.clone().into_iter().collect()),
        }),
        // No restart policy, no automatic removal: both are the orchestrator's business.
        ..HostConfig::default()
    })
}

/// The spec's labels, then ours, which win.
fn labels(request: &ContainerRequest) -> impl Iterator<Item = (String, String)> {
    let system = [
        ("com.docker.swarm.task", String::new()),
        (LABEL_TASK, request.task.id.to_string()),
        ("com.docker.swarm.task.name", request.name()),
        (LABEL_NODE, request.node.id.to_string()),
        ("com.docker.swarm.service.id", request.task.service.to_string()),
        ("com.docker.swarm.service.name", request.spec.service_name.clone()),
    ];
    let own = request.spec.task.container_spec.labels.clone().into_iter();
    own.chain(system.map(|(k, v)| (k.to_owned(), v)))
}

fn network_mode(request: &ContainerRequest) -> Result<Option<String>, String> {
    let networks = &request.spec.task.networks;
    if !networks::attachments(request)?.is_empty() {
        // The engine's ids of them come with their parts of the request.
        return Ok(None);
    }
    if let Some(other) = networks.iter().find(|n| !PREDEFINED_NETWORKS.contains(&n.target.as_str())) {
        return Err(format!("network {} is neither an id nor one of bridge, host and none", other.target));
    }
    match networks.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.target.clone())),
        _ => Err("a task can be in only one of the networks bridge, host and none".into()),
    }
}

fn target(port: &PortConfig) -> String {
    format!("{}/{}", port.target_port, port.protocol.as_str())
}

/// One entry for each target port; each may be published several times.
fn bindings(
    request: &ContainerRequest,
    ports: &[&PortConfig],
) -> impl Iterator<Item = (String, Option<Vec<PortBinding>>)> {
    let host_ip = request.node.bind_addr.map(|addr| addr.to_string());
    let mut bindings = BTreeMap::<_, Vec<_>>::new();
    for port in ports {
        // An empty port lets the engine choose.
        let host_port = if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        bindings
            .entry(target(port))
            .or_default()
            .push(PortBinding { host_ip: host_ip.clone(), host_port: Some(host_port) });
    }
    bindings.into_iter().map(|(target, list)| (target, Some(list)))
}

fn mount(mount: &Mount, request: &ContainerRequest) -> Result<DockerMount, String> {
    refuse_unknown("Mount", &mount.extra, &["Consistency"])?;
    let mut result = DockerMount {
        target: Some(template::expand(&mount.target, request)?),
        source: text(&template::expand(&mount.source, request)?),
        typ: Some(match mount.kind {
            MountType::Bind => DockerMountType::BIND,
            MountType::Volume => DockerMountType::VOLUME,
            MountType::Tmpfs => DockerMountType::TMPFS,
        }),
        read_only: Some(mount.read_only),
        ..DockerMount::default()
    };
    if let (MountType::Bind, Some(options)) = (mount.kind, &mount.bind_options) {
        refuse_unknown("BindOptions", &options.extra, &[])?;
        result.bind_options = Some(MountBindOptions {
            propagation: propagation(&options.propagation)?,
            non_recursive: options.non_recursive.then_some(true),
            create_mountpoint: options.create_mountpoint.then_some(true),
            ..MountBindOptions::default()
        });
    }
    if let (MountType::Volume, Some(options)) = (mount.kind, &mount.volume_options) {
        refuse_unknown("VolumeOptions", &options.extra, &[])?;
        let expand = |(k, v): (&String, &String)| Ok::<_, String>((k.clone(), template::expand(v, request)?));
        let driver = options.driver_config.as_ref().map(|driver| {
            Ok::<_, String>(MountVolumeOptionsDriverConfig {
                name: text(&driver.name),
                options: Some(driver.options.iter().map(expand).collect::<Result<_, _>>()?),
            })
        });
        result.volume_options = Some(MountVolumeOptions {
            no_copy: Some(options.no_copy),
            labels: Some(options.labels.iter().map(expand).collect::<Result<_, _>>()?),
            driver_config: driver.transpose()?,
            ..MountVolumeOptions::default()
        });
    }
    if let (MountType::Tmpfs, Some(options)) = (mount.kind, &mount.tmpfs_options) {
        refuse_unknown("TmpfsOptions", &options.extra, &[])?;
        result.tmpfs_options = Some(MountTmpfsOptions {
            size_bytes: number(options.size_bytes),
            mode: (options.mode != 0).then(|| options.mode.into()),
            ..MountTmpfsOptions::default()
        });
    }
    Ok(result)
}

/// The files made of secrets and configs, as the folder has them.
fn file_mounts(request: &ContainerRequest, folder: &Folder) -> Result<Vec<DockerMount>, String> {
    let files = request.spec.task.container_spec.object_files().map_err(|e| e.to_string())?;
    let mounts = files.into_iter().enumerate().map(|(number, file)| DockerMount {
        target: Some(file.path),
        source: Some(folder.file(request.task.id, number).display().to_string()),
        typ: Some(DockerMountType::BIND),
        read_only: Some(true),
        ..DockerMount::default()
    });
    Ok(mounts.collect())
}

fn propagation(name: &str) -> Result<Option<Propagation>, String> {
    Ok(Some(match name {
        "" => return Ok(None),
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::RPRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        other => return Err(format!("bind propagation \"{other}\" is not known")),
    }))
}

fn health(check: &HealthConfig) -> Result<DockerHealth, String> {
    refuse_unknown("Healthcheck", &check.extra, &[])?;
    Ok(DockerHealth {
        test: list(&check.test),
        interval: number(check.interval_ns),
        timeout: number(check.timeout_ns),
        retries: number(check.retries),
        start_period: number(check.start_period_ns),
        // Engines before API 1.44 ignore it.
        start_interval: number(check.start_interval_ns),
    })
}

/// `IP name [name…]` becomes `name:IP` for each name.
fn extra_hosts(lines: &[String]) -> Result<Vec<String>, String> {
    let mut hosts = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let ip = words.next().ok_or("a line of Hosts is empty")?;
        let before = hosts.len();
        hosts.extend(words.map(|name| format!("{name}:{ip}")));
        if hosts.len() == before {
            return Err(format!("Hosts: \"{line}\" should be an address and a name"));
        }
    }
    Ok(hosts)
}

fn security_options(spec: &ContainerSpec) -> Result<Option<Vec<String>>, String> {
    if let Some(isolation) = spec.extra.get("Isolation")
        && !says_nothing(isolation)
        && isolation != "default"
    {
        return Err(format!("ContainerSpec.Isolation {isolation} is not supported"));
    }
    let options = swarm_model::security_options(&spec.extra).map_err(|e| e.to_string())?;
    Ok((!options.is_empty()).then_some(options))
}

/// A field that this program does not know and that says something is an error: the task would not run as asked.
fn refuse_unknown(place: &str, extra: &Extra, known: &[&str]) -> Result<(), String> {
    match extra.iter().find(|(name, value)| !known.contains(&name.as_str()) && !says_nothing(value)) {
        Some((name, _)) => Err(format!("{place}.{name} is not supported yet; remove it from the service")),
        None => Ok(()),
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// Zero means "not given".
fn number(n: i64) -> Option<i64> {
    (n != 0).then_some(n)
}

#[cfg(test)]
mod tests;
