//! Named objects: made, changed, used, removed, and taken through a snapshot.

use std::sync::Arc;

use serde_json::json;
use swarm_core::{ENTRY_VERSION, Entry, Event, FEATURE_LEVEL_MIN, Guard, Op, Outcome, Refusal, State, Tx, apply};
use swarm_model::{
    Labels, ObjectContent, ObjectId, ObjectKey, ObjectKind, SecretContent, ServiceId, ServiceSpec, Timestamp,
};

const KEY: ObjectKey = ObjectKey { kind: ObjectKind::Secret, id: ObjectId(7) };

#[derive(Default)]
struct World {
    state: State,
    events: Vec<Event>,
}

impl World {
    fn tx(&mut self, tx: Tx) -> Outcome {
        let index = self.state.revision() + 1;
        let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(index as i64), txs: vec![tx] };
        let (mut outcomes, events) = apply(&mut self.state, index, &entry);
        self.events = events;
        outcomes.pop().expect("one transaction")
    }

    fn op(&mut self, op: Op) -> Outcome {
        self.tx(Tx::new(vec![op]))
    }
}

fn secret(id: u128, name: &str) -> Op {
    let content = SecretContent { data: b"s3cret".to_vec().into(), templating: None };
    Op::CreateObject {
        id: ObjectId(id),
        name: name.into(),
        labels: Labels::new(),
        content: Arc::new(ObjectContent::Secret(content)),
    }
}

fn with_key() -> World {
    let mut world = World::default();
    assert_eq!(world.op(secret(7, "key")), Ok(()));
    world
}

/// A spec that names secrets.
fn spec(name: &str, secrets: &[u128]) -> Arc<ServiceSpec> {
    let reference = |id: &u128| json!({"SecretID": ObjectId(*id).to_string(), "SecretName": format!("name-{id}")});
    let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
    let references = secrets.iter().map(reference).collect::<Vec<_>>();
    spec.task_template.container_spec.extra.insert("Secrets".into(), references.into());
    Arc::new(spec)
}

fn create(service: u128, spec: Arc<ServiceSpec>) -> Op {
    Op::CreateService { service: ServiceId(service), spec, registry_auth: None }
}

fn update(world: &World, service: u128, spec: Arc<ServiceSpec>) -> Op {
    let old = world.state.service(ServiceId(service)).expect("it was made");
    Op::update_service(&world.state, old, spec, None)
}

fn users(world: &World) -> Vec<u128> {
    world.state.users_of(KEY).map(|service| service.id.0).collect()
}

fn invalid(outcome: Outcome) -> String {
    let Err(Refusal::Invalid(text)) = outcome else { panic!("{outcome:?}") };
    text
}

#[test]
fn a_name_is_there_once_in_a_kind_without_regard_to_case() {
    let mut world = with_key();
    assert_eq!(world.events, [Event::Object(KEY)]);
    let exists = |name: &str| Err(Refusal::Exists { kind: "secret".into(), name: name.into() });
    assert_eq!(world.op(secret(8, "KEY")), exists("KEY"));
    assert_eq!(world.op(secret(7, "other")), exists(&ObjectId(7).to_string()));
    assert_eq!(world.state.object_by_name(ObjectKind::Secret, "Key").expect("found").id, ObjectId(7));
    assert_eq!(world.op(Op::RemoveObject { object: KEY }), Ok(()));
    assert_eq!(world.events, [Event::Object(KEY)]);
    assert!(world.state.object(KEY).is_none() && world.state.objects(ObjectKind::Secret).next().is_none());
    assert!(matches!(world.op(Op::RemoveObject { object: KEY }), Err(Refusal::NotFound { .. })));
    assert_eq!(world.op(secret(9, "KEY")), Ok(()));
}

#[test]
fn labels_change_and_the_rest_stays() {
    let mut world = with_key();
    let before = world.state.object(KEY).expect("it is there").clone();
    let labels = Labels::from([("a".into(), "b".into())]);
    let label = Tx::new(vec![Op::LabelObject { object: KEY, labels: labels.clone() }]);
    let guard = |version| Guard::Object { object: KEY, version };
    assert_eq!(world.tx(label.clone().guard(guard(before.version))), Ok(()));
    let after = world.state.object(KEY).expect("it is there").clone();
    assert_eq!((&after.labels, after.version), (&labels, world.state.revision()));
    assert!(after.updated_at > before.updated_at && after.created_at == before.created_at);
    assert_eq!((&after.name, &after.content), (&before.name, &before.content));
    assert_eq!(world.tx(label.guard(guard(before.version))), Err(Refusal::OutOfSequence));
}

