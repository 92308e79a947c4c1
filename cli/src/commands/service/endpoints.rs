//! `service endpoints`

use swarm_docker_api::view::{EndpointsView, RefusedView, TaskEndpointView};

use super::no_such_service;
use crate::{
    client::{Query, segment},
    context::Context,
    format::{Columns, Row, render, row},
    units::format_bytes,
};

const TITLES: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("ID", "ID"),
    ("Node", "NODE"),
    ("State", "STATE"),
    ("Source", "SOURCE"),
    ("Connections", "OPEN"),
    ("ConnectionsTotal", "TOTAL"),
    ("BytesIn", "IN"),
    ("BytesOut", "OUT"),
    ("Errors", "ERRORS"),
    ("Reason", "REASON"),
];

const COLUMNS: Columns =
    Columns { default: "{{.Name}}\t{{.Node}}\t{{.State}}\t{{.Source}}\t{{.Reason}}", titles: TITLES };

const COLUMNS_WITH_STATS: Columns = Columns {
    default: "{{.Name}}\t{{.Node}}\t{{.State}}\t{{.Source}}\t{{.Connections}}\t{{.ConnectionsTotal}}\t{{.BytesIn}}\t\
              {{.BytesOut}}\t{{.Errors}}\t{{.Reason}}",
    titles: TITLES,
};

/// The source of a task whose node did not answer.
const UNKNOWN: &str = "unknown";

const EXAMPLES: &str = "\
Examples:
  swarmctl service endpoints web
  swarmctl service endpoints --stats web
  swarmctl service endpoints --format '{{.Name}} {{.State}}' web

STATE is 'in' for a task that gets connections from the published ports of all nodes, 'starting' for one that does not run
yet, 'draining' for one that is to stop and keeps the connections that it has, 'out' for one that gets none.

SOURCE is the address that the task sees connections come from: 'client' for the client's own, 'node' for one of its node,
'proxy' for one of its node with a header of the PROXY protocol. It is 'unknown' where the node does not answer.

With --stats, OPEN, TOTAL, IN, OUT and ERRORS are sums over all nodes since their data planes began: connections now and so
far, bytes to and from the task, and connections that it did not take or that failed.";

/// Show which tasks of a service get connections from its published ports
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Endpoints {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    /// How to print: 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.Name}} {{.State}}'
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Ask all nodes for connections, bytes and errors as well
    #[arg(long)]
    stats: bool,
}

impl Endpoints {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let path = format!("/swarmd/services/{}/endpoints", segment(&self.service));
        let query = Query::new().with_some("stats", self.stats.then_some("1"));
        let found: Result<EndpointsView, _> = context.client.get(&path, query).await;
        let view = found.map_err(|error| {
            if error.is_not_found() { no_such_service(&self.service).into() } else { anyhow::Error::from(error) }
        })?;
        let rows: Vec<Row> = view.endpoints.iter().map(|endpoint| endpoint_row(endpoint, &view)).collect();
        let columns = if self.stats { &COLUMNS_WITH_STATS } else { &COLUMNS };
        context.out.print(&render(columns, rows, self.format.as_deref(), false)?)?;
        for note in notes(&view) {
            context.out.note(&note);
        }
        Ok(())
    }
}

fn endpoint_row(endpoint: &TaskEndpointView, view: &EndpointsView) -> Row {
    let is_silent = || view.silent.iter().any(|silent| silent.node_id == endpoint.node_id);
    let source = match endpoint.source {
        Some(source) => source.as_str(),
        None if is_silent() => UNKNOWN,
        None => "",
    };
    let stats = endpoint.stats.unwrap_or_default();
    let bytes = |bytes: u64| format_bytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    row([
        ("Name", endpoint.name.clone()),
        ("ID", endpoint.task_id.clone()),
        ("Node", endpoint.node.clone()),
        ("State", endpoint.state.clone()),
        ("Source", source.to_owned()),
        ("Connections", stats.connections.to_string()),
        ("ConnectionsTotal", stats.connections_total.to_string()),
        ("BytesIn", bytes(stats.bytes_in)),
        ("BytesOut", bytes(stats.bytes_out)),
        ("Errors", stats.errors.to_string()),
        ("Reason", endpoint.reason.clone()),
    ])
}

/// The lines below the table: connections that were refused, and nodes that did not answer.
fn notes(view: &EndpointsView) -> Vec<String> {
    let RefusedView { over_connections, over_rate, bad_headers } = view.refused.unwrap_or_default();
    let refused = [
        (over_connections, "by swarmd.ingress.connections-max"),
        (over_rate, "by swarmd.ingress.rate-max"),
        (bad_headers, "for want of a header of the PROXY protocol (swarmd.ingress.accept-proxy)"),
    ];
    let refused = refused.into_iter().filter(|(count, _)| *count > 0);
    let refused = refused.map(|(count, by)| format!("{count} connections were refused {by}"));
    let missing = if view.refused.is_some() { ", and its counters are in no sum" } else { "" };
    let silent = view
        .silent
        .iter()
        .map(|silent| format!("Warning: node {} did not answer{missing}: {}", silent.node, silent.reason));
    refused.chain(silent).collect()
}
