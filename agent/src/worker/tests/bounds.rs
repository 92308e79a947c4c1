//! The tables of a worker do not grow with the tasks that it ever ran.

use swarm_model::{DesiredState as D, TaskId};
use swarm_wire::agent::{AssignedSpec, AssignedTask, Assignments, ItemChange, ItemKey, ToAgent};

use super::world::{World, secret};
use crate::{
    executor::ContainerEvent,
    testing::{assigned_spec, assigned_task},
    worker::Input,
};

/// Far more than what is kept at a time.
const TASKS: u64 = 4_000;
/// Tasks that run at a time.
const AT_A_TIME: u64 = 8;

/// A task of a spec version of its own, as updates make them.
fn task(n: u64) -> (AssignedSpec, AssignedTask) {
    let spec = AssignedSpec { version: n, ..assigned_spec("hello:1") };
    (spec, AssignedTask { spec_version: n, ..assigned_task(u128::from(n), D::Running) })
}

fn tell(world: &mut World, change: Assignments) {
    world.input(Input::Message(ToAgent::Assignments(Assignments { complete: true, ..change })));
    while !world.calls.is_empty() {
        world.answer(0);
    }
}

#[test]
fn nothing_is_kept_of_tasks_that_are_gone_also_within_one_session() {
    let mut world = World::new();
    world.settle();
    for n in 1..=TASKS {
        let (spec, task) = task(n);
        let id = task.id;
        tell(&mut world, Assignments { specs: vec![spec], tasks: vec![task], ..Default::default() });
        match n % 4 {
            0 => world.exit(id, true),
            1 => world.restart_by_hand(id, true, true),
            2 => world.wait(60_000),
            _ => world.input(Input::Container(ContainerEvent::Started(TaskId(u128::MAX)))),
        }
        if let Some(gone) = n.checked_sub(AT_A_TIME) {
            tell(&mut world, Assignments { removed: vec![TaskId(u128::from(gone))], ..Default::default() });
        }
        for (what, size) in world.worker.sizes() {
            assert!(size <= 2 * AT_A_TIME as usize, "{size} {what} after {n} tasks");
        }
    }
    assert!(world.open, "it is one session");
    let rest = (TASKS - AT_A_TIME + 1..=TASKS).map(|n| TaskId(u128::from(n))).collect();
    tell(&mut world, Assignments { removed: rest, ..Default::default() });
    world.tell(vec![ItemChange::Remove(ItemKey::Object(secret().key()))]);
    world.wait(120_000);
    for (what, size) in world.worker.sizes() {
        assert_eq!(size, 0, "{what}");
    }
    assert_eq!(world.on_disk(), (0, 0), "tasks and specs on disk");
}
