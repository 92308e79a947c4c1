//! The plugin filter: whether a node's engine has the drivers that a task names (swarm-behaviour §5.2).

use swarm_model::{EngineDescription, MountType, Node, ServiceSpec};

/// Whether the engine of a node has the log driver and the volume drivers of a service. An engine that names no log
/// drivers at all has them all, as far as anyone knows, and so has a node that says nothing of its engine.
pub(super) fn has_plugins(spec: &ServiceSpec, node: &Node) -> bool {
    let Some(engine) = node.description.as_ref().map(|d| &d.engine).filter(|e| **e != EngineDescription::default())
    else {
        return true;
    };
    let task = &spec.task_template;
    let log_driver = task.log_driver.as_ref().map(|driver| driver.name.as_str());
    let logs = log_driver.is_none_or(|name| {
        name.is_empty() || name == "none" || !engine.plugins.iter().any(|p| p.kind == "Log") || has(engine, "Log", name)
    });
    logs && volume_drivers(spec).all(|name| has(engine, "Volume", name))
}

/// The drivers of its volumes but for the one that every engine has.
fn volume_drivers(spec: &ServiceSpec) -> impl Iterator<Item = &str> {
    let mounts = spec.task_template.container_spec.mounts.iter().filter(|mount| mount.kind == MountType::Volume);
    let drivers = mounts.filter_map(|mount| Some(mount.volume_options.as_ref()?.driver_config.as_ref()?.name.as_str()));
    drivers.filter(|name| !name.is_empty() && *name != "local")
}

fn has(engine: &EngineDescription, kind: &str, name: &str) -> bool {
    engine.plugins.iter().any(|p| p.kind == kind && (p.name == name || p.name.strip_suffix(":latest") == Some(name)))
}
