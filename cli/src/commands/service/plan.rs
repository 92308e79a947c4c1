//! `service plan …`: what a change would lead to. Nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use serde_json::{Value, json};
use swarm_docker_api::view::{PlanView, WaitingView, WaveView};

use super::{
    change::Current,
    create, history, no_such_service, object_ids,
    registry_flags::RegistryFlags,
    scale::{parse_target, scaled},
    update,
};
use crate::{
    client::{ClientError, Query, read},
    commands::why::rejection_lines,
    context::Context,
    error::{Exit, hint},
    inspect::AnswerFormat,
    spec_diff::{Difference, differences},
    spec_flags::{ChangeFlags, CreateFlags},
    table::align,
    units::{format_duration, one_line},
};

/// Something would change, and all tasks would find a node.
const CHANGES: u8 = 1;
/// A task would find no node.
const DOES_NOT_FIT: u8 = 2;
/// No plan could be made.
pub(crate) const NO_PLAN: u8 = 3;
/// Tasks of a wave that are listed; `--format json` has them all.
const STEPS_MAX: usize = 30;

const EXIT_CODES: &str = "\
Exit codes: 0 nothing would change, 1 something would, 2 a task would find no node or stay on one that it is to leave, or
the update would be rolled back, 3 no plan could be made.
Times are the earliest possible: starting, stopping and pulling images is taken to need no time, and nothing to fail.";

/// Show what a change would lead to, without making it.
#[derive(Debug, Subcommand)]
pub(crate) enum Plan {
    Create(Box<PlanCreate>),
    Update(Box<PlanUpdate>),
    Scale(PlanScale),
    Rollback(PlanRollback),
    Drain(PlanDrain),
}

/// Plan a new service
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = format!("Examples:\n  swarmctl service plan create --name web --replicas 3 --reserve-memory 2g nginx:1\n\n{EXIT_CODES}"),
    override_usage = "swarmctl service plan create [OPTIONS] IMAGE [COMMAND] [ARG...]"
)]
pub(crate) struct PlanCreate {
    #[command(flatten)]
    service: CreateFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    /// 'json', or a Go template such as '{{.Fits}}' [default: for people]
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Plan a change of a service
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  swarmctl service plan update --image nginx:2 --update-parallelism 2 web\n\n{EXIT_CODES}"))]
pub(crate) struct PlanUpdate {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    change: ChangeFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    /// 'json', or a Go template such as '{{.Fits}}' [default: for people]
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Plan another number of tasks
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  swarmctl service plan scale web=5\n\n{EXIT_CODES}"))]
pub(crate) struct PlanScale {
    /// Service with its number of tasks
    #[arg(value_name = "SERVICE=REPLICAS", value_parser = parse_target)]
    target: (String, u64),
    #[command(flatten)]
    format: AnswerFormat,
}

/// Plan the way back to an earlier version
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  swarmctl service plan rollback web\n  swarmctl service plan rollback --to 3 web\n\n{EXIT_CODES}"))]
pub(crate) struct PlanRollback {
    /// Name or id
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Go back to this version of the service's history
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    format: AnswerFormat,
}

/// Plan the drain of a node
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  swarmctl service plan drain worker1\n\n{EXIT_CODES}"))]
pub(crate) struct PlanDrain {
    /// Host name or id
    #[arg(value_name = "NODE")]
    node: String,
    /// Plan what `node drain --now` does
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    format: AnswerFormat,
}

impl Plan {
    pub(super) async fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let result = self.ask(context).await;
        match result {
            Err(error) if !error.is::<Exit>() => {
                context.out.note(&format!("Error: {error:#}"));
                if let Some(hint) = hint(&error) {
                    context.out.note(&hint);
                }
                Err(Exit(NO_PLAN).into())
            }
            result => result,
        }
    }

