//! What the demo shows, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::cluster::{Cluster, STEP_LIMIT};
use super::rollout;
use super::view::{self, NodeView, TaskView};
use crate::engine::Engine;
use crate::http::Address;
use crate::wait::{self, Look};
use crate::{interrupt, process, ui};

/// The name of the service.
pub(super) const SERVICE: &str = "web";
const IMAGE: &str = "hello:1";
/// Requests to a node between two looks whether it is time to give up.
const ASKED_AT_ONCE: usize = 50;
/// The published port.
const PORT: u16 = 8080;
const REPLICAS: usize = 6;
const REPLICAS_UP: usize = 9;
const REPLICAS_DOWN: usize = 3;

/// Shows everything; returns a line for each thing that was seen to happen.
pub(super) fn tell(cluster: &mut Cluster) -> Result<Vec<String>> {
    let mut story = Story { cluster, nodes: Vec::new(), number: 0, lines: Vec::new() };
    story.step(
        "Three nodes start: each is a swarmd with a folder, a name and an address of its own",
        Story::start_nodes,
    )?;
    story.step("The first node makes a swarm, the others join it with its token", Story::join)?;
    story.step("A service of six replicas with a published port, spread over the nodes", Story::create)?;
    if story.cluster.engine.is_some() {
        story.step("Each node leads to each replica, wherever it runs", Story::ask_all)?;
    }
    story.step("What runs where", Story::list)?;
    story.step("Scale up to nine, then down to three", Story::scale)?;
    if story.cluster.engine.is_some() {
        story.step("A container is killed behind the swarm's back, and replaced", Story::kill_container)?;
    } else {
        ui::say("\nLeft out without containers: requests to the replicas, and a container killed from outside.");
    }
    story.step("kill -9 for the swarmd of a worker", |story| story.kill_swarmd(1, REPLICAS))?;
    story.step("kill -9 for the swarmd of the manager", |story| story.kill_swarmd(0, REPLICAS_UP))?;
    rollout::tell(&mut story, REPLICAS_UP)?;
    Ok(story.lines)
}

/// The story as far as it was told.
pub(super) struct Story<'a> {
    pub(super) cluster: &'a mut Cluster,
    nodes: Vec<NodeView>,
    number: usize,
    lines: Vec<String>,
}

