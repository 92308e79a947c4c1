use proptest::prelude::*;
use swarm_core::{Op, Place};
use swarm_model::{ObjectContent, ObjectId, ObjectKind, Redacted, SecretContent, TaskStatus, Timestamp};

use swarm_wire::agent::Assignments;

use super::*;
use crate::testing::{World, task_id};

/// An agent that does as it is told, and checks that it can.
#[derive(Clone, Debug, Default)]
struct Model {
    tasks: BTreeMap<TaskId, AssignedTask>,
    specs: BTreeSet<SpecKey>,
    objects: BTreeSet<ObjectKey>,
    revision: u64,
    named: Option<(BTreeSet<TaskId>, BTreeSet<ObjectKey>)>,
}

impl Model {
    fn apply(&mut self, messages: impl Iterator<Item = io::Result<Changeset>>) {
        assert!(self.apply_some(messages.map(Result::unwrap)), "every set and difference ends");
    }

    /// Returns whether the last message was the end.
    fn apply_some(&mut self, messages: impl Iterator<Item = Changeset>) -> bool {
        let mut complete = false;
        for message in messages {
            assert!(!complete, "nothing follows the end");
            if message.full {
                self.named = Some(Default::default());
            }
            let mut items = 0;
            for change in message.changes {
                match change {
                    ItemChange::Put(Item::Spec(spec)) => {
                        let spec = spec.open().unwrap();
                        self.specs.insert((spec.service, spec.version));
                    }
                    ItemChange::Put(Item::Object(object)) => {
                        let key = object.open().unwrap().key();
                        self.objects.insert(key);
                        self.named.iter_mut().for_each(|named| named.1.extend([key]));
                    }
                    ItemChange::Put(Item::Task(task)) => {
                        items += 1;
                        assert!(self.specs.contains(&(task.service, task.spec_version)), "a task's spec is there");
                        self.named.iter_mut().for_each(|named| named.0.extend([task.id]));
                        self.tasks.insert(task.id, task);
                    }
                    ItemChange::Remove(ItemKey::Task(task)) => {
                        items += 1;
                        assert!(self.tasks.remove(&task).is_some(), "only what the agent has is removed");
                    }
                    ItemChange::Remove(ItemKey::Object(object)) => {
                        items += 1;
                        assert!(self.objects.remove(&object), "only what the agent has is removed");
                    }
                }
            }
            assert!(items <= ASSIGNMENT_BATCH_MAX);
            if message.complete {
                self.revision = message.revision;
                if let Some((tasks, objects)) = self.named.take() {
                    self.tasks.retain(|task, _| tasks.contains(task));
                    self.objects.retain(|object| objects.contains(object));
                }
            }
            complete = message.complete;
        }
        complete
    }

    fn resume(&self) -> Resume {
        let tasks: Vec<_> = self.tasks.values().map(|task| Held::Task(task.id, task.desired)).collect();
        let used: BTreeSet<_> = self.tasks.values().map(|task| (task.service, task.spec_version)).collect();
        let specs = used.intersection(&self.specs).map(|(service, version)| Held::Spec(*service, *version));
        let objects = self.objects.iter().map(|key| Held::Object(*key));
        let all = digest(tasks.iter().copied().chain(specs).chain(objects));
        Resume { revision: self.revision, digest: digest(tasks), all: Some(all) }
    }

    /// Checks that the agent has its tasks, and the objects that the tasks need which have not ended.
    fn check(&self, state: &State) {
        let wanted: BTreeMap<_, _> = assigned_tasks(state, NODE).map(|task| (task.id, task.desired)).collect();
        let found = self.tasks.values().map(|task| (task.id, task.desired)).collect();
        assert_eq!(wanted, found);
        let alive = assigned_tasks(state, NODE).filter(|task| !task.status.state.is_terminal());
        let needed = alive.flat_map(|task| needs(state, task).to_vec()).filter(|key| state.object(*key).is_some());
        assert_eq!(needed.collect::<BTreeSet<_>>(), self.objects);
    }
}

fn new_session() -> Session {
    Session::new(NODE, Arc::default())
}

fn all(messages: impl Iterator<Item = io::Result<Changeset>>) -> Vec<Changeset> {
    messages.map(Result::unwrap).collect()
}

fn tasks(message: &Changeset) -> Vec<TaskId> {
    let put = message.changes.iter().filter_map(|change| match change {
        ItemChange::Put(Item::Task(task)) => Some(task.id),
        _ => None,
    });
    put.collect()
}

