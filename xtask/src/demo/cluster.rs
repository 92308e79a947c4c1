//! The demo's cluster: three nodes, the commands that people would type, and cleaning up after them.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::view::{self, NodeView, TaskView};
use super::{rollout, story};
use crate::engine::{Container, Engine};
use crate::http::Address;
use crate::node::{self, Node};
use crate::programs::Programs;
use crate::wait::{self, Look};
use crate::{process, ui};

/// Nodes of the demo.
const NODES: u8 = 3;
/// Longer than any step takes on two busy cores; its end means that something does not work.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(120);
/// Containers get 10 s of grace, and an engine removes some of them a second.
const REMOVE_LIMIT: Duration = Duration::from_secs(60);
/// Lines of each node's log that a failure shows.
const LOG_LINES: usize = 20;
/// A failure shows this many tasks.
const TASKS_SHOWN_MAX: usize = 40;

/// The cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Its nodes; the first one is the manager.
    pub nodes: Vec<Node>,
    /// The engine, unless tasks run in memory.
    pub engine: Option<Engine>,
    programs: Programs,
    folder: TempDir,
}

impl Cluster {
    /// A cluster of nodes that do not run yet.
    pub(super) fn new(programs: Programs, engine: Option<Engine>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("swarmd-demo-")
            .tempdir()
            .context("cannot make a temporary folder for the demo")?;
        let port = node::free_port(NODES)?;
        let host = engine.as_ref().map_or_else(|| "simulated".to_owned(), Engine::host);
        let nodes = (1..=NODES)
            .map(|number| Node::new(number, &programs.swarmd, &host, port, folder.path()))
            .collect::<Result<_>>()?;
        Ok(Self { nodes, engine, programs, folder })
    }

    /// The API of the manager.
    pub(super) fn api(&self) -> Address {
        self.nodes[0].api()
    }

    /// A label of the demo's containers, `key=value`: what cleaning up looks for.
    pub(super) fn label(&self) -> String {
        let name = self.folder.path().file_name().unwrap_or_default().to_string_lossy();
        format!("swarm.example.demo={name}")
    }