    async fn ask(self, context: &mut Context) -> anyhow::Result<()> {
        let (request, format, reference, differences) = match self {
            Self::Create(command) => {
                let (draft, _) = create::draft(context, &command.service, &command.registry).await?;
                let format = AnswerFormat { format: command.format };
                (json!({"Kind": "create", "Spec": draft.spec()}), format, None, Vec::new())
            }
            Self::Update(command) => {
                let current = Current::read(context, &command.service).await?;
                let ids = object_ids::find(&context.client, &command.change.objects()).await?;
                let (draft, _) = update::draft(context, &current, &command.change, &ids, &command.registry).await?;
                let format = AnswerFormat { format: command.format };
                let request = json!({"Kind": "update", "Service": current.view.id, "Spec": draft.spec()});
                (request, format, Some(command.service), changed(&current, draft.spec()))
            }
            Self::Scale(command) => {
                let (service, replicas) = command.target;
                let current = Current::read(context, &service).await?;
                let spec = scaled(&current, replicas)?;
                let differences = changed(&current, &spec);
                let request = json!({"Kind": "update", "Service": current.view.id, "Spec": spec});
                (request, command.format, Some(service), differences)
            }
            Self::Rollback(command) => {
                let mut request = json!({"Kind": "rollback", "Service": command.service});
                if let Some(to) = command.to {
                    request["To"] = to.into();
                }
                let differences = rolled_back(context, &command.service, command.to).await;
                (request, command.format, Some(command.service), differences)
            }
            Self::Drain(command) => {
                let node = crate::commands::node::resolve(&context.client, &command.node).await?;
                (json!({"Kind": "drain", "Node": node, "Now": command.now}), command.format, None, Vec::new())
            }
        };
        show(context, &request, &format, reference.as_deref(), &differences).await
    }
}

async fn show(
    context: &mut Context,
    request: &Value,
    format: &AnswerFormat,
    service: Option<&str>,
    differences: &[Difference],
) -> anyhow::Result<()> {
    let path = "/swarmd/plan";
    let bytes = context.client.post(path, Query::new(), request, None).await.map_err(|error| match service {
        Some(reference) if error.is_not_found() => no_such_service(reference).into(),
        _ => <anyhow::Error as From<ClientError>>::from(error),
    })?;
    let plan: PlanView = read(path, &bytes)?;
    match format.apply(path, &bytes)? {
        Some(text) => context.out.line(&text)?,
        None => {
            context.out.print(&page(&plan, differences))?;
            if request["Kind"] == "drain" && request["Now"] != true && !plan.staying.is_empty() {
                context.out.line("\nWhat stays on the node is stopped when the timeout of the drain is over.")?;
            }
        }
    }
    match (plan.changes, plan.fits) {
        (false, _) if plan.staying.is_empty() => Ok(()),
        (_, true) => Err(Exit(CHANGES).into()),
        (_, false) => Err(Exit(DOES_NOT_FIT).into()),
    }
}

/// What differs between a service and the version that a rollback goes back to. A version that is not there, like a
/// service, is for the server to refuse.
async fn rolled_back(context: &Context, service: &str, to: Option<u64>) -> Vec<Difference> {
    let history = history::read(&context.client, service).await.unwrap_or_default();
    let current = history.iter().find(|revision| revision.current);
    let target = history.iter().find(|revision| to.map_or(revision.previous, |number| revision.number == number));
    current.zip(target).map_or_else(Vec::new, |(current, target)| differences(&current.spec, &target.spec))
}

/// What a change sets that was otherwise. A spec that this program cannot read is for the server to judge.
fn changed(current: &Current, spec: &Value) -> Vec<Difference> {
    serde_json::from_value(spec.clone()).map_or_else(|_| Vec::new(), |spec| differences(&current.view.spec, &spec))
}

fn page(plan: &PlanView, differences: &[Difference]) -> String {
    let mut lines: Vec<String> = Vec::new();
    if !differences.is_empty() {
        lines.push("Changes of the spec".to_owned());
        lines.extend(differences.iter().map(|difference| format!("  {}", difference.line())));
        lines.push(String::new());
    }
    if !plan.waves.is_empty() {
        lines.extend(align(&table(&plan.waves)).lines().map(str::to_owned));
        lines.push(String::new());
    }
    lines.push(summary(plan));
    lines.extend(stuck_lines(plan));
    if !plan.fixes.is_empty() {
        lines.push("What would help".to_owned());
        lines.extend(plan.fixes.iter().map(|fix| one_line(&format!("- {fix}"))));
    }
    if plan.changes {
        lines.push(format!(
            "\nWith --check-version {} the change itself refuses if a service or a node changes before it.",
            plan.version.index
        ));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What finds no node, what therefore stays where it is, and the nodes that cannot take the first that waits.
fn stuck_lines(plan: &PlanView) -> Vec<String> {
    let mut lines = Vec::new();
    let mut list = |title: &str, tasks: Vec<String>| {
        if tasks.is_empty() {
            return;
        }
        lines.extend([String::new(), title.to_owned()]);
        lines.extend(tasks.iter().take(STEPS_MAX).map(|task| one_line(task)));
        if tasks.len() > STEPS_MAX {
            lines.push(format!("and {} more", tasks.len() - STEPS_MAX));
        }
    };
    let staying = plan.staying.iter().map(|stay| format!("{} on {}: {}", stay.task, stay.node, stay.reason));
    list("Tasks that stay as they are", staying.collect());
    let waiting = without_node(plan).map(|waits| format!("{}: {}", waits.task, waits.reason));
    list("Tasks without a node in the end", waiting.collect());
    let until_then = plan.rolled_back.iter().flat_map(|how| &how.waiting);
    let before_rollback = until_then.clone().map(|waits| format!("{}: {}", waits.task, waits.reason));
    list("Tasks without a node until the rollback", before_rollback.collect());
    if let Some(first) = until_then.chain(&plan.waiting).next().filter(|_| !plan.rejections.is_empty()) {
        lines.push(format!("Nodes that cannot take {}", one_line(&first.task)));
        lines.extend(rejection_lines(&plan.rejections));
    }
    lines
}

/// Tasks that wait in places where nothing runs on meanwhile.
fn without_node(plan: &PlanView) -> impl Iterator<Item = &WaitingView> {
    let staying: BTreeSet<&str> = plan.staying.iter().map(|stay| stay.task.as_str()).collect();
    plan.waiting.iter().filter(move |waits| !staying.contains(waits.task.as_str()))
}

fn table(waves: &[WaveView]) -> Vec<String> {
    let mut rows = vec!["WAVE\tAFTER\tACTION\tTASK\tFROM\tTO".to_owned()];
    for (number, wave) in waves.iter().enumerate() {
        let after = format_duration(wave.after_ns / 1_000_000 * 1_000_000);
        let head = format!("{}\t{after}", number + 1);
        for (i, step) in wave.steps.iter().take(STEPS_MAX).enumerate() {
            let head = if i == 0 { head.as_str() } else { "\t" };
            // What waits starts nowhere, also where its node is given.
            let to = if step.action == "wait" { "" } else { &step.to };
            let cells = [&step.action, &step.task, &step.from, to].map(|cell| one_line(cell).replace('\t', " "));
            rows.push(format!("{head}\t{}", cells.join("\t")));
        }
        if wave.steps.len() > STEPS_MAX {
            rows.push(format!("\t\tand {} more", wave.steps.len() - STEPS_MAX));
        }
    }
    rows
}

fn summary(plan: &PlanView) -> String {
    if !plan.changes {
        return "Nothing would change.".to_owned();
    }
    if plan.waves.is_empty() && !plan.stuck {
        return "No task would be touched.".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let waiting: BTreeSet<&str> = plan.waiting.iter().map(|waits| waits.task.as_str()).collect();
    for step in plan.waves.iter().flat_map(|wave| &wave.steps) {
        let is_told_apart = step.action == "wait" && waiting.contains(step.task.as_str());
        *counts.entry(if is_told_apart { "" } else { step.action.as_str() }).or_default() += 1;
    }
    counts.extend([("left", without_node(plan).count()), ("stay", plan.staying.len())]);
    let words = [
        ("start", "started"),
        ("prepare", "prepared"),
        ("replace", "replaced"),
        ("move", "moved"),
        ("stop", "stopped"),
        ("drop", "no longer waiting"),
        ("wait", if plan.stuck { "still waiting" } else { "waiting in between" }),
        ("left", "left waiting"),
        ("stay", if plan.staying.len() == 1 { "stays" } else { "stay" }),
    ];
    let count = |action: &str| counts.get(action).filter(|count| **count > 0);
    let told: Vec<String> =
        words.iter().filter_map(|(action, word)| Some(format!("{} {word}", count(action)?))).collect();
    let waves = match plan.waves.len() {
        0 => "No task would be touched".to_owned(),
        1 => "1 wave".to_owned(),
        count => format!("{count} waves"),
    };
    let ends = match (plan.stuck, plan.waiting.is_empty()) {
        (false, _) => {
            format!("done after {} at the earliest", format_duration(plan.ends_after_ns / 1_000_000 * 1_000_000))
        }
        (true, false) => "does not end until there is room".to_owned(),
        (true, true) => "does not end as things are".to_owned(),
    };
    let update = match (plan.update_state.as_str(), &plan.rolled_back) {
        ("rollback_completed", Some(how)) => format!("; its update is rolled back due to {}", how.reason),
        (state, Some(how)) => format!("; its update is rolled back due to {}; {}", how.reason, left_as(state)),
        ("" | "completed" | "rollback_completed", None) => String::new(),
        (state, None) => format!("; {}", left_as(state)),
    };
    let cut = if plan.cut { "; there is more, which this does not show" } else { "" };
    format!("{waves}, {ends}: {}{update}{cut}.", told.join(", "))
}

/// In which state a plan leaves an update that does not complete.
fn left_as(state: &str) -> String {
    match state {
        "updating" => "its update goes on".to_owned(),
        "paused" => "its update is then paused".to_owned(),
        "rollback_started" => "its rollback goes on".to_owned(),
        "rollback_paused" => "its rollback is then paused".to_owned(),
        other => format!("its update is then {}", other.replace('_', " ")),
    }
}
