//! `node ls`

use swarm_docker_api::view::{InfoView, NodeView, TlsInfo};

use crate::{
    client::Query,
    context::Context,
    filters,
    format::{Columns, ListFormat, Row, render, row},
    units::{capitalise, natural_cmp},
};

const COLUMNS: Columns = Columns {
    default: "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}{{if .Note}} ({{.Note}}){{end}}\t\
              {{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
    titles: &[
        ("ID", "ID"),
        ("Self", "SELF"),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Note", "NOTE"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
        ("TLSStatus", "TLS STATUS"),
    ],
};

const EXAMPLES: &str = "\
Examples:
  swarmctl node ls
  swarmctl node ls --filter role=worker --format '{{.Hostname}} {{.Status}} {{.Availability}}'
  swarmctl node ls -q --filter node.label=zone=east

Filters: id, name (both match beginnings), label (of the engine), node.label, role, membership";

/// List nodes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {
    #[command(flatten)]
    list: ListFormat,
}

impl Ls {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with_some("filters", filters::to_json(&self.list.filter));
        let mut nodes: Vec<NodeView> = context.client.get("/nodes", query).await?;
        let info: InfoView = context.client.get("/info", Query::new()).await?;
        let hostname = |node: &NodeView| node.description.description.hostname.clone();
        nodes.sort_by(|a, b| natural_cmp(&hostname(a), &hostname(b)).then_with(|| a.id.cmp(&b.id)));
        let rows = nodes.iter().map(|node| node_row(node, &info)).collect();
        let text = render(&COLUMNS, rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(context.out.print(&text)?)
    }
}

fn node_row(node: &NodeView, info: &InfoView) -> Row {
    let description = &node.description.description;
    let manager = match &node.manager_status {
        Some(manager) if manager.leader => "Leader".to_owned(),
        Some(manager) => capitalise(&manager.reachability),
        None => String::new(),
    };
    // A node that is ready with something to say has trouble; of one that is down there is nothing more to say.
    let note = if node.status.state == "ready" { node.status.message.clone() } else { String::new() };
    let mut row = row([
        ("ID", node.id.clone()),
        ("Hostname", description.hostname.clone()),
        ("Status", capitalise(&node.status.state)),
        ("Note", note),
        ("Availability", capitalise(node.spec.availability.as_str())),
        ("ManagerStatus", manager),
        ("EngineVersion", description.engine.engine_version.clone()),
        ("TLSStatus", tls_status(node, info).to_owned()),
    ]);
    row.insert("Self".to_owned(), (node.id == info.swarm.node_id).into());
    row
}

fn tls_status(node: &NodeView, info: &InfoView) -> &'static str {
    let cluster = info.swarm.cluster.as_ref().map(|c| &c.tls_info);
    match cluster {
        None => "Unknown",
        Some(tls) if *tls == TlsInfo::default() => "Unknown",
        Some(tls) if *tls == node.description.tls_info => "Ready",
        Some(_) => "Needs Rotation",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_node_leader_and_trouble_show() {
        let node = |id: &str, status: serde_json::Value, manager: serde_json::Value| -> NodeView {
            serde_json::from_value(json!({
                "ID": id, "Spec": {"Availability": "drain"}, "Status": status, "ManagerStatus": manager,
                "Description": {"Hostname": "vm", "Engine": {"EngineVersion": "28.2.2"}},
            }))
            .unwrap()
        };
        let info: InfoView = serde_json::from_value(json!({"Swarm": {"NodeID": "va7xb8g07gyik6k261534mhsc"}})).unwrap();
        let nodes = [
            node("va7xb8g07gyik6k261534mhsc", json!({"State": "ready"}), json!({"Leader": true})),
            node("b", json!({"State": "ready", "Message": "engine unreachable"}), json!(null)),
            node("c", json!({"State": "down", "Message": "heartbeat failure"}), json!({"Reachability": "unreachable"})),
        ];
        let rows = nodes.iter().map(|n| node_row(n, &info)).collect();
        assert_eq!(
            render(&COLUMNS, rows, None, false).unwrap(),
            "\
ID                            HOSTNAME   STATUS                       AVAILABILITY   MANAGER STATUS   ENGINE VERSION
va7xb8g07gyik6k261534mhsc *   vm         Ready                        Drain          Leader           28.2.2
b                             vm         Ready (engine unreachable)   Drain                           28.2.2
c                             vm         Down                         Drain          Unreachable      28.2.2
"
        );
    }
}
