//! `node inspect`

use swarm_docker_api::view::NodeView;

use super::resolve_all;
use crate::{
    client::Query,
    context::Context,
    inspect::{InspectFlags, Kind, inspect},
    pretty::Page,
    units::{capitalise, format_bytes, format_cpus},
};

const EXAMPLES: &str = "\
Examples:
  swarmctl node inspect self --pretty
  swarmctl node inspect worker1
  swarmctl node inspect --format '{{.Spec.Availability}}' worker1";

/// Show nodes in full
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// Host names or ids, or 'self'
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    flags: InspectFlags,
}

impl Inspect {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let ids = resolve_all(&context.client, &self.nodes).await?;
        let kind = Kind { path: "/nodes", name: "node", query: Query::new(), pretty: Box::new(page) };
        inspect(context, kind, &ids, &self.flags).await
    }
}

fn page(node: &NodeView) -> String {
    let description = &node.description.description;
    let mut page = Page::default();
    page.field("ID", &node.id);
    page.map("Labels", &node.spec.labels);
    page.field("Hostname", &description.hostname);
    page.field("Joined at", node.created_at);
    page.title("Status");
    page.indented("State", capitalise(&node.status.state));
    page.indented_some("Message", (!node.status.message.is_empty()).then_some(&node.status.message));
    let by_policy = node.drain_deadline.map_or_else(String::new, |until| format!(" (by policy until {until})"));
    page.indented("Availability", capitalise(node.spec.availability.as_str()) + &by_policy);
    page.indented("Address", &node.status.addr);
    if let Some(manager) = &node.manager_status {
        page.title("Manager Status");
        page.indented("Address", &manager.addr);
        page.indented("Raft Status", capitalise(&manager.reachability));
        page.indented("Leader", if manager.leader { "Yes" } else { "No" });
    }
    if !node.warnings.is_empty() {
        page.title("Warnings");
    }
    for warning in &node.warnings {
        page.line(&warning.text);
    }
    page.title("Platform");
    page.indented("OS", &description.platform.os);
    page.indented("Architecture", &description.platform.architecture);
    page.title("Resources");
    page.indented("CPUs", format_cpus(description.resources.nano_cpus));
    page.indented("Memory", format_bytes(description.resources.memory_bytes));
    let mut plugins: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for plugin in &description.engine.plugins {
        plugins.entry(&plugin.kind).or_default().push(plugin.name.clone());
    }
    if !plugins.is_empty() {
        page.title("Plugins");
    }
    for (kind, names) in plugins {
        page.indented_list(kind, &names);
    }
    page.field("Engine Version", &description.engine.engine_version);
    page.map("Engine Labels", &description.engine.labels);
    page.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_known_is_shown() {
        let node = serde_json::from_value(json!({
            "ID": "va7", "CreatedAt": "2026-11-22T11:43:10Z",
            "Spec": {"Labels": {"zone": "east"}, "Role": "manager", "Availability": "active"},
            "Description": {"Hostname": "vm", "Platform": {"Architecture": "x86_64", "OS": "linux"},
                "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 25_274_793_984_i64},
                "Engine": {"EngineVersion": "28.2.2", "Plugins": [{"Type": "Log", "Name": "json-file"}]}},
            "Status": {"State": "ready", "Addr": "127.0.0.1"},
            "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "127.0.0.1:2377"},
            "Warnings": [{"Cause": {"port-taken": {"Protocol": "tcp", "Published": 22}}, "Text": "22 is taken"}],
        }))
        .unwrap();
        assert_eq!(
            page(&node),
            "\
ID:             va7
Labels:
 zone=east
Hostname:       vm
Joined at:      2026-11-22T11:43:10Z
Status:
 State:         Ready
 Availability:  Active
 Address:       127.0.0.1
Manager Status:
 Address:       127.0.0.1:2377
 Raft Status:   Reachable
 Leader:        Yes
Warnings:
 22 is taken
Platform:
 OS:            linux
 Architecture:  x86_64
Resources:
 CPUs:          2
 Memory:        23.54GiB
Plugins:
 Log:           json-file
Engine Version: 28.2.2
"
        );
    }
}