fn specs(message: &Changeset) -> usize {
    message.changes.iter().filter(|change| matches!(change, ItemChange::Put(Item::Spec(_)))).count()
}

fn objects(message: &Changeset) -> Vec<(bool, ObjectKey)> {
    let changes = message.changes.iter().filter_map(|change| match change {
        ItemChange::Put(Item::Object(object)) => Some((true, object.open().unwrap().key())),
        ItemChange::Remove(ItemKey::Object(key)) => Some((false, *key)),
        _ => None,
    });
    changes.collect()
}

fn secret(world: &mut World, id: u128) -> ObjectKey {
    let content = SecretContent { data: b"s3cret".to_vec().into(), templating: None };
    let content = Arc::new(ObjectContent::Secret(content));
    let (id, name) = (ObjectId(id), format!("secret-{id}"));
    world.apply(Op::CreateObject { id, name, labels: Default::default(), content });
    ObjectKey { kind: ObjectKind::Secret, id }
}

fn user_of(world: &mut World, name: &str, secrets: &[ObjectKey]) -> swarm_model::ServiceId {
    let list = secrets.iter().map(|key| serde_json::json!({"SecretID": key.id.to_string(), "SecretName": "s"}));
    let list = list.collect();
    world.service_with(name, |spec| drop(spec.task_template.container_spec.extra.insert("Secrets".into(), list)))
}

const NODE: NodeId = NodeId(1);

/// What follows from all that changed since the last call.
fn update(session: &mut Session, world: &mut World) -> Option<Outbox> {
    let changes = world.changes(NODE);
    session.follow(&world.state, &changes, &mut |_| true)
}

#[test]
fn one_spec_serves_many_tasks_and_batches_end() {
    let mut world = World::new(1);
    let service = world.service("web");
    for n in 0..2_500 {
        world.task(service, n, NODE);
    }
    let mut session = new_session();
    let messages = all(session.open(&world.state, None, &mut |_| true));
    assert_eq!(messages.iter().map(|m| tasks(m).len()).collect::<Vec<_>>(), [1024, 1024, 452]);
    assert_eq!(messages.iter().map(specs).collect::<Vec<_>>(), [1, 0, 0]);
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
    let messages = all(new_session().open(&world.state, None, &mut |_| true));
    assert!(messages.len() >= 4);
    for message in &messages {
        assert!(rmp_serde::to_vec_named(message).unwrap().len() <= FRAME_BYTES_MAX);
    }
    let mut model = Model::default();
    model.apply(messages.into_iter().map(Ok));
    model.check(&world.state);
}

#[test]
fn who_has_everything_is_told_only_that() {
    let mut world = World::new(1);
    let service = world.service("web");
    let task = world.task(service, 1, NODE);
    let mut model = Model::default();
    model.apply(new_session().open(&world.state, None, &mut |_| true));
    // A status changes nothing that an agent needs.
    let status = TaskStatus::new(TaskState::Running, Timestamp(5));
    world.apply(Op::ReportTasks { node: NODE, reports: vec![(task, status)] });
    let messages = all(new_session().open(&world.state, Some(model.resume()), &mut |_| true));
    let nothing = Changeset { complete: true, revision: world.state.revision(), ..Changeset::default() };
    assert_eq!(messages, [nothing]);
}

#[test]
fn who_was_away_gets_the_new_tasks_with_their_specs_and_not_the_old_ones() {
    let mut world = World::new(1);
    let service = world.service("web");
    world.task(service, 1, NODE);
    let mut model = Model::default();
    model.apply(new_session().open(&world.state, None, &mut |_| true));
    world.task(service, 2, NODE);
    let messages = all(new_session().open(&world.state, Some(model.resume()), &mut |_| true));
    assert_eq!((messages.len(), messages[0].full), (1, false));
    assert_eq!((tasks(&messages[0]), specs(&messages[0])), (vec![task_id(2)], 1));
}

#[test]
fn credentials_are_sent_again_while_an_image_may_have_to_be_pulled() {
    let mut world = World::new(1);
    let service = world.service("web");
    world.credentials(service, Redacted::new("secret"));
    let task = world.task(service, 1, NODE);
    let mut model = Model::default();
    model.apply(new_session().open(&world.state, None, &mut |_| true));
    let resumed = |world: &World| all(new_session().open(&world.state, Some(model.resume()), &mut |_| true)).remove(0);
    assert_eq!(specs(&resumed(&world)), 1);
    let status = TaskStatus::new(TaskState::Running, Timestamp(5));
    world.apply(Op::ReportTasks { node: NODE, reports: vec![(task, status)] });
    assert_eq!(specs(&resumed(&world)), 0);
}

