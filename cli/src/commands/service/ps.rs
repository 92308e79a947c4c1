//! `service ps`

use swarm_docker_api::view::{TaskView, WhyView};

use super::find;
use crate::{
    client::{Query, segment},
    clock,
    commands::why::warning_lines,
    context::Context,
    error::Reported,
    filters,
    format::render,
    names::Names,
    tasks::{COLUMNS, TaskListFlags, rows},
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service ps web
  swarmctl service ps --no-trunc web api
  swarmctl service ps --filter desired-state=running --format '{{.Name}} {{.Node}} {{.Ports}}' web

Filters: id, name (both match beginnings), node, desired-state";

/// List the tasks of services, older attempts below newer ones
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ps {
    /// Names or ids
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    flags: TaskListFlags,
}

impl Ps {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let (mut found, mut published) = (Vec::new(), Vec::new());
        let mut missing = false;
        for reference in &self.services {
            match find(&context.client, reference).await {
                Ok(service) => {
                    if !service.endpoint.ports.is_empty() {
                        published.push(service.id.clone());
                    }
                    found.push((service.id, service.spec.name.clone()));
                }
                Err(error) if error.is::<crate::error::Hinted>() => {
                    missing = true;
                    context.out.note(&format!("Error: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        if !found.is_empty() {
            let ids = found.iter().map(|(id, _)| ("service".to_owned(), id.clone()));
            let filter: Vec<_> = ids.chain(self.flags.list.filter.iter().cloned()).collect();
            let query = Query::new().with_some("filters", filters::to_json(&filter));
            let tasks: Vec<TaskView> = context.client.get("/tasks", query).await?;
            let (services, nodes) = match self.flags.no_resolve {
                true => (Names::default(), Names::default()),
                false => (Names::from_iter(found), Names::of_nodes(&context.client).await?),
            };
            let rows = rows(tasks, &services, &nodes, self.flags.no_trunc, clock::now());
            let list = &self.flags.list;
            context.out.print(&render(&COLUMNS, rows, list.format.as_deref(), list.quiet)?)?;
            if !list.quiet {
                warn(context, &published).await?;
            }
        }
        if missing { Err(Reported.into()) } else { Ok(()) }
    }
}

/// Says which warnings of nodes concern the published ports of these services.
async fn warn(context: &mut Context, services: &[String]) -> anyhow::Result<()> {
    for service in services {
        let path = format!("/swarmd/services/{}/why", segment(service));
        let why: WhyView = match context.client.get(&path, Query::new()).await {
            Ok(why) => why,
            // The task was removed meanwhile.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        for warning in warning_lines(&why) {
            context.out.note(&format!("Warning: {warning}"));
        }
    }
    Ok(())
}
