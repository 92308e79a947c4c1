//! `network ls`

use swarm_docker_api::view::NetworkView;

use super::NETWORKS;
use crate::{
    client::Query,
    context::Context,
    filters,
    format::{Columns, ListFormat, Row, render, row},
    units::{natural_cmp, short_id},
};

const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}\t{{.Subnets}}",
    titles: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Subnets", "SUBNETS"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

/// Lists networks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    list: ListFormat,
    /// Print whole ids
    #[arg(long)]
    no_trunc: bool,
}

impl Ls {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with_some("filters", filters::to_json(&self.list.filter));
        let mut networks: Vec<NetworkView> = context.client.get(NETWORKS, query).await?;
        networks.sort_by(|a, b| natural_cmp(&a.name, &b.name).then_with(|| a.id.cmp(&b.id)));
        let rows = networks.iter().map(|network| network_row(network, self.no_trunc)).collect();
        let text = render(&COLUMNS, rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(context.out.print(&text)?)
    }
}

fn network_row(network: &NetworkView, no_trunc: bool) -> Row {
    let labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let subnets: Vec<&str> = network.ipam.config.iter().map(|config| config.subnet.as_str()).collect();
    let id = if no_trunc { &network.id } else { short_id(&network.id) };
    row([
        ("ID", id.to_owned()),
        ("Name", network.name.clone()),
        ("Driver", network.driver.clone()),
        ("Scope", network.scope.clone()),
        ("Subnets", subnets.join(" ")),
        ("IPv4", network.enable_ipv4.to_string()),
        ("IPv6", network.enable_ipv6.to_string()),
        ("Internal", network.internal.to_string()),
        ("Labels", labels.join(",")),
        ("CreatedAt", network.created.to_string()),
    ])
}
