//! The stops that an agent was told of: each begins after at most the grace of its task.

use std::collections::BTreeMap;

use swarm_agent::{Input, Worker};
use swarm_model::{ContainerSpec, NodeId, TaskId, TaskState};

use crate::world::World;

/// A call that failed is made again after a second.
const SLACK_MS: u64 = 1_100;

/// When the agent could last have begun each stop.
#[derive(Debug, Default)]
pub(crate) struct Stops(BTreeMap<TaskId, Option<u64>>);

impl Stops {
    /// The agent may hear of its engine only now, which is then why a stop did not begin before.
    pub(crate) fn hear(&mut self, input: Option<&Input>, now_ms: u64) {
        match input {
            Some(Input::Done { task, .. }) => {
                if let Some(Some(since_ms)) = self.0.get_mut(task) {
                    *since_ms = now_ms;
                }
            }
            Some(Input::EngineUp(_) | Input::Listed(_)) => {
                self.0.values_mut().flatten().for_each(|since_ms| *since_ms = now_ms);
            }
            _ => {}
        }
    }

    /// Looks which tasks are to stop.
    pub(crate) fn follow(&mut self, worker: &Worker, now_ms: u64) {
        let mut before = std::mem::take(&mut self.0);
        for task in worker.tasks() {
            let is_wanted = task.assigned.desired.is_live() && !task.leaving;
            if !is_wanted && task.status.state <= TaskState::Running {
                let id = task.assigned.id;
                self.0.insert(id, before.remove(&id).unwrap_or(Some(now_ms)));
            }
        }
    }
}

impl World {
    /// An agent begins to stop a task, or stops it.
    pub(crate) fn check_grace(&mut self, node: NodeId, task: TaskId) {
        let known = self.log.state.task(task).and_then(|task| self.log.state.spec(task.service, task.spec_version));
        let grace_ns = known.and_then(|spec| spec.spec.task_template.container_spec.stop_grace_period_ns);
        let grace_ns = grace_ns.unwrap_or(ContainerSpec::STOP_GRACE_PERIOD_DEFAULT_NS);
        let now_ms = self.now_ms;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        // The first call counts; others follow it.
        let Some(since_ms) = host.stops.0.get_mut(&task).and_then(Option::take) else { return };
        if known.is_some() && now_ms > since_ms + u64::try_from(grace_ns / 1_000_000).unwrap_or(0) + SLACK_MS {
            self.complain(format!("node {node} stops task {task} {} ms after it could", now_ms - since_ms));
        }
    }
}
