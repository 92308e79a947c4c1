//! Safety of plans under random histories: users, agents and nodes do as they please; time jumps; plans are lost,
//! late or applied twice.

mod world;

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use swarm_core::{Dirty, NewTask, Object, Op, Place, State, Tx, why_service, why_task};
use swarm_model::{Cause, DesiredState, ServiceId, Task, TaskId, TaskState, UpdateState};
use world::{Step, World, spec, step};

/// What tells most of a task.
fn brief(task: &Arc<Task>) -> String {
    let Task { slot, spec_version, cause, desired, status, created_at, reached_at, .. } = &**task;
    let (state, at) = (status.state, task.status_applied_at);
    format!("{slot} v{spec_version} {cause:?} {desired:?} {state} made {created_at:?} reached {reached_at:?} at {at:?}")
}

/// Runs, has done its job, or waits for room.
fn is_on_its_way(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Running | TaskState::Pending) || task.is_done()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn plans_are_safe_and_services_converge(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(4);
        let mut late = None;
        for (number, step) in steps.iter().enumerate() {
            if matches!(step, Step::DecideLate) {
                // As a deposed leader does it: the new one decides on the same.
                let dirty = world.dirty.clone();
                late = Some(world.decide());
                world.dirty = dirty;
                continue;
            }
            world.run(step);
            if let Some(plan) = late.take_if(|_| number % 3 == 0) {
                world.apply_plan(plan);
            }
        }
        // What was decided but never applied would be found by a new leader.
        world.dirty = Dirty::everything();
        world.recover();

        let plan = world.decide();
        prop_assert_eq!(plan.txs, [], "a settled cluster proposes nothing");
        for service in world.state.services() {
            let wanted = service.spec.replicas().unwrap_or(world.state.nodes().count() as u64);
            let state = service.update.as_ref().map(|update| update.state);
            let attempts = service.spec.task_template.restart().max_attempts;
            let live: Vec<_> = world.state.tasks_of_service(service.id).filter(|t| t.desired.is_live()).collect();
            let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
            let active = state.is_some_and(UpdateState::is_active);
            prop_assert!(paused || active || live.len() as u64 <= wanted, "{:?} {:#?}", service, live);
            if attempts == 0 && !paused {
                let stuck = live.iter().any(|task| task.status.state == TaskState::Pending);
                prop_assert!(!active || stuck, "an update goes on until it is done: {:?}", service.update);
                prop_assert!(
                    active
                        || live.iter().all(|task| {
                            let spec = &world.state.spec(task.service, task.spec_version).expect("kept").spec;
                            spec.task_template == service.spec.task_template
                        }),
                    "an update that ended leaves no old task: {:?} {:#?}",
                    service.update,
                    world.state.tasks_of_service(service.id).map(brief).collect::<Vec<_>>()
                );
                // A job whose tasks find no room starts no more of them.
                let held_up = stuck && service.job.is_some();
                // A slot of a job is done also by a task that completed after it was told to stop, beside the one that
                // took its place perhaps.
                let is_late = |t: &&Arc<Task>| {
                    let is_present = t.iteration.is_some() && t.iteration == service.iteration();
                    is_present && t.status.state == TaskState::Complete && t.desired == DesiredState::Shutdown
                };
                let late = world.state.tasks_of_service(service.id).filter(is_late);
                let places = late.chain(live.iter().copied()).map(|t| (t.slot, t.node.filter(|_| t.slot == 0)));
                prop_assert!(
                    active || held_up || places.collect::<BTreeSet<_>>().len() as u64 == wanted,
                    "service {} has its {wanted} tasks: {:#?}",
                    service.spec.name,
                    world.state.tasks_of_service(service.id).map(brief).collect::<Vec<_>>()
                );
                prop_assert!(live.iter().all(|t| is_on_its_way(t)));
            }
        }
        for task in world.state.tasks() {
            prop_assert!(world.state.service(task.service).is_some(), "a task that nobody owns is left");
            let why = why_task(&world.state, task.id, world.now).expect("it is there");
            // Without nodes there is none that could say no.
            let waits = task.status.state == TaskState::Pending && world.state.nodes().next().is_some();
            prop_assert_eq!(why.rejections.is_empty(), !waits, "{:?}", why);
            prop_assert!(why_service(&world.state, task.service, world.now).is_some());
        }

        let copy = State::import(world.state.export().collect::<Vec<Object>>());
        prop_assert!(copy.export().eq(world.state.export()), "a snapshot gives back the state");
        for node in world.state.nodes() {
            prop_assert_eq!(copy.load(node.id), world.state.load(node.id), "indexes follow from the objects");
        }
    }
}

/// A decision that was made before another one took the port, the room or the slot falls as a whole.
#[test]
fn late_placements_fall() {
    let mut world = World::new(1);
    let node = world.state.nodes().next().expect("one node").id;
    let create = |number, cpu, port| Op::CreateService {
        service: ServiceId(number),
        spec: spec(number, 1, cpu, port, 0),
        registry_auth: None,
    };
    world.commit(vec![
        Tx::new(vec![create(1, 3, true)]),
        Tx::new(vec![create(2, 3, false)]),
        Tx::new(vec![create(3, 0, true)]),
    ]);
    let place = |state: &State, service, id| {
        let service = state.service(ServiceId(service)).expect("just made");
        Tx::new(vec![Op::CreateTasks {
            service: service.id,
            spec_version: service.spec_version,
            desired: DesiredState::Running,
            cause: Cause::Fill,
            beside: None,
            start_at: None,
            restarts: 0,
            tasks: vec![NewTask { id: TaskId(id), slot: 1, place: Place::On(node), addrs: Default::default() }],
        }])
    };
    let txs = vec![
        place(&world.state, 1, 1),
        place(&world.state, 2, 2), // 3 of 4 CPUs are taken
        place(&world.state, 3, 3), // port 80 is taken
        place(&world.state, 1, 4), // the slot is taken
    ];
    let outcomes: Vec<String> =
        world.commit(txs).into_iter().map(|o| o.map_or_else(|refusal| refusal.to_string(), |()| "ok".into())).collect();
    assert_eq!(outcomes[0], "ok");
    assert!(outcomes[1].contains("too few resources"), "{outcomes:?}");
    assert!(outcomes[2].contains("port is taken"), "{outcomes:?}");
    assert!(outcomes[3].contains("has task"), "{outcomes:?}");
    assert_eq!(world.state.tasks().count(), 1, "what falls leaves no trace");
}
