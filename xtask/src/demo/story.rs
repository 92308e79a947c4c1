//! What the demo shows, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

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
    story.step("A service of six replicas, spread over the nodes, each with a port of its node", Story::create)?;
    if story.cluster.engine.is_some() {
        story.step("Each replica answers, at its own node's address", Story::ask_all)?;
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
            "mode=host,target=8080",
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
        let lines = self.ask(&tasks)?;
        for (address, line) in &lines {
            ui::say(&format!("  {address:<22} {line}"));
        }
        Ok(format!("{} replicas answered, each under its own name", lines.len()))
    }

    /// Asks each task's web service at its node's address; each has to answer with its own task's and node's name.
    fn ask(&self, tasks: &[TaskView]) -> Result<BTreeMap<SocketAddr, String>> {
        let mut lines = BTreeMap::new();
        for task in tasks {
            let hostname = self.hostname(task)?;
            let node = self.cluster.nodes.iter().find(|node| node.name == hostname);
            let ip = node.with_context(|| format!("{hostname} is no node of the demo"))?.ip;
            let port = task.port.with_context(|| format!("task {} has no port", task.id))?;
            let address = SocketAddr::from((ip, port));
            // A replica runs as soon as its process does; that may be an instant before it listens.
            let greeting = wait::until(&format!("task {} answers", task.id), STEP_LIMIT, || {
                view::greet(&Address::Tcp(address)).map(Look::Done)
            })?;
            let name = format!("{SERVICE}.{}.{}", task.slot, task.id);
            if greeting.task != name || greeting.node != hostname {
                bail!("{address} should be {name} on {hostname}, but answers: {}", greeting.line);
            }
            lines.insert(address, greeting.line);
        }
        ensure!(lines.len() == tasks.len(), "{} tasks share {} addresses", tasks.len(), lines.len());
        Ok(lines)
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
