//! `service inspect --pretty`

use std::collections::BTreeMap;

use swarm_docker_api::view::ServiceView;
use swarm_model::{
    ContainerSpec, HealthConfig, Mount, OBJECT_FILE_MODE_DEFAULT, ObjectFile, ObjectKind, RestartPolicy, ServiceMode,
    UpdateConfig,
};

use crate::{
    pretty::Page,
    units::{format_bytes, format_cpus, format_duration},
};

/// A service for people. `networks` has the names of networks by their ids.
pub(super) fn service(service: &ServiceView, networks: &BTreeMap<String, String>) -> String {
    let spec = &service.spec;
    let task = &spec.task_template;
    let mut page = Page::default();
    page.field("ID", &service.id);
    page.field("Name", &spec.name);
    page.map("Labels", &spec.labels);
    match &spec.mode {
        ServiceMode::Replicated { replicas } => {
            page.field("Service Mode", "Replicated");
            page.indented("Replicas", replicas);
        }
        ServiceMode::Global => page.field("Service Mode", "Global"),
        ServiceMode::ReplicatedJob(job) => {
            page.field("Service Mode", "ReplicatedJob");
            page.indented_some("Max Concurrent", job.max_concurrent);
            page.indented_some("Total Completions", job.total_completions);
        }
        ServiceMode::GlobalJob => page.field("Service Mode", "GlobalJob"),
    }
    if let Some(job) = &service.job_status {
        page.title("JobStatus");
        page.indented("Job Iteration", job.job_iteration.index);
        page.indented("Last Execution", job.last_execution);
    }
    if let Some(status) = &service.update_status {
        page.title("UpdateStatus");
        page.indented("State", &status.state);
        page.indented_some("Started", status.started_at);
        page.indented_some("Completed", status.completed_at);
        page.indented("Message", &status.message);
    }
    if let Some(placement) = &task.placement {
        page.title("Placement");
        page.indented_list("Constraints", &placement.constraints);
        let spread = placement.preferences.iter().filter_map(|p| Some(p.spread.as_ref()?.spread_descriptor.clone()));
        page.indented_list("Spread", &spread.collect::<Vec<_>>());
        page.indented_some("Max Replicas Per Node", (placement.max_replicas > 0).then_some(placement.max_replicas));
    }
    restart(&mut page, task.restart_policy.as_ref());
    rollout(&mut page, "UpdateConfig", spec.update_config.as_ref());
    rollout(&mut page, "RollbackConfig", spec.rollback_config.as_ref());
    container(&mut page, &task.container_spec);
    if let Some(driver) = &task.log_driver {
        page.title("Log Driver");
        page.indented("Name", &driver.name);
        for (key, value) in &driver.options {
            page.indented(key, value);
        }
    }
    resources(&mut page, service);
    if !task.networks.is_empty() {
        let names: Vec<&str> = task.networks.iter().map(|network| network_name(networks, &network.target)).collect();
        page.field("Networks", names.join(" "));
    }
    if !service.endpoint.virtual_ips.is_empty() {
        page.title("Virtual IPs");
        for ip in &service.endpoint.virtual_ips {
            page.indented(network_name(networks, &ip.network_id), &ip.addr);
        }
    }
    if let Some(mode) = service.endpoint.spec.mode {
        page.field("Endpoint Mode", format!("{mode:?}").to_lowercase());
    }
    if !service.endpoint.ports.is_empty() {
        page.title("Ports");
        for port in &service.endpoint.ports {
            let mode = format!("{:?}", port.publish_mode).to_lowercase();
            page.indented("PublishedPort", port.published_port);
            page.deeper("Protocol", port.protocol.as_str());
            page.deeper("TargetPort", port.target_port);
            page.deeper("PublishMode", mode);
        }
    }
    if let Some(health) = &task.container_spec.healthcheck {
        healthcheck(&mut page, health);
    }
    page.text()
}

/// The name of a network, or its id if that is all there is.
fn network_name<'a>(networks: &'a BTreeMap<String, String>, id: &'a str) -> &'a str {
    networks.get(id).map_or(id, String::as_str)
}

fn restart(page: &mut Page, policy: Option<&RestartPolicy>) {
    let Some(policy) = policy else { return };
    page.title("RestartPolicy");
    let condition = serde_json::to_value(policy.condition).ok();
    page.indented_some("Condition", condition.as_ref().and_then(|c| c.as_str()));
    page.indented("Delay", format_duration(policy.delay_or_default_ns()));
    page.indented("Max Attempts", policy.max_attempts);
    page.indented_some("Window", policy.window_ns.filter(|ns| *ns > 0).map(format_duration));
}

fn rollout(page: &mut Page, title: &str, config: Option<&UpdateConfig>) {
    let Some(config) = config else { return };
    page.title(title);
    page.indented("Parallelism", config.parallelism);
    page.indented_some("Delay", (config.delay_ns > 0).then(|| format_duration(config.delay_ns)));
    page.indented("On failure", format!("{:?}", config.failure_action).to_lowercase());
    page.indented_some("Monitoring Period", config.monitor_ns.map(format_duration));
    page.indented("Max failure ratio", config.max_failure_ratio);
    let order = serde_json::to_value(config.order).ok();
    page.indented_some("Update order", order.as_ref().and_then(|o| o.as_str()));
}

