//! What an agent is to be told: the difference between what it has and the state.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
};

use swarm_core::State;
use swarm_model::{DesiredState, NodeId, ServiceId, SpecVersion, Task, TaskId, TaskState};
use swarm_wire::{
    FRAME_BYTES_MAX,
    agent::{ASSIGNMENT_BATCH_MAX, AssignedSpec, AssignedTask, Assignments, Resume, digest},
};

use crate::feed::{AssignmentKey, Changes};

/// Specs in one message: half a frame, so that the tasks beside them always fit.
const SPEC_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// A spec version of a service.
type SpecKey = (ServiceId, u64);

/// What one agent has been told in its session. Only the desired state of an assigned task ever changes.
///
/// All that a node has is looked at only when its session begins, or fell behind. After that a change costs what it is.
#[derive(Clone, Debug)]
pub struct Session {
    node: NodeId,
    sent: BTreeMap<TaskId, (SpecKey, DesiredState)>,
    /// How many tasks of `sent` have a spec.
    used: BTreeMap<SpecKey, usize>,
    /// The specs that the agent was told.
    specs: BTreeSet<SpecKey>,
}

impl Session {
    /// A session of an agent that has been told nothing yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, sent: BTreeMap::new(), used: BTreeMap::new(), specs: BTreeSet::new() }
    }

    /// The first messages of a session; at least one. What the agent says it has is taken for granted when the digest
    /// proves it to be what the state has, or what the state had at that revision; else it gets the full set.
    pub fn open(&mut self, state: &State, resume: Option<Resume>) -> Outbox {
        *self = Self::new(self.node);
        if let Some(resume) = resume.filter(|resume| resume.revision <= state.revision()) {
            let at_most = |revision: u64| move |task: &&Arc<Task>| task.version <= revision;
            // Second try: what was changed since then is new to the agent, as after a while without a leader.
            for revision in [state.revision(), resume.revision] {
                let held = || assigned_tasks(state, self.node).filter(at_most(revision));
                if digest(held().map(|task| (task.id, task.desired))) == resume.digest {
                    for task in held() {
                        self.sent.insert(task.id, (key(task), task.desired));
                        *self.used.entry(key(task)).or_default() += 1;
                    }
                    let mut outbox = self.difference(state, &Changes::Everything);
                    outbox.specs = self.credentials(state);
                    return outbox;
                }
            }
        }
        Outbox { full: true, ..self.difference(state, &Changes::Everything) }
    }

    /// What is new since the last messages, if anything is, found by a look at all that the node has.
    pub fn update(&mut self, state: &State) -> Option<Outbox> {
        self.follow(state, &Changes::Everything)
    }

    /// The same, where it is known what may be new.
    pub fn follow(&mut self, state: &State, changes: &Changes) -> Option<Outbox> {
        Some(self.difference(state, changes)).filter(|outbox| !outbox.tasks.is_empty() || !outbox.removed.is_empty())
    }

    fn difference(&mut self, state: &State, changes: &Changes) -> Outbox {
        let (mut tasks, mut gone) = (VecDeque::new(), Vec::new());
        match changes {
            Changes::Everything => {
                let mut left: BTreeSet<TaskId> = self.sent.keys().copied().collect();
                for task in assigned_tasks(state, self.node) {
                    left.remove(&task.id);
                    tasks.extend(self.put(state, task));
                }
                gone.extend(left);
            }
            Changes::Keys(keys) => {
                for AssignmentKey::Task(id) in keys {
                    match state.task(*id).filter(|task| task.node == Some(self.node) && is_assigned(task)) {
                        Some(task) => tasks.extend(self.put(state, task)),
                        None if self.sent.contains_key(id) => gone.push(*id),
                        None => {}
                    }
                }
            }
        }
        // After the new tasks: a spec that the last task leaves to a new one is not sent again.
        gone.iter().for_each(|task| self.remove(*task));
        Outbox { full: false, revision: state.revision(), specs: VecDeque::new(), tasks, removed: gone, done: false }
    }

    /// What the agent is to be told of a task, if that is new, with its spec, if the agent was not told that.
    fn put(&mut self, state: &State, task: &Task) -> Option<(Option<Arc<SpecVersion>>, AssignedTask)> {
        let now = (key(task), task.desired);
        if self.sent.get(&task.id) == Some(&now) {
            return None;
        }
        let is_new = self.sent.insert(task.id, now).is_none();
        if is_new {
            *self.used.entry(key(task)).or_default() += 1;
        }
        let spec = state.spec(task.service, task.spec_version).filter(|_| is_new && self.specs.insert(key(task)));
        Some((spec.cloned(), assigned(task)))
    }

    fn remove(&mut self, task: TaskId) {
        let Some((spec, _)) = self.sent.remove(&task) else { return };
        let Some(tasks) = self.used.get_mut(&spec) else { return };
        *tasks -= 1;
        if *tasks == 0 {
            self.used.remove(&spec);
            // An agent may drop a spec with its last task; it comes again with the next one.
            self.specs.remove(&spec);
        }
    }

    /// Specs of tasks that the agent has but may still have to pull the image of: it keeps no credentials on disk.
    fn credentials(&mut self, state: &State) -> VecDeque<Arc<SpecVersion>> {
        assigned_tasks(state, self.node)
            .filter(|task| task.is_live() && task.status.state < TaskState::Ready)
            .filter_map(|task| state.spec(task.service, task.spec_version))
            .filter(|spec| spec.registry_auth.is_some() && self.specs.insert((spec.service, spec.version)))
            .cloned()
            .collect()
    }
}

