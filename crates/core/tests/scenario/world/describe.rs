//! What nodes say of themselves, and what asks for it.

use swarm_model::EnginePlugin;

use super::*;

impl World {
    /// A node says anew what it has: `cpu=`, `mem=` in GiB, `addr=`, `engine=KEY:VALUE` for a label,
    /// `version=` of the engine, `log=` and `volume=` for plugins.
    pub(super) fn describe(&mut self, name: &str, options: &Options<'_>) -> Result<String, String> {
        let id = self.node(name)?;
        let node = self.state.node(id).ok_or("the node was removed")?;
        let mut description = node.description.as_deref().cloned().unwrap_or_default();
        let mut status = node.status.clone();
        for (key, value) in options {
            let number = || value.parse::<i64>().map_err(|_| format!("{key} is a number"));
            let plugin = |kind: &str| EnginePlugin { kind: kind.into(), name: value.to_string() };
            match *key {
                "cpu" => description.resources.nano_cpus = number()? * SECOND_NS,
                "mem" => description.resources.memory_bytes = number()? << 30,
                "addr" => status.addr = value.to_string(),
                "engine" => {
                    let (key, value) = value.split_once(':').ok_or("engine=KEY:VALUE")?;
                    description.engine.labels.insert(key.into(), value.into());
                }
                "version" => description.engine.engine_version = value.to_string(),
                "log" => description.engine.plugins.push(plugin("Log")),
                "volume" => description.engine.plugins.push(plugin("Volume")),
                other => return Err(format!("a node says nothing of {other}")),
            }
        }
        self.user(Op::ReportNode { node: id, status, description: Some(description.into()) })
    }

    /// The history limit of the cluster.
    pub(super) fn keep(&mut self, count: i64) -> Result<String, String> {
        let mut spec = (*self.state.cluster().ok_or("no cluster")?.spec).clone();
        spec.orchestration.task_history_retention_limit = Some(count);
        self.user(Op::UpdateCluster { spec: spec.into(), join_tokens: None })
    }
}

/// The platforms of the image: `platforms=OS/ARCH,OS/ARCH`.
pub(super) fn platforms(options: &Options<'_>) -> serde_json::Value {
    let platform = |text: &str| {
        let (os, arch) = text.split_once('/').unwrap_or((text, ""));
        serde_json::json!({"OS": os, "Architecture": arch})
    };
    options.get("platforms").map_or(serde_json::json!([]), |texts| texts.split(',').map(platform).collect())
}

/// One volume, if the service is to have one: `volume=DRIVER`; or a folder that the engine is to make: `folder=PATH`.
pub(super) fn mounts(options: &Options<'_>) -> serde_json::Value {
    if let Some(folder) = options.get("folder") {
        let options = serde_json::json!({"CreateMountpoint": true});
        return serde_json::json!([{"Type": "bind", "Source": folder, "Target": "/v", "BindOptions": options}]);
    }
    options.get("volume").map_or(serde_json::json!([]), |driver| {
        let options = serde_json::json!({"DriverConfig": {"Name": driver}});
        serde_json::json!([{"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": options}])
    })
}
