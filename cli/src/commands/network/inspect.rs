//! `network inspect`

use swarm_docker_api::view::NetworkView;

use super::NETWORKS;
use crate::{
    client::Query,
    context::Context,
    inspect::{InspectFlags, Kind, inspect},
    pretty::Page,
};

/// Shows networks in full.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Inspect {
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    #[command(flatten)]
    flags: InspectFlags,
    /// Show the services in the networks, with their tasks
    #[arg(short, long)]
    verbose: bool,
}

impl Inspect {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with_some("verbose", self.verbose.then_some(true));
        let kind = Kind { path: NETWORKS, name: "network", query, pretty: Box::new(page) };
        inspect(context, kind, &self.networks, &self.flags).await
    }
}

/// A network for people.
fn page(network: &NetworkView) -> String {
    let mut page = Page::default();
    page.field("ID", &network.id);
    page.field("Name", &network.name);
    page.map("Labels", &network.labels);
    page.field("Created at", network.created);
    page.field("Driver", &network.driver);
    page.field("Scope", &network.scope);
    page.map("Options", &network.options);
    for (name, is_so) in
        [("Internal", network.internal), ("Attachable", network.attachable), ("Ingress", network.ingress)]
    {
        if is_so {
            page.field(name, is_so);
        }
    }
    for config in &network.ipam.config {
        page.field("Subnet", &config.subnet);
        page.indented_some("Gateway", Some(&config.gateway).filter(|text| !text.is_empty()));
        page.indented_some("IP range", Some(&config.ip_range).filter(|text| !text.is_empty()));
        for (name, addr) in &config.aux_addresses {
            page.indented("Reserved", format!("{addr} ({name})"));
        }
    }
    if !network.peers.is_empty() {
        page.title("Nodes");
        for peer in &network.peers {
            page.indented(&peer.name, &peer.ip);
        }
    }
    for (name, service) in &network.services {
        page.field("Service", name);
        page.indented_some("VIP", Some(&service.vip).filter(|text| !text.is_empty()));
        page.indented_list("Ports", &service.ports);
        for task in &service.tasks {
            page.indented("Task", format!("{} {}", task.endpoint_ip, task.name));
        }
    }
    let containers = network.containers.iter().flat_map(|containers| containers.values());
    for (number, container) in containers.enumerate() {
        if number == 0 {
            page.title("Containers on this node");
        }
        page.indented(&container.name, [&*container.ipv4_address, &*container.ipv6_address].join(" ").trim());
    }
    page.text()
}