#[test]
fn a_task_that_waits_on_its_node_is_sent_when_there_is_room() {
    let mut world = World::new(1);
    let service = world.service("web");
    let task = world.waiting_task(service, 1, NODE);
    let mut session = new_session();
    let messages = all(session.open(&world.state, None, &mut |_| true));
    assert_eq!((messages.len(), tasks(&messages[0]), specs(&messages[0])), (1, vec![], 0));
    // Another reason to wait is no news either.
    world.apply(Op::PlaceTask { task, place: Place::PendingOn(NODE, "no room".into()), addrs: Default::default() });
    assert!(update(&mut session, &mut world).is_none());
    let revision = world.state.revision();

    world.apply(Op::PlaceTask { task, place: Place::On(NODE), addrs: Default::default() });
    let message = all(update(&mut session, &mut world).unwrap()).remove(0);
    assert_eq!((tasks(&message), specs(&message), message.complete), (vec![task], 1, true));
    // So it is for an agent that was away meanwhile.
    for all_of_it in [None, Some(digest([]))] {
        let resume = Resume { revision, digest: digest([]), all: all_of_it };
        let messages = all(new_session().open(&world.state, Some(resume), &mut |_| true));
        assert_eq!((messages[0].full, tasks(&messages[0]).len()), (false, 1));
    }
}

#[test]
fn only_what_changed_is_looked_at_unless_the_session_fell_behind() {
    let mut world = World::new(1);
    let service = world.service("web");
    let mut session = new_session();
    assert_eq!(session.open(&world.state, None, &mut |_| true).count(), 1);
    world.task(service, 1, NODE);
    world.task(service, 2, NODE);
    let one = Changes::Keys([AssignmentKey::Task(task_id(2))].into());
    let ids = |outbox: Option<Outbox>| all(outbox.into_iter().flatten()).iter().flat_map(tasks).collect::<Vec<_>>();
    assert_eq!(ids(session.follow(&world.state, &Changes::default(), &mut |_| true)), []);
    assert_eq!(ids(session.follow(&world.state, &one, &mut |_| true)), [task_id(2)]);
    assert_eq!(ids(session.follow(&world.state, &Changes::Everything, &mut |_| true)), [task_id(1)]);
}

#[test]
fn a_spec_goes_with_its_last_task_and_comes_with_the_next_one() {
    let mut world = World::new(1);
    let service = world.service("web");
    let mut session = new_session();
    assert_eq!(session.open(&world.state, None, &mut |_| true).count(), 1);
    let mut specs_of = |world: &mut World| {
        let outbox = update(&mut session, world);
        all(outbox.into_iter().flatten()).iter().map(specs).sum::<usize>()
    };
    let end = |world: &mut World, task| {
        world.apply(Op::EndTasks { status: TaskStatus::new(TaskState::Failed, Timestamp(1)), tasks: vec![task] });
        world.apply(Op::DeleteTasks { tasks: vec![task] });
    };
    let (one, two) = (world.task(service, 1, NODE), world.task(service, 2, NODE));
    assert_eq!(specs_of(&mut world), 1);
    end(&mut world, one);
    // The last one goes while a new one comes.
    assert_eq!(specs_of(&mut world), 0);
    let three = world.task(service, 3, NODE);
    end(&mut world, two);
    assert_eq!(specs_of(&mut world), 0);
    end(&mut world, three);
    assert_eq!(specs_of(&mut world), 0);
    world.task(service, 4, NODE);
    assert_eq!(specs_of(&mut world), 1);
}

#[test]
fn an_object_comes_before_its_first_task_and_goes_when_the_last_one_has_ended() {
    let mut world = World::new(2);
    let (one, two) = (secret(&mut world, 1), secret(&mut world, 2));
    let (web, db) = (user_of(&mut world, "web", &[one, two]), user_of(&mut world, "db", &[two]));
    let mut session = new_session();
    assert_eq!(session.open(&world.state, None, &mut |_| true).count(), 1);
    let changes = |session: &mut Session, world: &mut World| {
        let found = all(update(session, world).into_iter().flatten());
        found.iter().flat_map(objects).collect::<Vec<_>>()
    };
    // A task of another node is none of its business.
    world.task(web, 1, NodeId(2));
    assert_eq!(changes(&mut session, &mut world), []);
    let web_task = world.task(web, 2, NODE);
    let message = all(update(&mut session, &mut world).unwrap()).remove(0);
    assert_eq!((objects(&message), tasks(&message)), (vec![(true, one), (true, two)], vec![web_task]));
    let needs = message.changes.iter().find_map(|change| match change {
        ItemChange::Put(Item::Task(task)) => Some(task.needs.to_vec()),
        _ => None,
    });
    assert_eq!(needs, Some(vec![one, two]));
    let db_task = world.task(db, 3, NODE);
    assert_eq!(changes(&mut session, &mut world), []);
    let end = |world: &mut World, task| {
        let status = TaskStatus::new(TaskState::Failed, Timestamp(1));
        world.apply(Op::ReportTasks { node: NODE, reports: vec![(task, status)] });
    };
    // The report that a task has ended is news for nobody but its objects.
    end(&mut world, web_task);
    assert_eq!(changes(&mut session, &mut world), [(false, one)]);
    end(&mut world, db_task);
    assert_eq!(changes(&mut session, &mut world), [(false, two)]);
    assert!(session.follow(&world.state, &Changes::Everything, &mut |_| true).is_none());
}

