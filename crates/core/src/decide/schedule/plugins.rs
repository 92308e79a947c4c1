//! The plugin filter: whether a node's engine has the drivers that a task names (swarm-behaviour §5.2).

use swarm_model::{EngineDescription, MountType, Node, ServiceSpec};

/// A driver that an engine must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Driver {
    kind: &'static str,
    name: String,
}

/// The log driver and the volume drivers of a service, but for those that every engine has.
pub(super) fn drivers(spec: &ServiceSpec) -> Vec<Driver> {
    let task = &spec.task_template;
    let log = task.log_driver.iter().map(|driver| driver.name.as_str()).filter(|name| !matches!(*name, "" | "none"));
    let mounts = task.container_spec.mounts.iter().filter(|mount| mount.kind == MountType::Volume);
    let volumes = mounts
        .filter_map(|mount| Some(mount.volume_options.as_ref()?.driver_config.as_ref()?.name.as_str()))
        .filter(|name| !matches!(*name, "" | "local"));
    let driver = |kind| move |name: &str| Driver { kind, name: name.to_owned() };
    log.map(driver("Log")).chain(volumes.map(driver("Volume"))).collect()
}

/// The same by kind, `Log` or `Volume`, and name: for people.
pub(in crate::decide) fn named_drivers(spec: &ServiceSpec) -> Vec<(&'static str, String)> {
    drivers(spec).into_iter().map(|driver| (driver.kind, driver.name)).collect()
}

/// Whether the engine of a node has all of them. An engine that names no log drivers at all has them all, as far as
/// anyone knows, and so has a node that says nothing of its engine.
pub(super) fn has_all(drivers: &[Driver], node: &Node) -> bool {
    let engine = node.description.as_ref().map(|d| &d.engine).filter(|e| **e != EngineDescription::default());
    engine.is_none_or(|engine| drivers.iter().all(|driver| has(engine, driver)))
}

fn has(engine: &EngineDescription, driver: &Driver) -> bool {
    let mut of_kind = engine.plugins.iter().filter(|plugin| plugin.kind == driver.kind).peekable();
    (driver.kind == "Log" && of_kind.peek().is_none())
        || of_kind.any(|p| p.name == driver.name || p.name.strip_suffix(":latest") == Some(&driver.name))
}
