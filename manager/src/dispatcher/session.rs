//! What an agent is to be told: the difference between what it has and the state.

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

/// Specs in one message: half a frame, so that the tasks beside them always fit.
const SPEC_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// A spec version of a service.
type SpecKey = (ServiceId, u64);

/// What one agent has been told in its session. Only the desired state of an assigned task ever changes.
#[derive(Clone, Debug)]
pub struct Session {
    node: NodeId,
    sent: BTreeMap<TaskId, (SpecKey, DesiredState)>,
    specs: BTreeSet<SpecKey>,
}

impl Session {
    /// A session of an agent that has been told nothing yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, sent: BTreeMap::new(), specs: BTreeSet::new() }
    }

    /// The first messages of a session; at least one. What the agent says it has is taken for granted when the digest
    /// proves it to be what the state has, or what the state had at that revision; else it gets the full set.
    pub fn open(&mut self, state: &State, resume: Option<Resume>) -> Outbox {
        if let Some(resume) = resume.filter(|resume| resume.revision <= state.revision()) {
            let at_most = |revision: u64| move |task: &&Arc<Task>| task.version <= revision;
            // Second try: what was changed since then is new to the agent, as after a while without a leader.
            for revision in [state.revision(), resume.revision] {
                let held = || assigned_tasks(state, self.node).filter(at_most(revision));
                if digest(held().map(|task| (task.id, task.desired))) == resume.digest {
                    self.sent = held().map(|task| (task.id, (key(task), task.desired))).collect();
                    let mut outbox = self.difference(state);
                    outbox.specs = self.credentials(state);
                    return outbox;
                }
            }
        }
        self.sent.clear();
        self.specs.clear();
        Outbox { full: true, ..self.difference(state) }
    }

    /// What changed since the last messages, if anything did.
    pub fn update(&mut self, state: &State) -> Option<Outbox> {
        Some(self.difference(state)).filter(|outbox| !outbox.tasks.is_empty() || !outbox.removed.is_empty())
    }

    fn difference(&mut self, state: &State) -> Outbox {
        let mut gone: BTreeSet<TaskId> = self.sent.keys().copied().collect();
        let mut tasks = VecDeque::new();
        for task in assigned_tasks(state, self.node) {
            gone.remove(&task.id);
            let now = (key(task), task.desired);
            if self.sent.get(&task.id) == Some(&now) {
                continue;
            }
            let is_new = self.sent.insert(task.id, now).is_none();
            let spec = state.spec(task.service, task.spec_version).filter(|_| is_new && self.specs.insert(key(task)));
            tasks.push_back((spec.cloned(), assigned(task)));
        }
        for task in &gone {
            self.sent.remove(task);
        }
        if !gone.is_empty() {
            // An agent may drop a spec with its last task; it comes again with the next one.
            let used: BTreeSet<SpecKey> = self.sent.values().map(|(key, _)| *key).collect();
            self.specs.retain(|key| used.contains(key));
        }
        Outbox {
            full: false,
            revision: state.revision(),
            specs: VecDeque::new(),
            tasks,
            removed: gone.into_iter().collect(),
            done: false,
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
    state.tasks_of_node(node).filter(|task| task.status.state >= TaskState::Assigned)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_core::{Op, Place};
    use swarm_model::{Secret, TaskStatus, Timestamp};

    use super::*;
    use crate::testing::{World, task_id};

    /// An agent that does as it is told, and checks that it can.
    #[derive(Clone, Debug, Default)]
    struct Model {
        tasks: BTreeMap<TaskId, DesiredState>,
        specs: BTreeSet<SpecKey>,
        revision: u64,
        named: Option<BTreeSet<TaskId>>,
    }

    impl Model {
        fn apply(&mut self, messages: impl Iterator<Item = Assignments>) {
            assert!(self.apply_some(messages), "every set and difference ends");
        }

        /// Returns whether the last message was the end.
        fn apply_some(&mut self, messages: impl Iterator<Item = Assignments>) -> bool {
            let mut complete = false;
            for message in messages {
                assert!(!complete, "nothing follows the end");
                assert!(message.tasks.len() + message.removed.len() <= ASSIGNMENT_BATCH_MAX);
                if message.full {
                    self.named = Some(BTreeSet::new());
                }
                self.specs.extend(message.specs.iter().map(|spec| (spec.service, spec.version)));
                for task in &message.tasks {
                    assert!(self.specs.contains(&(task.service, task.spec_version)), "a task's spec is there");
                    self.tasks.insert(task.id, task.desired);
                    self.named.iter_mut().for_each(|named| named.extend([task.id]));
                }
                for task in &message.removed {
                    assert!(self.tasks.remove(task).is_some(), "only what the agent has is removed");
                }
                if message.complete {
                    self.revision = message.revision;
                    if let Some(named) = self.named.take() {
                        self.tasks.retain(|task, _| named.contains(task));
                    }
                }
                complete = message.complete;
            }
            complete
        }

        fn resume(&self) -> Resume {
            Resume {
                revision: self.revision,
                digest: digest(self.tasks.iter().map(|(task, desired)| (*task, *desired))),
            }
        }
    }

    fn tasks_in(state: &State, node: NodeId) -> BTreeMap<TaskId, DesiredState> {
        assigned_tasks(state, node).map(|task| (task.id, task.desired)).collect()
    }

    const NODE: NodeId = NodeId(1);

    #[test]
    fn one_spec_serves_many_tasks_and_batches_end() {
        let mut world = World::new(1);
        let service = world.service("web");
        for n in 0..2_500 {
            world.task(service, n, NODE);
        }
        let mut session = Session::new(NODE);
        let messages: Vec<_> = session.open(&world.state, None).collect();
        assert_eq!(messages.iter().map(|m| m.tasks.len()).collect::<Vec<_>>(), [1024, 1024, 452]);
        assert_eq!(messages.iter().map(|m| m.specs.len()).collect::<Vec<_>>(), [1, 0, 0]);
        let ends: Vec<_> = messages.iter().map(|m| (m.full, m.complete)).collect();
        assert_eq!(ends, [(true, false), (false, false), (false, true)]);
        assert!(session.update(&world.state).is_none());
    }

    #[test]
    fn large_specs_are_spread_over_messages_that_fit_a_frame() {
        let mut world = World::new(1);
        for n in 0..40 {
            let service = world.service_with(&format!("s{n}"), |spec| {
                spec.task_template.container_spec.env = vec!["x".repeat(400 << 10)];
            });
            world.task(service, n, NODE);
        }
        let messages: Vec<_> = Session::new(NODE).open(&world.state, None).collect();
        assert!(messages.len() >= 4);
        for message in &messages {
            assert!(rmp_serde::to_vec_named(message).unwrap().len() <= FRAME_BYTES_MAX);
        }
        let mut model = Model::default();
        model.apply(messages.into_iter());
        assert_eq!(model.tasks, tasks_in(&world.state, NODE));
    }

    #[test]
    fn who_has_everything_is_told_only_that() {
        let mut world = World::new(1);
        let service = world.service("web");
        let task = world.task(service, 1, NODE);
        let mut model = Model::default();
        model.apply(Session::new(NODE).open(&world.state, None));
        // A status changes nothing that an agent needs.
        let status = TaskStatus::new(TaskState::Running, Timestamp(5));
        world.apply(Op::ReportTasks { node: NODE, reports: vec![(task, status)] });
        let messages: Vec<_> = Session::new(NODE).open(&world.state, Some(model.resume())).collect();
        let nothing = Assignments { complete: true, revision: world.state.revision(), ..Assignments::default() };
        assert_eq!(messages, [nothing]);
    }

    #[test]
    fn who_was_away_gets_the_new_tasks_with_their_specs_and_not_the_old_ones() {
        let mut world = World::new(1);
        let service = world.service("web");
        world.task(service, 1, NODE);
        let mut model = Model::default();
        model.apply(Session::new(NODE).open(&world.state, None));
        world.task(service, 2, NODE);
        let messages: Vec<_> = Session::new(NODE).open(&world.state, Some(model.resume())).collect();
        assert_eq!((messages.len(), messages[0].full), (1, false));
        assert_eq!(messages[0].tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [task_id(2)]);
        assert_eq!(messages[0].specs.len(), 1);
    }

    #[test]
    fn credentials_are_sent_again_while_an_image_may_have_to_be_pulled() {
        let mut world = World::new(1);
        let service = world.service("web");
        world.credentials(service, Secret::new("secret"));
        let task = world.task(service, 1, NODE);
        let mut model = Model::default();
        model.apply(Session::new(NODE).open(&world.state, None));
        let resumed = |world: &World| Session::new(NODE).open(&world.state, Some(model.resume())).next().unwrap();
        assert_eq!(resumed(&world).specs.len(), 1);
        let status = TaskStatus::new(TaskState::Running, Timestamp(5));
        world.apply(Op::ReportTasks { node: NODE, reports: vec![(task, status)] });
        assert_eq!(resumed(&world).specs.len(), 0);
    }

    #[test]
    fn a_task_that_waits_on_its_node_is_sent_when_there_is_room() {
        let mut world = World::new(1);
        let service = world.service("web");
        let task = world.waiting_task(service, 1, NODE);
        let mut session = Session::new(NODE);
        let messages: Vec<_> = session.open(&world.state, None).collect();
        assert_eq!((messages.len(), messages[0].tasks.len(), messages[0].specs.len()), (1, 0, 0));
        // Another reason to wait is no news either.
        world.apply(Op::PlaceTask { task, place: Place::PendingOn(NODE, "no room".into()) });
        assert!(session.update(&world.state).is_none());
        let revision = world.state.revision();

        world.apply(Op::PlaceTask { task, place: Place::On(NODE) });
        let message = session.update(&world.state).unwrap().next().unwrap();
        assert_eq!(message.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [task]);
        assert_eq!((message.specs.len(), message.complete), (1, true));
        // So it is for an agent that was away meanwhile.
        let resume = Resume { revision, digest: digest(std::iter::empty()) };
        let messages: Vec<_> = Session::new(NODE).open(&world.state, Some(resume)).collect();
        assert_eq!((messages[0].full, messages[0].tasks.len()), (false, 1));
    }

    /// What can happen to the tasks of a node, and to its session.
    #[derive(Clone, Debug)]
    enum Step {
        Create {
            service: usize,
            waits: bool,
        },
        Place {
            task: usize,
        },
        Desire {
            task: usize,
            desired: DesiredState,
        },
        Run {
            task: usize,
        },
        End {
            task: usize,
        },
        Delete {
            task: usize,
        },
        Update,
        /// The stream breaks after some of the messages; the agent comes back with what it has.
        Reconnect {
            lost_after: usize,
        },
        /// The agent comes back with nothing.
        Fresh,
    }

    fn step() -> impl Strategy<Value = Step> {
        let desired = prop_oneof![
            Just(DesiredState::Ready),
            Just(DesiredState::Running),
            Just(DesiredState::Shutdown),
            Just(DesiredState::Remove)
        ];
        prop_oneof![
            4 => (0_usize..3, prop::bool::weighted(0.3)).prop_map(|(service, waits)| Step::Create { service, waits }),
            2 => any::<usize>().prop_map(|task| Step::Place { task }),
            2 => (any::<usize>(), desired).prop_map(|(task, desired)| Step::Desire { task, desired }),
            2 => any::<usize>().prop_map(|task| Step::Run { task }),
            1 => any::<usize>().prop_map(|task| Step::End { task }),
            2 => any::<usize>().prop_map(|task| Step::Delete { task }),
            3 => Just(Step::Update),
            2 => (0_usize..3).prop_map(|lost_after| Step::Reconnect { lost_after }),
            1 => Just(Step::Fresh),
        ]
    }

    proptest! {
        /// Whatever happens, what was sent makes the agent's set equal to the state's.
        #[test]
        fn the_agent_has_exactly_its_nodes_tasks(steps in prop::collection::vec(step(), 1..60)) {
            let mut world = World::new(2);
            let services = ["a", "b", "c"].map(|name| world.service(name));
            let mut session = Session::new(NODE);
            let mut model = Model::default();
            model.apply(session.open(&world.state, None));
            let mut made: u32 = 0;
            for step in steps {
                let pick = |n: usize, made: u32| task_id(u32::try_from(n % made.max(1) as usize).expect("small"));
                match step {
                    Step::Create { service, waits } => {
                        // Every third task is another node's and none of this agent's business.
                        let node = if made % 3 == 2 { NodeId(2) } else { NODE };
                        let create = if waits { World::waiting_task } else { World::task };
                        create(&mut world, services[service], made, node);
                        made += 1;
                    }
                    Step::Place { task } => {
                        let task = world.state.task(pick(task, made)).cloned();
                        if let Some(task) = task.filter(|task| task.status.state == TaskState::Pending) {
                            let place = Place::On(task.node.expect("it waits on its node"));
                            world.apply(Op::PlaceTask { task: task.id, place });
                        }
                    }
                    Step::Desire { task, desired } => {
                        world.apply(Op::SetDesired { desired, tasks: vec![pick(task, made)] });
                    }
                    Step::Run { task } => {
                        let status = TaskStatus::new(TaskState::Running, Timestamp(1));
                        world.apply(Op::ReportTasks { node: NODE, reports: vec![(pick(task, made), status)] });
                    }
                    Step::End { task } => {
                        let status = TaskStatus::new(TaskState::Failed, Timestamp(1));
                        world.apply(Op::EndTasks { status, tasks: vec![pick(task, made)] });
                    }
                    Step::Delete { task } => world.apply(Op::DeleteTasks { tasks: vec![pick(task, made)] }),
                    Step::Update => {
                        if let Some(messages) = session.update(&world.state) {
                            model.apply(messages);
                        }
                        prop_assert_eq!(&model.tasks, &tasks_in(&world.state, NODE));
                        prop_assert!(session.update(&world.state).is_none());
                    }
                    Step::Reconnect { lost_after } => {
                        // The last message may have got through in part.
                        if let Some(messages) = session.update(&world.state) {
                            model.apply_some(messages.take(1).map(|mut message| {
                                message.complete = false;
                                message.tasks.truncate(lost_after);
                                message.removed.clear();
                                message
                            }));
                        }
                        session = Session::new(NODE);
                        model.named = None;
                        model.apply(session.open(&world.state, Some(model.resume())));
                        prop_assert_eq!(&model.tasks, &tasks_in(&world.state, NODE));
                    }
                    Step::Fresh => {
                        model = Model::default();
                        session = Session::new(NODE);
                        model.apply(session.open(&world.state, None));
                        prop_assert_eq!(&model.tasks, &tasks_in(&world.state, NODE));
                    }
                }
                prop_assert!(world.state.revision() > 0);
            }
        }
    }
}
