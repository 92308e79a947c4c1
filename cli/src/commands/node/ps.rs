//! `node ps`

use swarm_docker_api::view::{NodeView, TaskView};

use super::resolve_all;
use crate::{
    client::{Query, segment},
    clock,
    context::Context,
    error::Reported,
    filters,
    format::render,
    names::Names,
    tasks::{COLUMNS, TaskListFlags, rows},
};

const EXAMPLES: &str = "\
Examples:
  swarmctl node ps
  swarmctl node ps --filter desired-state=running worker1 worker2

Filters: id, name (both match beginnings), label, desired-state";

/// List the tasks of nodes
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ps {
    /// Host names or ids
    #[arg(value_name = "NODE", default_value = "self")]
    nodes: Vec<String>,
    #[command(flatten)]
    flags: TaskListFlags,
}

impl Ps {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let mut missing = false;
        let mut ids = Vec::new();
        for (reference, id) in self.nodes.iter().zip(resolve_all(&context.client, &self.nodes).await?) {
            match context.client.get::<NodeView>(&format!("/nodes/{}", segment(&id)), Query::new()).await {
                Ok(node) => ids.push(node.id),
                Err(error) if error.is_not_found() => {
                    missing = true;
                    context.out.note(&format!("Error: no such node: {reference}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !ids.is_empty() {
            let ids = ids.into_iter().map(|id| ("node".to_owned(), id));
            let filter: Vec<_> = ids.chain(self.flags.list.filter.iter().cloned()).collect();
            let query = Query::new().with_some("filters", filters::to_json(&filter));
            let tasks: Vec<TaskView> = context.client.get("/tasks", query).await?;
            let (services, nodes) = match self.flags.no_resolve {
                true => (Names::default(), Names::default()),
                false => (Names::of_services(&context.client).await?, Names::of_nodes(&context.client).await?),
            };
            let rows = rows(tasks, &services, &nodes, self.flags.no_trunc, clock::now());
            let list = &self.flags.list;
            context.out.print(&render(&COLUMNS, rows, list.format.as_deref(), list.quiet)?)?;
        }
        if missing { Err(Reported.into()) } else { Ok(()) }
    }
}