    /// `swarmctl` that speaks to one of the nodes.
    pub(super) fn swarmctl(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.swarmctl);
        command.args(arguments).env("SWARM_HOST", self.nodes[node].api().to_string()).stdin(Stdio::null());
        command
    }

    /// Runs `swarmctl` at the manager and shows what it prints.
    pub(super) fn show(&self, arguments: &[&str]) -> Result<()> {
        self.show_at(0, arguments)
    }

    /// Runs `swarmctl` at a node and shows what it prints.
    pub(super) fn show_at(&self, node: usize, arguments: &[&str]) -> Result<()> {
        let at = if node == 0 { String::new() } else { format!("SWARM_HOST={} ", self.nodes[node].api()) };
        let mut shown = Command::new("swarmctl");
        shown.args(arguments.iter().map(|argument| hide_token(argument)));
        ui::command(&format!("{at}{}", process::line(&shown)));
        // The words of the command are on the screen already, and may hold a token.
        process::run_within(&mut self.swarmctl(node, arguments), STEP_LIMIT)
            .map_err(|error| anyhow::anyhow!("{}", hide_tokens(&format!("{error:#}"))))
    }

    /// The cluster's nodes as the manager sees them.
    pub(super) fn node_views(&self) -> Result<Vec<NodeView>> {
        view::nodes(&self.api())
    }

    /// Waits until all nodes are ready.
    pub(super) fn wait_for_nodes(&self) -> Result<Vec<NodeView>> {
        wait::until("all nodes are ready", STEP_LIMIT, || {
            let nodes = self.node_views()?;
            let ready = nodes.iter().filter(|node| node.state == "ready").count();
            if ready == self.nodes.len() && nodes.len() == ready {
                return Ok(Look::Done(nodes));
            }
            let states: Vec<String> = nodes.iter().map(|node| format!("{} {}", node.hostname, node.state)).collect();
            Ok(Look::NotYet(states.join(", ")))
        })
    }

    /// Waits until exactly `count` tasks of a service should run, run, and (with an engine) are its containers that run.
    pub(super) fn wait_for_tasks(&self, service: &str, count: usize) -> Result<Vec<TaskView>> {
        wait::until(&format!("{count} tasks of {service} run"), STEP_LIMIT, || {
            let tasks = view::tasks(&self.api(), service)?;
            let live: Vec<TaskView> = tasks.into_iter().filter(|task| task.desired == "running").collect();
            let running = live.iter().filter(|task| task.running()).count();
            if running != count || live.len() != count {
                return Ok(Look::NotYet(format!("{running} of {} tasks run{}", live.len(), errors(&live))));
            }
            if self.engine.is_some() {
                let mut expected: Vec<&str> = live.iter().map(|task| task.container.as_str()).collect();
                let mut found: Vec<String> =
                    self.running_containers(service)?.into_iter().map(|found| found.id).collect();
                expected.sort_unstable();
                found.sort_unstable();
                if expected != found {
                    return Ok(Look::NotYet(format!("{count} tasks run, and {} containers", found.len())));
                }
            }
            Ok(Look::Done(live))
        })
    }

    /// Containers of a service that run; none without an engine.
    fn running_containers(&self, service: &str) -> Result<Vec<Container>> {
        let prefix = format!("{service}.");
        let runs = |container: &Container| container.running && container.name.starts_with(&prefix);
        Ok(self.containers()?.into_iter().filter(runs).collect())
    }

    fn containers(&self) -> Result<Vec<Container>> {
        self.engine.as_ref().map_or(Ok(Vec::new()), |engine| engine.containers(&self.label()))
    }

    /// Shows what there is to see after a failure: nodes, tasks, containers, the ends of the logs.
    pub(super) fn show_evidence(&self) {
        ui::say("\nNodes:");
        match self.node_views() {
            Ok(nodes) => {
                nodes.iter().for_each(|node| ui::say(&format!("  {} {} {}", node.id, node.hostname, node.state)))
            }
            Err(error) => ui::say(&format!("  {error:#}")),
        }
        ui::say("Tasks:");
        for service in [story::SERVICE, rollout::GLOBAL] {
            match view::tasks(&self.api(), service) {
                Ok(tasks) => tasks.iter().take(TASKS_SHOWN_MAX).for_each(|task| {
                    let TaskView { id, slot, node_id, state, desired, image, error, container, .. } = task;
                    ui::say(&format!(
                        "  {service} slot {slot} {id} {image} node {node_id} desired {desired} is {state} {error} {container}"
                    ));
                }),
                Err(error) => ui::say(&format!("  {error:#}")),
            }
        }
        match self.containers() {
            Ok(containers) if self.engine.is_some() => {
                ui::say("Containers:");
                for container in containers {
                    let state = if container.running { "running" } else { "not running" };
                    ui::say(&format!("  {} {} {state}", container.id, container.name));
                }
            }
            Ok(_) => {}
            Err(error) => ui::say(&format!("  {error:#}")),
        }
        for node in &self.nodes {
            let log = fs::read_to_string(node.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            ui::say(&format!("The last lines that swarmd of {} logged:", node.name));
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                ui::say(&ui::dim(&format!("  {line}")));
            }
        }
    }

    /// Leaves everything as it is and says how to talk to it and how to end it.
    pub(super) fn keep(mut self) {
        let pids: Vec<String> = self.nodes.iter_mut().filter_map(Node::release).map(|pid| pid.to_string()).collect();
        let api = self.api();
        let label = self.label();
        let (engine, swarmctl) = (self.engine.as_ref().map(Engine::host), self.programs.swarmctl.display().to_string());
        let folder = self.folder.keep();
        ui::heading("The cluster keeps running (--keep)");
        ui::say(&format!("  export SWARM_HOST={api}"));
        ui::say(&format!("  {swarmctl} service ps {}", story::SERVICE));
        ui::say(&format!("  docker -H {api} node ls"));
        ui::say(&format!("The nodes' folders, with their logs, are in {}.\nTo end it:", folder.display()));
        ui::say(&format!("  kill {}", pids.join(" ")));
        if let Some(host) = engine {
            ui::say(&format!("  docker -H {host} rm -f $(docker -H {host} ps -aq --filter label={label})"));
        }
        ui::say(&format!("  rm -r {}", folder.display()));
    }

    /// Removes the services in the way a user would if the demo went well, then whatever there is.
    pub(super) fn clean_up(mut self, orderly: bool, images: &[String]) -> Result<()> {
        let mut failures = Vec::new();
        if orderly && let Err(error) = self.remove_services() {
            failures.push(error);
        }
        for node in self.nodes.iter_mut().rev() {
            if let Err(error) = node.stop() {
                failures.push(error);
            }
        }
        ui::say("All swarmd processes have ended.");
        if let Err(error) = self.remove_containers(orderly, images) {
            failures.push(error);
        }
        let folder = self.folder.path().to_owned();
        if let Err(error) = self.folder.close() {
            failures.push(anyhow::Error::from(error).context(format!("cannot remove {}", folder.display())));
        }
        if let Some(hint) = self.engine.as_ref().and_then(Engine::stop_hint) {
            ui::say(&format!("The Docker Engine that was started for this keeps running; `{hint}` ends it."));
        }
        if failures.is_empty() {
            ui::seen("nothing of the cluster is left");
            return Ok(());
        }
        let texts: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
        bail!("cleaning up: {}", texts.join("; "))
    }

    fn remove_services(&self) -> Result<()> {
        self.show(&["service", "rm", story::SERVICE, rollout::GLOBAL])?;
        wait::until("the services' containers are removed", REMOVE_LIMIT, || {
            Ok(match self.containers()?.len() {
                0 => Look::Done(()),
                count => Look::NotYet(format!("{count} containers are left")),
            })
        })
    }

    fn remove_containers(&self, orderly: bool, images: &[String]) -> Result<()> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let left = self.containers()?;
        for container in &left {
            engine.remove_container(&container.id)?;
        }
        for image in images {
            engine.remove_image(image)?;
        }
        if !left.is_empty() && orderly {
            bail!("{} containers were left after their services were removed; they are removed now", left.len());
        }
        if !left.is_empty() {
            ui::say(&format!("{} containers are removed.", left.len()));
        }
        Ok(())
    }
}

/// The errors of some tasks, for a line of progress.
fn errors(tasks: &[TaskView]) -> String {
    let mut errors: Vec<&str> =
        tasks.iter().map(|task| task.error.as_str()).filter(|error| !error.is_empty()).collect();
    errors.sort_unstable();
    errors.dedup();
    if errors.is_empty() { String::new() } else { format!(" ({})", errors.join("; ")) }
}

/// A join token is a secret: all but its beginning is hidden.
fn hide_token(word: &str) -> String {
    if word.starts_with("SWMTKN-") { "SWMTKN-1-…".to_owned() } else { word.to_owned() }
}

fn hide_tokens(text: &str) -> String {
    text.split(' ').map(hide_token).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        assert_eq!(
            hide_tokens("join --token SWMTKN-1-abc-def 127.0.0.1:2377"),
            "join --token SWMTKN-1-… 127.0.0.1:2377"
        );
    }
}