/// Messages for an agent, made one by one as they are sent.
#[derive(Clone, Debug)]
pub struct Outbox {
    full: bool,
    revision: u64,
    specs: VecDeque<Arc<SpecVersion>>,
    tasks: VecDeque<(Option<Arc<SpecVersion>>, AssignedTask)>,
    removed: Vec<TaskId>,
    done: bool,
}

impl Iterator for Outbox {
    type Item = Assignments;

    fn next(&mut self) -> Option<Assignments> {
        if self.done {
            return None;
        }
        let mut message =
            Assignments { full: std::mem::take(&mut self.full), revision: self.revision, ..Assignments::default() };
        let mut spec_bytes = 0;
        // One spec always fits, however large: its limit is far below a frame.
        let mut fits = |spec: &AssignedSpec| {
            let first = spec_bytes == 0;
            spec_bytes += encoded_bytes(spec);
            first || spec_bytes <= SPEC_BYTES_MAX
        };
        while let Some(spec) = self.specs.front() {
            let spec = assigned_spec(spec);
            if !fits(&spec) {
                return Some(message);
            }
            message.specs.push(spec);
            self.specs.pop_front();
        }
        while message.tasks.len() < ASSIGNMENT_BATCH_MAX
            && let Some((spec, _)) = self.tasks.front()
        {
            if let Some(spec) = spec {
                let spec = assigned_spec(spec);
                if !fits(&spec) {
                    return Some(message);
                }
                message.specs.push(spec);
            }
            message.tasks.extend(self.tasks.pop_front().map(|(_, task)| task));
        }
        let room = ASSIGNMENT_BATCH_MAX - message.tasks.len();
        message.removed = self.removed.split_off(self.removed.len().saturating_sub(room));
        message.complete = self.tasks.is_empty() && self.removed.is_empty();
        self.done = message.complete;
        Some(message)
    }
}

/// The tasks that a node's agent is to know. One of a global service names its node from the start, but may still
/// have to wait for room there: until then it is none of the agent's business.
fn assigned_tasks(state: &State, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
    state.tasks_of_node(node).filter(|task| is_assigned(task))
}

fn is_assigned(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

fn key(task: &Task) -> SpecKey {
    (task.service, task.spec_version)
}

fn assigned(task: &Task) -> AssignedTask {
    AssignedTask {
        id: task.id,
        service: task.service,
        spec_version: task.spec_version,
        slot: task.number(),
        desired: task.desired,
        generic_resources: task.generic_resources.clone(),
    }
}

fn assigned_spec(version: &SpecVersion) -> AssignedSpec {
    AssignedSpec {
        service: version.service,
        version: version.version,
        service_name: version.spec.name.clone(),
        service_labels: version.spec.labels.clone(),
        task: version.spec.task_template.clone(),
        ports: version.spec.ports().to_vec(),
        registry_auth: version.registry_auth.clone(),
    }
}

/// Bytes that a spec takes in a message.
fn encoded_bytes(spec: &AssignedSpec) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be encoded is found when the message is sent.
    let _ = rmp_serde::encode::write_named(&mut count, spec);
    count.0
}