#[test]
fn an_agent_without_an_object_that_it_should_have_gets_the_full_set() {
    let mut world = World::new(1);
    let one = secret(&mut world, 1);
    let web = user_of(&mut world, "web", &[one]);
    let task = world.task(web, 1, NODE);
    let mut model = Model::default();
    model.apply(new_session().open(&world.state, None, &mut |_| true));
    let answer = |world: &World, model: &Model| {
        all(new_session().open(&world.state, Some(model.resume()), &mut |_| true)).remove(0)
    };
    assert_eq!(answer(&world, &model).changes, []);
    let poorer = Model { objects: BTreeSet::new(), ..model.clone() };
    let message = answer(&world, &poorer);
    assert_eq!((message.full, objects(&message)), (true, vec![(true, one)]));
    // The node was silent while its task was given up: it is to have the secret no more.
    world.apply(Op::EndTasks { status: TaskStatus::new(TaskState::Orphaned, Timestamp(1)), tasks: vec![task] });
    model.apply(new_session().open(&world.state, Some(model.resume()), &mut |_| true));
    model.check(&world.state);
    assert!(model.objects.is_empty());
}

#[test]
fn an_agent_of_the_first_version_is_told_specs_and_tasks() {
    let mut world = World::new(1);
    let one = secret(&mut world, 1);
    let web = user_of(&mut world, "web", &[one]);
    let task = world.task(web, 1, NODE);
    let changeset = all(new_session().open(&world.state, None, &mut |_| true)).remove(0);
    let old = Assignments::of(changeset).unwrap();
    assert_eq!((old.full, old.complete, old.revision), (true, true, world.state.revision()));
    assert_eq!((old.specs.len(), old.tasks[0].id), (1, task));
    // Such an agent knows nothing of what tasks need.
    let now = old.changes().unwrap().changes;
    let [ItemChange::Put(Item::Spec(_)), ItemChange::Put(Item::Task(found))] = &now[..] else { panic!("{now:?}") };
    assert_eq!((found.id, found.needs.len()), (task, 0));
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
        let (one, two) = (secret(&mut world, 1), secret(&mut world, 2));
        let services = [("a", vec![]), ("b", vec![one]), ("c", vec![two, one])];
        let services = services.map(|(name, secrets)| user_of(&mut world, name, &secrets));
        let mut session = new_session();
        let mut model = Model::default();
        model.apply(session.open(&world.state, None, &mut |_| true));
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
                        world.apply(Op::PlaceTask { task: task.id, place, addrs: Default::default() });
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
                    model.check(&world.state);
                    prop_assert!(session.follow(&world.state, &Changes::Everything, &mut |_| true).is_none());
                }
                Step::FallBehind => {
                    world.changes(NODE);
                    if let Some(messages) = session.follow(&world.state, &Changes::Everything, &mut |_| true) {
                        model.apply(messages);
                    }
                    model.check(&world.state);
                }
                Step::Reconnect { lost_after } => {
                    // The last message may have got through in part.
                    if let Some(messages) = update(&mut session, &mut world) {
                        model.apply_some(messages.take(1).map(|message| {
                            let mut message = message.unwrap();
                            message.complete = false;
                            message.changes.truncate(lost_after);
                            message
                        }));
                    }
                    session = new_session();
                    model.named = None;
                    model.apply(session.open(&world.state, Some(model.resume()), &mut |_| true));
                    model.check(&world.state);
                }
                Step::Fresh => {
                    model = Model::default();
                    session = new_session();
                    model.apply(session.open(&world.state, None, &mut |_| true));
                    model.check(&world.state);
                }
            }
            prop_assert!(world.state.revision() > 0);
        }
    }
}