#[test]
fn what_a_spec_names_stays_until_the_last_spec_does_not() {
    let mut world = with_key();
    assert_eq!(world.op(create(1, spec("web", &[7]))), Ok(()));
    assert_eq!(world.op(create(2, spec("api", &[7, 7]))), Ok(()));
    assert_eq!(users(&world), [1, 2]);
    let refused = world.op(Op::RemoveObject { object: KEY });
    assert_eq!(invalid(refused), "secret 'key' is in use by the following services: api, web");
    assert!(world.events.is_empty());

    let op = update(&world, 1, spec("web", &[]));
    assert_eq!(world.op(op), Ok(()));
    let refused = world.op(Op::RemoveObject { object: KEY });
    assert_eq!(invalid(refused), "secret 'key' is in use by the following service: api");
    // The way back names it again.
    let roll_back = Op::RollBack { service: ServiceId(1), keep_previous: true, message: "by hand".into(), to: None };
    assert_eq!(world.op(roll_back.clone()), Ok(()));
    assert_eq!(users(&world), [1, 2]);
    assert_eq!(world.op(roll_back.clone()), Ok(()));
    assert_eq!(world.op(Op::RemoveService { service: ServiceId(2) }), Ok(()));
    assert_eq!(users(&world), [0; 0]);
    assert_eq!(world.op(Op::RemoveObject { object: KEY }), Ok(()));
    // Tasks will say what is missing.
    assert_eq!(world.op(roll_back), Ok(()));
    let op = update(&world, 1, spec("web", &[7]));
    assert_eq!(world.op(op), Ok(()), "it was named before");
}

#[test]
fn a_spec_names_only_what_is_there() {
    let mut world = with_key();
    assert_eq!(invalid(world.op(create(1, spec("web", &[7, 8])))), "secret not found: name-8");
    assert_eq!(world.op(create(1, spec("web", &[7]))), Ok(()));
    let op = update(&world, 1, spec("web", &[7, 9]));
    assert_eq!(invalid(world.op(op)), "secret not found: name-9");
    assert_eq!(users(&world), [1]);
}

#[test]
fn a_snapshot_holds_the_objects_and_the_indexes_follow() {
    let mut world = with_key();
    world.op(create(1, spec("web", &[7]))).expect("possible");
    let bytes: Vec<Vec<u8>> =
        world.state.export().map(|object| rmp_serde::to_vec_named(&object).expect("writable")).collect();
    let objects = bytes.iter().map(|bytes| rmp_serde::from_slice(bytes).expect("readable"));
    let mut copy = World { state: State::import(objects), events: Vec::new() };
    assert!(copy.state.export().eq(world.state.export()));
    assert_eq!(copy.op(secret(8, "Key")), world.op(secret(8, "Key")));
    assert_eq!(users(&copy), [1]);
    assert_eq!(copy.state.object(KEY), world.state.object(KEY));
}

/// An update that names no object needs the first feature level only. One that names an object needs the second.
#[test]
fn an_operation_names_its_level_from_its_content() {
    let world = {
        let mut world = World::default();
        world.op(create(1, spec("web", &[]))).expect("possible");
        world
    };
    let mut null = ServiceSpec::clone(&spec("web", &[]));
    null.task_template.container_spec.extra.insert("Secrets".into(), json!(null));
    for (op, level) in [
        (create(2, spec("api", &[])), FEATURE_LEVEL_MIN),
        (create(2, Arc::new(null.clone())), FEATURE_LEVEL_MIN),
        (create(2, spec("api", &[7])), 2),
        (update(&world, 1, spec("web", &[])), FEATURE_LEVEL_MIN),
        (update(&world, 1, Arc::new(null)), FEATURE_LEVEL_MIN),
        (update(&world, 1, spec("web", &[7])), 2),
        (secret(7, "key"), 2),
        (Op::LabelObject { object: KEY, labels: Labels::new() }, 2),
        (Op::RemoveObject { object: KEY }, 2),
        (Op::RemoveService { service: ServiceId(1) }, FEATURE_LEVEL_MIN),
    ] {
        assert_eq!(op.feature_level(), level, "{op:?}");
    }
}
