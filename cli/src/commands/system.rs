//! `version`, `info`, `completion`.

use serde_json::{Value, json};
use swarm_docker_api::view::{InfoView, VersionView};

use crate::{
    client::{Query, read},
    context::Context,
    pretty::Page,
    template::Template,
    units::format_bytes,
};

const VERSION_EXAMPLES: &str = "\
Examples:
  swarmctl version
  swarmctl version --format '{{.Server.Version}}'";

const INFO_EXAMPLES: &str = "\
Examples:
  swarmctl info
  swarmctl info --format '{{.Swarm.NodeID}}'
  swarmctl info --format json";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  swarmctl completion bash > /etc/bash_completion.d/swarmctl
  swarmctl completion zsh > ~/.zfunc/_swarmctl
  swarmctl completion fish > ~/.config/fish/completions/swarmctl.fish";

/// Show the versions of swarmctl and of the swarmd that it talks to
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = VERSION_EXAMPLES)]
pub(crate) struct Version {
    /// 'json', or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Show the node and its swarm in short
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = INFO_EXAMPLES)]
pub(crate) struct Info {
    /// 'json', or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Print the completions of a shell
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(crate) struct Completion {
    /// Shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

impl Version {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let client = json!({"Version": env!("CARGO_PKG_VERSION"), "ApiVersion": "1.50"});
        let answer = context.client.get_bytes("/version", Query::new()).await;
        if let Some(format) = &self.format {
            let server: Value = read("/version", &answer?)?;
            return formatted(context, format, &json!({"Client": client, "Server": server}));
        }
        let mut page = Page::default();
        page.title("Client");
        page.indented("Version", env!("CARGO_PKG_VERSION"));
        page.indented("API version", "1.50");
        // Our own version is worth showing without a server.
        context.out.print(&page.text())?;
        let server: VersionView = read("/version", &answer?)?;
        let mut page = Page::default();
        page.title("Server");
        page.indented("Version", &server.version);
        page.indented("API version", format!("{} (minimum {})", server.api_version, server.min_api_version));
        page.indented("OS/Arch", format!("{}/{}", server.os, server.arch));
        for component in &server.components {
            page.indented(&component.name, &component.version);
        }
        Ok(context.out.print(&page.text())?)
    }
}

impl Info {
    pub(crate) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let bytes = context.client.get_bytes("/info", Query::new()).await?;
        if let Some(format) = &self.format {
            return formatted(context, format, &read("/info", &bytes)?);
        }
        let info: InfoView = read("/info", &bytes)?;
        let swarm = &info.swarm;
        let mut page = Page::default();
        page.field("Name", &info.name);
        page.field("Server Version", &info.server_version);
        page.field("OS/Arch", format!("{}/{}", info.os_type, info.architecture));
        page.field("CPUs", info.ncpu);
        page.field("Memory", format_bytes(info.mem_total));
        page.field("Swarm", &swarm.local_node_state);
        if !swarm.error.is_empty() {
            page.indented("Error", &swarm.error);
        }
        if !swarm.node_id.is_empty() {
            page.indented("NodeID", &swarm.node_id);
            page.indented("Role", if swarm.control_available { "manager" } else { "worker" });
            page.indented("Node Address", &swarm.node_addr);
        }
        if let Some(cluster) = &swarm.cluster {
            page.indented("ClusterID", &cluster.id);
            page.indented("Managers", swarm.managers);
            page.indented("Nodes", swarm.nodes);
        }
        for peer in swarm.remote_managers.iter().flatten() {
            page.indented("Manager", &peer.addr);
        }
        context.out.print(&page.text())?;
        for warning in info.warnings.iter().flatten() {
            context.out.note(&format!("WARNING: {warning}"));
        }
        Ok(())
    }
}

fn formatted(context: &mut Context, format: &str, value: &Value) -> anyhow::Result<()> {
    let template = Template::parse(if format == "json" { "{{json .}}" } else { format })?;
    Ok(context.out.line(&template.render(value)?)?)
}
