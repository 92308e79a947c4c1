//! `service inspect`

use std::collections::BTreeMap;

use swarm_docker_api::view::{NetworkView, SWARM_SCOPE, ServiceView};

use super::pretty;
use crate::{
    client::Query,
    context::Context,
    filters,
    inspect::{InspectFlags, Kind, inspect},
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service inspect web
  swarmctl service inspect --pretty web
  swarmctl service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web";

/// Show services in full
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    flags: InspectFlags,
}

impl Inspect {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with("insertDefaults", true);
        let names = if self.flags.pretty { network_names(context).await } else { BTreeMap::new() };
        let pretty = move |service: &ServiceView| pretty::service(service, &names);
        let kind = Kind { path: "/services", name: "service", query, pretty: Box::new(pretty) };
        inspect(context, kind, &self.services, &self.flags).await
    }
}

/// The names of the swarm's networks, by their ids. A network whose name cannot be had is shown by its id.
async fn network_names(context: &Context) -> BTreeMap<String, String> {
    let filters = filters::to_json(&[("scope".to_owned(), SWARM_SCOPE.to_owned())]);
    let networks: Result<Vec<NetworkView>, _> =
        context.client.get("/networks", Query::new().with_some("filters", filters)).await;
    networks.unwrap_or_default().into_iter().map(|network| (network.id, network.name)).collect()
}
