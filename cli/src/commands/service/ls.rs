//! `service ls`

use swarm_docker_api::view::ServiceView;
use swarm_model::ServiceMode;

use crate::{
    client::Query,
    context::Context,
    filters,
    format::{Columns, ListFormat, Row, render, row},
    ports,
    tasks::without_digest,
    units::{natural_cmp, short_id},
};

const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
    titles: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ],
};

const EXAMPLES: &str = "\
Examples:
  swarmctl service ls
  swarmctl service ls --filter name=web --format '{{.Name}} {{.Replicas}}'
  swarmctl service ls -q --filter label=tier=web

Filters: id, name (both match beginnings), label, mode";

/// List services
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {
    #[command(flatten)]
    list: ListFormat,
}

impl Ls {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let query = Query::new().with("status", true).with_some("filters", filters::to_json(&self.list.filter));
        let mut services: Vec<ServiceView> = context.client.get("/services", query).await?;
        services.sort_by(|a, b| natural_cmp(&a.spec.name, &b.spec.name).then_with(|| a.id.cmp(&b.id)));
        let rows = services.iter().map(service_row).collect();
        let text = render(&COLUMNS, rows, self.list.format.as_deref(), self.list.quiet)?;
        Ok(context.out.print(&text)?)
    }
}

fn service_row(service: &ServiceView) -> Row {
    let spec = &service.spec;
    row([
        ("ID", short_id(&service.id).to_owned()),
        ("Name", spec.name.clone()),
        ("Mode", mode(&spec.mode).to_owned()),
        ("Replicas", replicas(service)),
        ("Image", without_digest(&spec.task_template.container_spec.image).to_owned()),
        ("Ports", ports::ingress(&service.endpoint.ports)),
    ])
}

fn mode(mode: &ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
        ServiceMode::ReplicatedJob(_) => "replicated job",
        ServiceMode::GlobalJob => "global job",
    }
}

fn replicas(service: &ServiceView) -> String {
    // Absent only from a server that does not count.
    let Some(status) = service.service_status else { return "-".to_owned() };
    let mut text = format!("{}/{}", status.running_tasks, status.desired_tasks);
    match &service.spec.mode {
        ServiceMode::ReplicatedJob(job) => {
            text += &format!(" ({}/{} completed)", status.completed_tasks, job.total());
        }
        ServiceMode::GlobalJob => {
            let total = status.desired_tasks + status.completed_tasks;
            text += &format!(" ({}/{total} completed)", status.completed_tasks);
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => {}
    }
    match service.spec.task_template.placement.as_ref().map_or(0, |p| p.max_replicas) {
        0 => text,
        max => format!("{text} (max {max} per node)"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_of_tasks() {
        let show = |mode: serde_json::Value, max: u64| {
            let service = serde_json::from_value(json!({
                "Spec": {"Mode": mode, "TaskTemplate": {"Placement": {"MaxReplicas": max}}},
                "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3, "CompletedTasks": 1},
            }));
            replicas(&service.unwrap())
        };
        assert_eq!(show(json!({"Replicated": {"Replicas": 3}}), 0), "2/3");
        assert_eq!(show(json!({"Replicated": {"Replicas": 3}}), 2), "2/3 (max 2 per node)");
        assert_eq!(
            show(json!({"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 9}}), 0),
            "2/3 (1/9 completed)"
        );
        assert_eq!(show(json!({"GlobalJob": {}}), 0), "2/3 (1/4 completed)");
    }
}
