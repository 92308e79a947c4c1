//! The flags that `service create` and `service update` have in common.

use anyhow::bail;
use serde_json::Value;
use swarm_model::{EndpointMode, ObjectKind, PortConfig};

use super::{
    container::ContainerFlags,
    draft::Draft,
    env::Lookup,
    key_value::{Pair, parse_label},
    network::NetworkFlags,
    objects::{ObjectFlags, ObjectIds},
    placement::PlacementFlags,
    port::parse_ports,
    resources::ResourceFlags,
    restart::RestartFlags,
    rollout::{RollbackFlags, UpdateFlags},
};
use crate::choice::choice;

/// Where the ports are.
pub(super) const PORTS: &str = "EndpointSpec/Ports";

/// What a service is, apart from its image, its mode and its name. Flags that can be repeated add to what is there.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub(super) struct CommonFlags {
    /// Number of tasks
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    /// Tasks of a job that run at the same time
    #[arg(long, value_name = "N")]
    max_concurrent: Option<u64>,
    /// Label of the service; can be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<Pair>,
    /// Publish a port: target=,published=,protocol=,mode=host; can be repeated
    #[arg(short, long, value_name = "PORT", value_parser = |text: &str| parse_ports(text).map(Ports))]
    publish: Vec<Ports>,
    /// How other services find this one
    #[arg(long, value_name = "MODE", value_parser = choice::<EndpointMode>(&["vip", "dnsrr"]))]
    endpoint_mode: Option<EndpointMode>,
    #[command(flatten)]
    networks: NetworkFlags,
    #[command(flatten)]
    placement: PlacementFlags,
    #[command(flatten)]
    restart: RestartFlags,
    #[command(flatten)]
    update: UpdateFlags,
    #[command(flatten)]
    rollback: RollbackFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    objects: ObjectFlags,
}

/// The ports of one flag. A type of its own, since a flag that gives a list would be read as one value for each.
#[derive(Clone, Debug, PartialEq)]
struct Ports(Vec<PortConfig>);

impl CommonFlags {
    /// The number of tasks, if it is set.
    pub(super) fn replicas(&self) -> Option<u64> {
        self.replicas
    }

    /// The objects that are named.
    pub(super) fn objects(&self) -> Vec<(ObjectKind, &str)> {
        self.objects.names().into_iter().chain(self.networks.names()).collect()
    }

    /// Writes what is set into a spec that has a mode. `ids` has those of the objects that are named.
    ///
    /// # Errors
    /// Flags that do not fit the mode, or values that are wrong.
    pub(super) fn apply(&self, draft: &mut Draft, lookup: Lookup<'_>, ids: &ObjectIds) -> anyhow::Result<()> {
        self.apply_numbers(draft)?;
        draft.merge_map("Labels", &self.label);
        draft.merge(PORTS, self.publish.iter().flat_map(|ports| &ports.0), is_same_port);
        draft.set_some("EndpointSpec/Mode", self.endpoint_mode);
        self.placement.apply(draft);
        self.restart.apply(draft);
        self.update.apply(draft);
        self.rollback.apply(draft);
        self.resources.apply(draft);
        self.objects.apply(draft, ids)?;
        self.networks.apply(draft, ids)?;
        self.container.apply(draft, lookup)
    }

    fn apply_numbers(&self, draft: &mut Draft) -> anyhow::Result<()> {
        let is_job = draft.get("Mode/ReplicatedJob").is_some();
        if draft.get("Mode/Global").is_some() || draft.get("Mode/GlobalJob").is_some() {
            let per_node = self.placement.replicas_max_per_node.map(|_| "--replicas-max-per-node");
            if let Some(flag) = self.replicas.map(|_| "--replicas").or(per_node) {
                bail!("{flag} does not fit a global service: it runs one task on each node");
            }
        }
        if self.max_concurrent.is_some() && !is_job {
            bail!("--max-concurrent does not fit this service: only a replicated job has it");
        }
        let replicas = if is_job { "Mode/ReplicatedJob/TotalCompletions" } else { "Mode/Replicated/Replicas" };
        draft.set_some(replicas, self.replicas);
        draft.set_some("Mode/ReplicatedJob/MaxConcurrent", self.max_concurrent);
        Ok(())
    }
}

/// Whether two ports are the same one, whatever it is called.
fn is_same_port(a: &Value, b: &Value) -> bool {
    let key = |port: &Value| {
        let port = serde_json::from_value::<PortConfig>(port.clone()).ok()?;
        Some((port.protocol, port.target_port, port.published_port, port.publish_mode))
    };
    key(a) == key(b)
}
