//! `service endpoints`

use swarm_docker_api::view::TaskEndpointView;

use super::no_such_service;
use crate::{
    client::{Query, segment},
    context::Context,
    format::{Columns, Row, render, row},
};

const COLUMNS: Columns = Columns {
    default: "{{.Name}}\t{{.Node}}\t{{.State}}\t{{.Reason}}",
    titles: &[("Name", "NAME"), ("ID", "ID"), ("Node", "NODE"), ("State", "STATE"), ("Reason", "REASON")],
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service endpoints web
  swarmctl service endpoints --format '{{.Name}} {{.State}}' web

STATE is 'in' for a task that gets connections from the published ports of all nodes, 'starting' for one that does not run
yet, 'draining' for one that is to stop and keeps the connections that it has, 'out' for one that gets none.";

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
}

impl Endpoints {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let path = format!("/swarmd/services/{}/endpoints", segment(&self.service));
        let found: Result<Vec<TaskEndpointView>, _> = context.client.get(&path, Query::new()).await;
        let endpoints = found.map_err(|error| {
            if error.is_not_found() { no_such_service(&self.service).into() } else { anyhow::Error::from(error) }
        })?;
        let rows = endpoints.into_iter().map(|endpoint| {
            row([
                ("Name", endpoint.name),
                ("ID", endpoint.task_id),
                ("Node", endpoint.node),
                ("State", endpoint.state),
                ("Reason", endpoint.reason),
            ])
        });
        let rows: Vec<Row> = rows.collect();
        Ok(context.out.print(&render(&COLUMNS, rows, self.format.as_deref(), false)?)?)
    }
}
