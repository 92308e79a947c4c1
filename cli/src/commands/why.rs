//! `service why` and `task why`

use swarm_docker_api::view::{RejectionView, TaskWhyView, WhyView};

use crate::{
    client::{ClientError, Query, read, segment},
    clock,
    context::Context,
    inspect::AnswerFormat,
    table::align,
    units::{format_duration, human_duration, one_line},
};

/// Asks why an object is as it is, and shows the answer. `kind` is `services` or `tasks`.
///
/// # Errors
/// There is no such object, or swarmd does not answer.
pub(super) async fn show(
    context: &mut Context,
    kind: &str,
    reference: &str,
    format: &AnswerFormat,
) -> Result<(), anyhow::Error> {
    let path = format!("/swarmd/{kind}/{}/why", segment(reference));
    let bytes = context.client.get_bytes(&path, Query::new()).await.map_err(|error| match error {
        error if error.is_not_found() => {
            anyhow::anyhow!("no such {}: {reference}", kind.trim_end_matches('s'))
        }
        error => ClientError::into(error),
    })?;
    match format.apply(&path, &bytes)? {
        Some(text) => Ok(context.out.line(&text)?),
        None => {
            let page = page(&read(&path, &bytes)?, kind == "tasks");
            Ok(context.out.print(&page)?)
        }
    }
}

fn page(why: &WhyView, of_task: bool) -> String {
    let mut out = String::new();
    let mut put = |line: &str| out.push_str(&(one_line_kept(line) + "\n"));
    let first = why.tasks.first();
    let name = first.filter(|_| of_task).map_or(&why.service, |task| &task.name);
    put(&format!("{name}: {}", why.summary));
    for task in &why.tasks {
        let lines = task_lines(task, of_task);
        if !lines.is_empty() {
            put("");
        }
        lines.iter().for_each(|line| put(line));
    }
    if why.more_tasks > 0 {
        put(&format!("\nand {} more tasks", why.more_tasks));
    }
    if !why.rejections.is_empty() {
        put("\nNodes that cannot take it");
    }
    for line in rejection_lines(&why.rejections) {
        put(&line);
    }
    let warnings = warning_lines(why);
    if !warnings.is_empty() {
        put("\nWarnings of nodes");
    }
    for warning in warnings {
        put(&format!("  {warning}"));
    }
    if !why.fixes.is_empty() {
        put("\nWhat would help");
    }
    for fix in &why.fixes {
        put(&format!("  - {fix}"));
    }
    out
}

/// A line that may begin with an empty one; what containers and servers wrote cannot steer the terminal.
fn one_line_kept(line: &str) -> String {
    let text = line.trim_start_matches('\n');
    let indent = text.len() - text.trim_start_matches(' ').len();
    format!("{}{}{}", &line[..line.len() - text.len()], " ".repeat(indent), one_line(text))
}

fn task_lines(task: &TaskWhyView, of_task: bool) -> Vec<String> {
    let now = clock::now();
    let node = if task.node.is_empty() { String::new() } else { format!(" on {}", task.node) };
    let since = human_duration(now.since_ns(task.since.0)).to_lowercase();
    let state = format!("{}: {}{node} for {since}, wanted is {}", task.name, task.state, task.desired_state);
    let mut lines = match (of_task, task.state == task.desired_state) {
        (false, _) => vec![state, format!("  {}", task.summary)],
        (true, false) => vec![state],
        // The first line of the page said it.
        (true, true) => Vec::new(),
    };
    let restart = &task.restart;
    if restart.max_attempts > 0 && restart.restarts > 0 {
        lines.push(format!("  restarts: {} of {}", restart.restarts, restart.max_attempts));
    }
    if let Some(wait_ns) = restart.wait_ns {
        let start = match wait_ns / 100_000_000 * 100_000_000 {
            0 => "now".to_owned(),
            wait_ns => format!("in {}", format_duration(wait_ns)),
        };
        lines.push(format!("  next start: {start}"));
    }
    let mut last_reason = "";
    let failures: Vec<String> = task
        .failures
        .iter()
        .map(|failure| {
            let is_same = std::mem::replace(&mut last_reason, &failure.reason) == failure.reason;
            let ago = human_duration(now.since_ns(failure.at.0)).to_lowercase();
            let code = failure.exit_code.map_or(String::new(), |code| format!("exit code {code}"));
            let reason = if is_same { "the same".to_owned() } else { one_line(&failure.reason) };
            format!("  {ago} ago\t{} on {}\t{code}\t{reason}", failure.state, failure.node)
        })
        .collect();
    lines.extend(align(&failures).lines().map(str::to_owned));
    lines
}

/// The warnings of nodes that concern a service.
pub(in crate::commands) fn warning_lines(why: &WhyView) -> Vec<String> {
    let mut lines: Vec<String> =
        why.warnings.iter().map(|on| one_line(&format!("{}: {}", on.node, on.warning.text))).collect();
    if why.more_warnings > 0 {
        lines.push(format!("and {} more warnings", why.more_warnings));
    }
    lines
}

/// Requirements with the nodes that do not meet them.
pub(super) fn rejection_lines(rejections: &[RejectionView]) -> Vec<String> {
    let mut lines = Vec::new();
    for rejection in rejections {
        lines.push(format!("  {}: {}", rejection.filter, rejection.asked));
        let nodes: Vec<String> = rejection
            .nodes
            .iter()
            .map(|node| format!("    {}\t{}", one_line(&node.node), one_line(&node.found)))
            .collect();
        lines.extend(align(&nodes).lines().map(str::to_owned));
        if rejection.more_nodes > 0 {
            lines.push(format!("    and {} more nodes", rejection.more_nodes));
        }
    }
    lines
}
