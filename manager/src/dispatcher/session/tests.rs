use proptest::prelude::*;
use swarm_core::{Op, Place};
use swarm_model::{Redacted, TaskStatus, Timestamp};

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
        Resume { revision: self.revision, digest: digest(self.tasks.iter().map(|(task, desired)| (*task, *desired))) }
    }
}

fn tasks_in(state: &State, node: NodeId) -> BTreeMap<TaskId, DesiredState> {
    assigned_tasks(state, node).map(|task| (task.id, task.desired)).collect()
}

const NODE: NodeId = NodeId(1);

/// What follows from all that changed since the last call.
fn update(session: &mut Session, world: &mut World) -> Option<Outbox> {
    let changes = world.changes(NODE);
    session.follow(&world.state, &changes)
}

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
    assert!(update(&mut session, &mut world).is_none());
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
    world.credentials(service, Redacted::new("secret"));
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
    assert!(update(&mut session, &mut world).is_none());
    let revision = world.state.revision();

    world.apply(Op::PlaceTask { task, place: Place::On(NODE) });
    let message = update(&mut session, &mut world).unwrap().next().unwrap();
    assert_eq!(message.tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [task]);
    assert_eq!((message.specs.len(), message.complete), (1, true));
    // So it is for an agent that was away meanwhile.
    let resume = Resume { revision, digest: digest(std::iter::empty()) };
    let messages: Vec<_> = Session::new(NODE).open(&world.state, Some(resume)).collect();
    assert_eq!((messages[0].full, messages[0].tasks.len()), (false, 1));
}

#[test]
fn only_what_changed_is_looked_at_unless_the_session_fell_behind() {
    let mut world = World::new(1);
    let service = world.service("web");
    let mut session = Session::new(NODE);
    assert_eq!(session.open(&world.state, None).count(), 1);
    world.task(service, 1, NODE);
    world.task(service, 2, NODE);
    let one = Changes::Keys([AssignmentKey::Task(task_id(2))].into());
    let ids = |outbox: Option<Outbox>| {
        outbox.into_iter().flatten().flat_map(|message| message.tasks).map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(session.follow(&world.state, &Changes::default())), []);
    assert_eq!(ids(session.follow(&world.state, &one)), [task_id(2)]);
    assert_eq!(ids(session.follow(&world.state, &Changes::Everything)), [task_id(1)]);
}

#[test]
fn a_spec_goes_with_its_last_task_and_comes_with_the_next_one() {
    let mut world = World::new(1);
    let service = world.service("web");
    let mut session = Session::new(NODE);
    assert_eq!(session.open(&world.state, None).count(), 1);
    let mut specs = |world: &mut World| {
        let outbox = update(&mut session, world);
        outbox.into_iter().flatten().map(|message| message.specs.len()).sum::<usize>()
    };
    let end = |world: &mut World, task| {
        world.apply(Op::EndTasks { status: TaskStatus::new(TaskState::Failed, Timestamp(1)), tasks: vec![task] });
        world.apply(Op::DeleteTasks { tasks: vec![task] });
    };
    let (one, two) = (world.task(service, 1, NODE), world.task(service, 2, NODE));
    assert_eq!(specs(&mut world), 1);
    end(&mut world, one);
    // The last one goes while a new one comes.
    assert_eq!(specs(&mut world), 0);
    let three = world.task(service, 3, NODE);
    end(&mut world, two);
    assert_eq!(specs(&mut world), 0);
    end(&mut world, three);
    assert_eq!(specs(&mut world), 0);
    world.task(service, 4, NODE);
    assert_eq!(specs(&mut world), 1);
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
    /// More changed than is kept for a session.
    FallBehind,
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
        1 => Just(Step::FallBehind),
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
                    if let Some(messages) = update(&mut session, &mut world) {
                        model.apply(messages);
                    }
                    prop_assert_eq!(&model.tasks, &tasks_in(&world.state, NODE));
                    prop_assert!(session.follow(&world.state, &Changes::Everything).is_none());
                }
                Step::FallBehind => {
                    world.changes(NODE);
                    if let Some(messages) = session.follow(&world.state, &Changes::Everything) {
                        model.apply(messages);
                    }
                    prop_assert_eq!(&model.tasks, &tasks_in(&world.state, NODE));
                }
                Step::Reconnect { lost_after } => {
                    // The last message may have got through in part.
                    if let Some(messages) = update(&mut session, &mut world) {
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