fn container(page: &mut Page, container: &ContainerSpec) {
    page.title("ContainerSpec");
    page.indented("Image", &container.image);
    page.indented_list("Command", &container.command);
    page.indented_list("Args", &container.args);
    page.indented_list("Env", &container.env);
    let texts = [("Dir", &container.dir), ("User", &container.user), ("Hostname", &container.hostname)];
    for (name, text) in texts {
        page.indented_some(name, (!text.is_empty()).then_some(text));
    }
    page.indented_some("Init", container.init);
    page.indented_some("Stop Signal", (!container.stop_signal.is_empty()).then_some(&container.stop_signal));
    page.indented_some("Stop Grace Period", container.stop_grace_period_ns.map(format_duration));
    page.indented_list("Capabilities added", &container.capability_add);
    page.indented_list("Capabilities dropped", &container.capability_drop);
    if !container.mounts.is_empty() {
        page.title("Mounts");
        for mount in &container.mounts {
            one_mount(page, mount);
        }
    }
    let files = match container.object_files() {
        Ok(files) => files,
        // A server of another version may show files that this program does not understand.
        Err(error) => {
            page.title("Configs and secrets");
            return page.indented("Not understood", format!("{error}; inspect without --pretty shows them"));
        }
    };
    for (title, kind) in [("Configs", ObjectKind::Config), ("Secrets", ObjectKind::Secret)] {
        object_files(page, title, files.iter().filter(|file| file.reference.kind == kind));
    }
}

fn object_files<'a>(page: &mut Page, title: &str, files: impl Iterator<Item = &'a ObjectFile>) {
    for (at, file) in files.enumerate() {
        if at == 0 {
            page.title(title);
        }
        page.indented("Target", &file.target);
        page.deeper("Source", &file.reference.name);
        page.deeper_some("Owner", ((file.uid, file.gid) != (0, 0)).then(|| format!("{}:{}", file.uid, file.gid)));
        page.deeper_some("Mode", (file.mode != OBJECT_FILE_MODE_DEFAULT).then(|| format!("0{:03o}", file.mode)));
    }
}

fn one_mount(page: &mut Page, mount: &Mount) {
    page.indented("Target", &mount.target);
    page.deeper("Source", &mount.source);
    page.deeper("ReadOnly", mount.read_only);
    page.deeper("Type", format!("{:?}", mount.kind).to_lowercase());
}

fn resources(page: &mut Page, service: &ServiceView) {
    let Some(resources) = &service.spec.task_template.resources else { return };
    page.title("Resources");
    let mut show = |title: &str, nano_cpus: i64, memory_bytes: i64| {
        if nano_cpus > 0 || memory_bytes > 0 {
            page.indented(title, "");
            page.deeper_some("CPU", (nano_cpus > 0).then(|| format_cpus(nano_cpus)));
            page.deeper_some("Memory", (memory_bytes > 0).then(|| format_bytes(memory_bytes)));
        }
    };
    if let Some(r) = &resources.reservations {
        show("Reservations", r.nano_cpus, r.memory_bytes);
    }
    if let Some(l) = &resources.limits {
        show("Limits", l.nano_cpus, l.memory_bytes);
    }
}

fn healthcheck(page: &mut Page, health: &HealthConfig) {
    page.title("Healthcheck");
    page.indented_list("Test", &health.test);
    for (name, ns) in [
        ("Interval", health.interval_ns),
        ("Timeout", health.timeout_ns),
        ("StartPeriod", health.start_period_ns),
        ("StartInterval", health.start_interval_ns),
    ] {
        page.indented_some(name, (ns > 0).then(|| format_duration(ns)));
    }
    page.indented_some("Retries", (health.retries > 0).then_some(health.retries));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_set_is_shown() {
        let view = serde_json::from_value(json!({
            "ID": "hyf", "Spec": {"Name": "web", "Labels": {"tier": "web"}, "Mode": {"Replicated": {"Replicas": 2}},
                "TaskTemplate": {"ContainerSpec": {"Image": "busybox:1.35", "Args": ["sh", "-c", "x"],
                        "Mounts": [{"Type": "volume", "Source": "v", "Target": "/data"}],
                        "Secrets": [
                            {"SecretID": "a", "SecretName": "key", "File": {"Name": "tls.key", "Mode": 292}},
                            {"SecretID": "b", "SecretName": "db", "File": {"UID": "7", "GID": "8", "Mode": 256}}],
                        "Configs": [{"ConfigID": "c", "ConfigName": "site", "File": {"Name": "/etc/site.conf"}}]},
                    "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864}},
                    "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 3},
                    "Networks": [{"Target": "n1"}, {"Target": "n2"}]},
                "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"}},
            "Endpoint": {"Spec": {"Mode": "vip"}, "VirtualIPs": [{"NetworkID": "n1", "Addr": "10.0.1.2/24"}],
                "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]},
        }))
        .unwrap();
        assert_eq!(
            service(&view, &[("n1".to_owned(), "front".to_owned())].into()),
            "\
ID:             hyf
Name:           web
Labels:
 tier=web
Service Mode:   Replicated
 Replicas:      2
RestartPolicy:
 Condition:     on-failure
 Delay:         5s
 Max Attempts:  3
UpdateConfig:
 Parallelism:   1
 On failure:    pause
 Max failure ratio: 0
 Update order:  stop-first
ContainerSpec:
 Image:         busybox:1.35
 Args:          sh -c x
Mounts:
 Target:        /data
  Source:       v
  ReadOnly:     false
  Type:         volume
Configs:
 Target:        /etc/site.conf
  Source:       site
Secrets:
 Target:        tls.key
  Source:       key
 Target:        db
  Source:       db
  Owner:        7:8
  Mode:         0400
Resources:
 Limits:
  CPU:          0.5
  Memory:       64MiB
Networks:       front n2
Virtual IPs:
 front:         10.0.1.2/24
Endpoint Mode:  vip
Ports:
 PublishedPort: 8080
  Protocol:     tcp
  TargetPort:   80
  PublishMode:  host
"
        );
    }
}