impl Story<'_> {
    /// Runs one step under a heading. It returns what was seen.
    pub(super) fn step(&mut self, title: &str, run: impl FnOnce(&mut Self) -> Result<String>) -> Result<()> {
        interrupt::check()?;
        self.number += 1;
        ui::heading(&format!("{}. {title}", self.number));
        let start = Instant::now();
        let result = run(self).with_context(|| format!("step {} ({title})", self.number));
        // A program that Ctrl-C ended fails too; the reason is the user's wish.
        interrupt::check()?;
        let seen = result?;
        ui::seen(&seen);
        self.lines.push(format!("{seen} ({:.1} s)", start.elapsed().as_secs_f32()));
        Ok(())
    }

    fn start_nodes(&mut self) -> Result<String> {
        for node in &mut self.cluster.nodes {
            node.start()?;
        }
        Ok(format!("{} swarmd processes answer", self.cluster.nodes.len()))
    }

    fn join(&mut self) -> Result<String> {
        let manager = self.cluster.nodes[0].peer_address();
        self.cluster.show(&["swarm", "init", "--advertise-addr", &manager])?;
        let mut ask = self.cluster.swarmctl(0, &["swarm", "join-token", "--quiet", "worker"]);
        let token = String::from_utf8(process::output(&mut ask)?).context("the join token is not text")?;
        let token = token.trim().to_owned();
        ensure!(token.starts_with("SWMTKN-1-"), "`swarmctl swarm join-token --quiet worker` printed no token");
        for node in 1..self.cluster.nodes.len() {
            self.cluster.show_at(node, &["swarm", "join", "--token", &token, &manager])?;
        }
        self.nodes = self.cluster.wait_for_nodes()?;
        self.cluster.show(&["node", "ls"])?;
        Ok(format!("{} nodes are ready", self.nodes.len()))
    }

    fn create(&mut self) -> Result<String> {
        let label = self.cluster.label();
        let replicas = REPLICAS.to_string();
        self.cluster.show(&[
            "service",
            "create",
            "--name",
            SERVICE,
            "--replicas",
            &replicas,
            "--publish",
            &format!("{PORT}:8080"),
            "--env",
            "TASK={{.Task.Name}}",
            "--env",
            "NODE={{.Node.Hostname}}",
            "--container-label",
            &label,
            "--restart-delay",
            "1s",
            "--update-monitor",
            "2s",
            "--init",
            IMAGE,
        ])?;
        let tasks = self.cluster.wait_for_tasks(SERVICE, REPLICAS)?;
        let used: BTreeSet<&str> = tasks.iter().map(|task| task.node_id.as_str()).collect();
        ensure!(used.len() == self.nodes.len(), "the replicas are on {} of {} nodes", used.len(), self.nodes.len());
        Ok(format!("{REPLICAS} replicas run, on all {} nodes", used.len()))
    }

    fn ask_all(&mut self) -> Result<String> {
        let tasks = self.cluster.wait_for_tasks(SERVICE, REPLICAS)?;
        for line in self.ask(&tasks)? {
            ui::say(&format!("  {line}"));
        }
        self.cluster.show(&["service", "endpoints", SERVICE])?;
        let nodes = self.cluster.nodes.len();
        Ok(format!("port {PORT} of each of the {nodes} nodes led to all {REPLICAS} replicas"))
    }

    /// The published port at each node.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.cluster.nodes.iter().map(|node| SocketAddr::from((node.ip, PORT))).collect()
    }

    /// Asks each node until each of these tasks has answered there, with its own name and node. Returns an answer of each
    /// task.
    fn ask(&self, tasks: &[TaskView]) -> Result<Vec<String>> {
        let mut lines = BTreeMap::new();
        for address in self.addresses() {
            let mut missing = BTreeMap::new();
            for task in tasks {
                missing.insert(format!("{SERVICE}.{}.{}", task.slot, task.id), self.hostname(task)?.to_owned());
            }
            wait::until(&format!("each task answers at {address}"), STEP_LIMIT, || {
                // The nodes choose at random.
                for _ in 0..ASKED_AT_ONCE {
                    let greeting = view::greet(&Address::Tcp(address))?;
                    if let Some(hostname) = missing.remove(&greeting.task) {
                        let says = &greeting.line;
                        ensure!(greeting.node == hostname, "{} runs on {hostname}, and says: {says}", greeting.task);
                    }
                    lines.insert(greeting.task, greeting.line);
                    if missing.is_empty() {
                        return Ok(Look::Done(()));
                    }
                }
                Ok(Look::NotYet(format!("{} are missing", missing.len())))
            })?;
        }
        Ok(lines.into_values().collect())
    }

    fn hostname(&self, task: &TaskView) -> Result<&str> {
        let node = self.nodes.iter().find(|node| node.id == task.node_id);
        Ok(&node.with_context(|| format!("task {} is on an unknown node", task.id))?.hostname)
    }

    fn list(&mut self) -> Result<String> {
        self.cluster.show(&["service", "ls"])?;
        self.cluster.show(&["service", "ps", SERVICE])?;
        Ok("`service ls` and `service ps` show it".to_owned())
    }

    fn scale(&mut self) -> Result<String> {
        for replicas in [REPLICAS_UP, REPLICAS_DOWN] {
            self.cluster.show(&["service", "scale", &format!("{SERVICE}={replicas}")])?;
            self.cluster.wait_for_tasks(SERVICE, replicas)?;
            ui::seen(&format!("{replicas} replicas run"));
        }
        Ok(format!("{REPLICAS} replicas became {REPLICAS_UP}, then {REPLICAS_DOWN}"))
    }

    fn kill_container(&mut self) -> Result<String> {
        let before = self.cluster.wait_for_tasks(SERVICE, REPLICAS_DOWN)?;
        let victim = before.last().context("no task runs")?.clone();
        ui::command(&format!("docker kill {}", short(&victim.container)));
        self.engine()?.kill(&victim.container)?;
        // The engine lists the killed container as not running from now on, so this holds only with another one.
        let tasks = self.cluster.wait_for_tasks(SERVICE, REPLICAS_DOWN)?;
        let after =
            tasks.iter().find(|task| task.slot == victim.slot).context("the slot of the killed task is empty")?;
        ensure!(after.id != victim.id, "the killed task {} was started again instead of replaced", victim.id);
        self.cluster.show(&["service", "ps", SERVICE])?;
        self.ask(std::slice::from_ref(after))?;
        Ok(format!("container {} was killed; {} replaced it", short(&victim.container), short(&after.container)))
    }

    /// Kills a node's swarmd and starts it again. Its containers must neither stop nor be started a second time, and
    /// the cluster must take orders afterwards: it is scaled to `replicas`.
    fn kill_swarmd(&mut self, node: usize, replicas: usize) -> Result<String> {
        let before = view::tasks(&self.cluster.api(), SERVICE)?;
        let before: Vec<TaskView> = before.into_iter().filter(TaskView::running).collect();
        let started = self.started_at(&before)?;
        let name = self.cluster.nodes[node].name.clone();
        let pid = self.cluster.nodes[node].kill()?;
        ui::command(&format!("kill -9 {pid}   # swarmd of {name}"));
        if self.cluster.engine.is_some() {
            ensure!(self.started_at(&before)? == started, "containers changed when swarmd was killed");
            let answers = self.ask(&before)?;
            ui::seen(&format!("without it, all {} replicas run on and answer", answers.len()));
        }
        self.cluster.nodes[node].start()?;
        self.cluster.wait_for_nodes()?;
        let after = self.cluster.wait_for_tasks(SERVICE, before.len())?;
        if self.cluster.engine.is_some() {
            let (ids, ids_before) = (identities(&after), identities(&before));
            ensure!(ids == ids_before, "the tasks and containers are {ids:?}, and were {ids_before:?}");
            ensure!(self.started_at(&after)? == started, "containers were started again");
            ui::seen(&format!("the swarmd of {name} is back and has adopted its containers: the same ids"));
        }
        self.cluster.show(&["service", "scale", &format!("{SERVICE}={replicas}")])?;
        let scaled = self.cluster.wait_for_tasks(SERVICE, replicas)?;
        let here = scaled.iter().filter(|task| self.hostname(task).is_ok_and(|hostname| hostname == name)).count();
        ensure!(here > 0, "{name} runs none of the {replicas} replicas after its swarmd came back");
        let same = identities(&scaled).intersection(&identities(&before)).count();
        if self.cluster.engine.is_none() {
            // Simulated containers end with the swarmd that they live in.
            let text = format!("the swarmd of {name} came back, then scaled to {replicas}");
            return Ok(format!("{text}; {same} of the {} tasks outlived it, the rest were replaced", before.len()));
        }
        ensure!(same == before.len(), "scaling up replaced {} of the running tasks", before.len() - same);
        self.ask(&scaled)?;
        Ok(format!("the swarmd of {name} came back and adopted its containers, then scaled to {replicas}"))
    }

    fn engine(&self) -> Result<&Engine> {
        self.cluster.engine.as_ref().context("this step needs a Docker Engine")
    }

    /// When each task's container was started; empty without an engine.
    fn started_at(&self, tasks: &[TaskView]) -> Result<BTreeMap<String, String>> {
        let Some(engine) = &self.cluster.engine else { return Ok(BTreeMap::new()) };
        tasks.iter().map(|task| Ok((task.container.clone(), engine.started_at(&task.container)?))).collect()
    }
}

/// Task and container ids.
fn identities(tasks: &[TaskView]) -> BTreeSet<(String, String)> {
    tasks.iter().map(|task| (task.id.clone(), task.container.clone())).collect()
}

/// The first characters of an id, as tables show them.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
