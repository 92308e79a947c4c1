//! `service history` and `service diff`

use std::sync::Arc;

use swarm_docker_api::view::{RevisionView, Time};
use swarm_model::Author;

use super::no_such_service;
use crate::{
    client::{Client, Query, segment},
    clock,
    context::Context,
    error::Hinted,
    format::{Columns, Row, render, row},
    spec_diff::differences,
    units::human_duration,
};

const COLUMNS: Columns = Columns {
    default: "{{.Version}}\t{{.Created}}\t{{.By}}\t{{.Mark}}\t{{.Changes}}",
    titles: &[
        ("Version", "VERSION"),
        ("Created", "CREATED"),
        ("By", "BY"),
        ("Mark", "MARK"),
        ("Changes", "CHANGES"),
        ("RestoredBy", "RESTORED BY"),
    ],
};

const HISTORY_EXAMPLES: &str = "\
Examples:
  swarmctl service history web
  swarmctl service history --format '{{.Version}} {{.By}}' web
  swarmctl service rollback --to 3 web

The last 10 versions are kept. Those that only changed the number of tasks are the first to go.";

/// List the versions of a service that a rollback can go back to, the newest first
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(crate) struct History {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    /// How to print: 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.Version}} {{.Changes}}'
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl History {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let history = read(&context.client, &self.service).await?;
        let now = clock::now();
        let rows = history.iter().rev().map(|revision| {
            let mark = match (revision.current, revision.previous) {
                (true, _) => "current",
                (_, true) => "previous",
                _ => "",
            };
            let ago = |at: Time| format!("{} ago", human_duration(now.since_ns(at.0)).to_lowercase());
            let by = |author: &Option<Arc<Author>>| author.as_ref().map(ToString::to_string).unwrap_or_default();
            let mut changes = changes(&history, revision);
            if let Some(at) = revision.restored_at {
                changes += &format!("; restored {} by {}", ago(at), by(&revision.restored_by));
            }
            row([
                ("Version", revision.number.to_string()),
                ("Created", ago(revision.created_at)),
                ("By", by(&revision.by)),
                ("Mark", mark.to_owned()),
                ("Changes", changes),
                ("RestoredBy", by(&revision.restored_by)),
            ])
        });
        let rows: Vec<Row> = rows.collect();
        Ok(context.out.print(&render(&COLUMNS, rows, self.format.as_deref(), false)?)?)
    }
}

/// What a version changed in the one that it came from, in a line.
fn changes(history: &[RevisionView], revision: &RevisionView) -> String {
    let image = &revision.spec.task_template.container_spec.image;
    let Some(base) = history.iter().find(|other| other.number == revision.base) else {
        return match revision.base {
            0 => format!("created with {image}"),
            base => format!("{image} (version {base}, which it changed, is no longer kept)"),
        };
    };
    let changes: Vec<String> = differences(&base.spec, &revision.spec).iter().map(|d| d.short()).collect();
    let from = if revision.base + 1 == revision.number { String::new() } else { format!("from {}: ", revision.base) };
    format!("{from}{}", changes.join(", "))
}

const DIFF_EXAMPLES: &str = "\
Examples:
  swarmctl service diff web        what the last change was
  swarmctl service diff web 3      what changed since version 3
  swarmctl service diff web 3 5    what changed from version 3 to version 5";

/// Show what differs between two versions of a service
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct Diff {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Version to start from [default: the previous one]
    #[arg(value_name = "A")]
    from: Option<u64>,
    /// Version to compare with [default: the current one]
    #[arg(value_name = "B")]
    to: Option<u64>,
}

impl Diff {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let history = read(&context.client, &self.service).await?;
        let find = |number: Option<u64>, what: &str, is_default: fn(&RevisionView) -> bool| {
            let found = history.iter().find(|r| number.map_or_else(|| is_default(r), |number| r.number == number));
            found.ok_or_else(|| Hinted {
                message: match number {
                    Some(number) => format!("service {} has no version {number}", self.service),
                    None => format!("service {} has no {what} version", self.service),
                },
                hint: format!("`swarmctl service history {}` lists those that there are.", self.service),
            })
        };
        let from = find(self.from, "previous", |revision| revision.previous)?;
        let to = find(self.to, "current", |revision| revision.current)?;
        let differences = differences(&from.spec, &to.spec);
        context.out.line(&format!("{}: version {} -> {}", to.spec.name, from.number, to.number))?;
        if differences.is_empty() {
            context.out.line("no difference")?;
        }
        for difference in differences {
            context.out.line(&difference.line())?;
        }
        Ok(())
    }
}

/// The versions of a service that are kept.
///
/// # Errors
/// There is no such service, or swarmd does not answer.
pub(super) async fn read(client: &Client, reference: &str) -> anyhow::Result<Vec<RevisionView>> {
    let path = format!("/swarmd/services/{}/history", segment(reference));
    client
        .get(&path, Query::new())
        .await
        .map_err(|error| if error.is_not_found() { no_such_service(reference).into() } else { error.into() })
}
