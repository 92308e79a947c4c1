//! Commands of scripts that ask for reasons, and those that make trouble to ask about.

use std::fmt::Write as _;

use swarm_core::{Forecast, Rejection, Why, forecast, why_service, why_task};
use swarm_model::{ContainerStatus, Task, format_duration};

use super::*;

impl World {
    /// `why web` of a service, `why web.1` of a task.
    pub(super) fn why(&self, name: &str) -> Result<String, String> {
        let task = self.names.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
        let why = match task {
            Some(task) => why_task(&self.state, task, self.now),
            None => why_service(&self.state, self.service(name)?, self.now),
        };
        Ok(self.named(&self.tell_why(&why.ok_or("it is gone")?, task.is_some())))
    }

    fn tell_why(&self, why: &Why, is_task: bool) -> String {
        let mut out = format!("{}\n", why.summary);
        for told in &why.tasks {
            if !is_task {
                let _ = writeln!(out, "  {}: {}", self.names[&told.task.id], told.summary);
            }
            for failure in &told.failures {
                let (state, node) = (failure.state, &failure.node_name);
                let code = failure.exit_code.map_or(String::new(), |code| format!(" [{code}]"));
                let _ = writeln!(out, "  {} {state} on {node}{code}: {}", self.names[&failure.task], failure.reason);
            }
            let restart = told.restart;
            if restart.restarts > 0 && restart.max_attempts > 0 {
                let _ = writeln!(out, "  restarts: {} of {}", restart.restarts, restart.max_attempts);
            }
            if let Some(wait_ns) = restart.wait_ns {
                let _ = writeln!(out, "  waits {}", format_duration(wait_ns / SECOND_NS * SECOND_NS));
            }
        }
        out + &tell_help(&why.rejections, &why.fixes)
    }

    /// `plan update web image=…` and the like: what the command after it would lead to. Nothing changes.
    pub(super) fn plan(&mut self, line: &str) -> Result<String, String> {
        self.forecast(line.trim_start_matches("plan "), |_| String::new())
    }

    /// `help update web image=…`: the same, with what keeps nodes from taking what waits, and what would help.
    pub(super) fn help(&mut self, line: &str) -> Result<String, String> {
        self.forecast(line.trim_start_matches("help "), |forecast| tell_help(&forecast.rejections, &forecast.fixes))
    }

    fn forecast(&mut self, line: &str, more: impl Fn(&Forecast) -> String) -> Result<String, String> {
        let (before, now, dirty, services) = (self.state.clone(), self.now, self.dirty.clone(), self.services.clone());
        self.planned = None;
        self.planning = true;
        let result = self.run(line);
        self.planning = false;
        (self.now, self.dirty) = (now, dirty);
        assert_eq!(self.state.revision(), before.revision(), "a plan changes nothing");
        result?;
        let op = self.planned.take().ok_or("nothing to plan")?;
        let forecast = forecast(&self.state, &Tx::new(vec![op]), self.now).map_err(|refusal| refusal.to_string())?;
        let told = self.tell_forecast(&forecast) + &more(&forecast);
        self.services = services;
        Ok(told)
    }

    fn tell_forecast(&self, forecast: &Forecast) -> String {
        let mut out = String::new();
        for wave in &forecast.waves {
            let _ = write!(out, "{}:", format_duration(wave.after_ns / SECOND_NS * SECOND_NS));
            for step in &wave.steps {
                let node = |node: Option<NodeId>| node.map_or("-", |node| self.node_name(node));
                let place = match step.slot {
                    0 => node(step.to.or(step.from)).to_owned(),
                    slot => slot.to_string(),
                };
                let _ = write!(out, " {} {}.{place}", step.action.as_str(), self.service_name(step.service));
                match (step.from, step.to) {
                    (Some(from), Some(to)) => {
                        let _ = write!(out, " {}->{}", self.node_name(from), self.node_name(to));
                    }
                    (from, to) => {
                        let _ = write!(out, " {}", node(from.or(to)));
                    }
                }
                if let Some(reason) = &step.reason {
                    let _ = write!(out, " ({reason})");
                }
                out.push(';');
            }
            out.push('\n');
        }
        let ends = format_duration(forecast.ends_after_ns / SECOND_NS * SECOND_NS);
        let changes = if forecast.changes { "changes" } else { "nothing changes" };
        let cut = if forecast.cut { ", cut off" } else { "" };
        let done = if forecast.stuck { "does not end".to_owned() } else { format!("done after {ends}") };
        let _ = writeln!(out, "{changes}{cut}, {done}, {} waiting", forecast.waiting.len());
        let place = |task: &Task| {
            let place =
                if task.slot == 0 { task.node.map_or("-", |n| self.node_name(n)) } else { &task.slot.to_string() };
            format!("{}.{place}", self.service_name(task.service))
        };
        for (task, why) in &forecast.staying {
            let node = task.node.map_or("-", |node| self.node_name(node));
            let _ = writeln!(out, "stays on {node}: {}: {why}", place(task));
        }
        if let Some(how) = &forecast.rolled_back {
            let waited: Vec<String> = how.waiting.iter().map(|task| place(task)).collect();
            let _ =
                writeln!(out, "rolled back due to {}; without a node until then: {}", how.reason, waited.join(", "));
        }
        out
    }

    /// A node's container engine stops answering.
    pub(super) fn break_engine(&mut self, name: &str) -> Result<String, String> {
        let mut status = status(NodeState::Ready);
        (status.engine_reachable, status.message) = (false, "engine unreachable".into());
        self.user(Op::ReportNode { node: self.node(name)?, status, description: None })
    }

    /// A task fails with an exit code, or cannot be started.
    pub(super) fn fail(&mut self, name: &str, options: &Options<'_>) -> Result<String, String> {
        let id = *self.names.iter().find(|(_, n)| *n == name).ok_or_else(|| format!("no task {name}"))?.0;
        let node = self.state.task(id).and_then(|task| task.node).ok_or("the task has no node")?;
        let exit_code = options.get("exit").map(|code| code.parse().map_err(|_| "exit is a number")).transpose()?;
        let state = if exit_code.is_some() { TaskState::Failed } else { TaskState::Rejected };
        let mut status = TaskStatus::new(state, self.now);
        status.err = options.get("err").map(|err| err.replace('_', " ").into());
        let container = ContainerStatus { exit_code, ..ContainerStatus::default() };
        status.container = exit_code.map(|_| container.into());
        self.user(Op::ReportTasks { node, reports: vec![(id, status)] })
    }
}

fn tell_help(rejections: &[Rejection], fixes: &[String]) -> String {
    let mut out = String::new();
    for rejection in rejections {
        let _ = writeln!(out, "  {}: {}", rejection.filter, rejection.asked);
        for node in &rejection.nodes {
            let _ = writeln!(out, "    {} {}", node.name, node.found);
        }
    }
    for fix in fixes {
        let _ = writeln!(out, "  => {fix}");
    }
    out
}
