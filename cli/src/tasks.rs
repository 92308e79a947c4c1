//! Tables of tasks: `service ps` and `node ps`.

use swarm_docker_api::view::TaskView;
use swarm_model::Timestamp;

use crate::{
    format::{Columns, Row, row},
    names::Names,
    ports,
    units::{capitalise, ellipsis, human_duration, natural_cmp, short_id},
};

/// Characters of an error in a table.
const ERROR_LEN_MAX: usize = 30;

/// The table of tasks.
pub(crate) const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
    titles: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
};

/// Flags of both commands.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TaskListFlags {
    #[command(flatten)]
    pub(crate) list: crate::format::ListFormat,
    /// Show ids instead of names
    #[arg(long)]
    pub(crate) no_resolve: bool,
    /// Do not cut ids, images and errors
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// Rows by name, the newest task of a name first and older ones below it, marked ` \_ `.
pub(crate) fn rows(tasks: Vec<TaskView>, services: &Names, nodes: &Names, no_trunc: bool, now: Timestamp) -> Vec<Row> {
    let mut named: Vec<(String, TaskView)> =
        tasks.into_iter().map(|task| (name(&task, services.of(&task.service_id)), task)).collect();
    named.sort_by(|(a_name, a), (b_name, b)| {
        natural_cmp(a_name, b_name).then(b.created_at.cmp(&a.created_at)).then(a.id.cmp(&b.id))
    });
    let mut previous = String::new();
    let mut rows = Vec::with_capacity(named.len());
    for (name, task) in named {
        let shown = if name == previous { format!(" \\_ {name}") } else { name.clone() };
        previous = name;
        let mut fields = task_row(&task, nodes, no_trunc, now);
        // Not through `row`: the mark begins with a space.
        fields.insert("Name".to_owned(), shown.into());
        rows.push(fields);
    }
    rows
}

fn task_row(task: &TaskView, nodes: &Names, no_trunc: bool, now: Timestamp) -> Row {
    let status = &task.status;
    let age = human_duration(now.since_ns(status.timestamp.0)).to_lowercase();
    let image = &task.spec.container_spec.image;
    let error = if no_trunc { status.err.clone() } else { ellipsis(&status.err, ERROR_LEN_MAX) };
    row([
        ("ID", if no_trunc { task.id.clone() } else { short_id(&task.id).to_owned() }),
        ("Image", if no_trunc { image.clone() } else { without_digest(image).to_owned() }),
        ("Node", nodes.of(&task.node_id).to_owned()),
        ("DesiredState", capitalise(&task.desired_state)),
        ("CurrentState", format!("{} {age} ago", capitalise(&status.state))),
        ("Error", if error.is_empty() { error } else { format!("\"{error}\"") }),
        ("Ports", ports::host(&status.port_status.ports)),
    ])
}

/// `service.slot`, or `service.node id` where there are no slots.
pub(crate) fn name(task: &TaskView, service: &str) -> String {
    format!("{service}.{}", place(task))
}

/// A text with the task that it names by its id called as people do, `task web.1`.
pub(crate) fn with_name(text: &str, tasks: &[TaskView], service: &str) -> String {
    match tasks.iter().find(|task| !task.id.is_empty() && text.contains(&task.id)) {
        Some(task) => text.replace(&task.id, &name(task, service)),
        None => text.to_owned(),
    }
}

/// The slot of a task, or the id of its node where there are no slots. Those of jobs count from 0.
pub(crate) fn place(task: &TaskView) -> String {
    let first = if task.job_iteration.is_some() { 0 } else { 1 };
    task.slot.filter(|slot| *slot >= first).map_or_else(|| task.node_id.clone(), |slot| slot.to_string())
}

/// The image without its digest, if a tag remains.
pub(crate) fn without_digest(image: &str) -> &str {
    match image.split_once('@') {
        Some((name, _)) if name.rsplit('/').next().is_some_and(|n| n.contains(':')) => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::render;

    fn task(id: &str, slot: u64, at: &str, state: &str, err: &str) -> TaskView {
        serde_json::from_value(json!({
            "ID": format!("{id}aaaaaaaaaaaaaaaaaaaa"), "CreatedAt": at, "ServiceID": "s1", "Slot": slot,
            "NodeID": if state == "pending" { "" } else { "n1" },
            "Spec": {"ContainerSpec": {"Image": "busybox:1.35@sha256:00"}},
            "Status": {"Timestamp": at, "State": state, "Err": err,
                "PortStatus": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]}},
            "DesiredState": if state == "failed" { "shutdown" } else { "running" },
        }))
        .unwrap()
    }

    #[test]
    fn history_is_indented_below_the_newest_task() {
        let tasks = vec![
            task("t4", 10, "2026-11-22T11:59:00Z", "running", ""),
            task("t1", 2, "2026-11-22T11:00:00Z", "failed", "task: non-zero exit (7), and more to say"),
            task("t2", 2, "2026-11-22T11:55:00Z", "running", ""),
            task("t3", 11, "2026-11-22T11:59:59Z", "pending", "no suitable node"),
        ];
        let names = Names::from_iter([("s1".into(), "web".into()), ("n1".into(), "vm".into())]);
        let now = swarm_docker_api::view::Time::parse("2026-11-22T12:00:00Z").unwrap().0;
        let rows = rows(tasks, &names, &names, false, now);
        assert_eq!(
            render(&COLUMNS, rows, None, false).unwrap(),
            "\
ID             NAME        IMAGE          NODE      DESIRED STATE   CURRENT STATE                ERROR                              PORTS
t2aaaaaaaaaa   web.2       busybox:1.35   vm        Running         Running 5 minutes ago                                           *:8080->80/tcp
t1aaaaaaaaaa    \\_ web.2   busybox:1.35   vm        Shutdown        Failed about an hour ago     \"task: non-zero exit (7), and …\"   *:8080->80/tcp
t4aaaaaaaaaa   web.10      busybox:1.35   vm        Running         Running about a minute ago                                      *:8080->80/tcp
t3aaaaaaaaaa   web.11      busybox:1.35             Running         Pending 1 second ago         \"no suitable node\"                 *:8080->80/tcp
"
        );
    }

    #[test]
    fn nothing_is_cut_on_demand() {
        let tasks = vec![task("t1", 2, "2026-11-22T11:00:00Z", "failed", "task: non-zero exit (7), and more to say")];
        let text = render(
            &COLUMNS,
            rows(tasks, &Names::default(), &Names::default(), true, Timestamp::ZERO),
            Some("{{.ID}} {{.Name}} {{.Image}} {{.Error}}"),
            false,
        );
        assert_eq!(
            text.unwrap(),
            "t1aaaaaaaaaaaaaaaaaaaa s1.2 busybox:1.35@sha256:00 \"task: non-zero exit (7), and more to say\"\n"
        );
    }
}
