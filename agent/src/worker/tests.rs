mod attachments;
mod bounds;
mod data;
mod networks;
mod table;
mod world;

use proptest::prelude::*;
use swarm_model::{DesiredState as D, TaskId};
use world::World;

use crate::worker::Input;

/// Something that happens to a node.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Want(u8, D),
    Drop(u8),
    /// One of the calls under way is carried out and answered.
    Answer(usize),
    /// One of the calls under way is carried out or not, and nobody hears of it.
    Lose(usize, bool),
    EngineDies,
    EngineReturns,
    Exit(u8, bool),
    Sicken(u8),
    /// Somebody restarts or starts a container; the engine tells of it or not, the agent looks in between or not.
    RestartByHand(u8, bool, bool),
    StartByHand(u8, bool),
    EventsLost,
    SessionBreaks,
    Restart,
    Wait(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let task = 0u8..4;
    let desired = prop_oneof![Just(D::Ready), Just(D::Running), Just(D::Complete), Just(D::Shutdown), Just(D::Remove)];
    prop_oneof![
        4 => (task.clone(), desired).prop_map(|(t, d)| H::Want(t, d)),
        1 => task.clone().prop_map(H::Drop),
        8 => any::<usize>().prop_map(H::Answer),
        2 => any::<(usize, bool)>().prop_map(|(n, done)| H::Lose(n, done)),
        1 => Just(H::EngineDies),
        2 => Just(H::EngineReturns),
        2 => (task.clone(), any::<bool>()).prop_map(|(t, seen)| H::Exit(t, seen)),
        1 => task.clone().prop_map(H::Sicken),
        2 => (task.clone(), any::<bool>(), any::<bool>()).prop_map(|(t, s, l)| H::RestartByHand(t, s, l)),
        1 => (task, any::<bool>()).prop_map(|(t, seen)| H::StartByHand(t, seen)),
        1 => Just(H::EventsLost),
        1 => Just(H::SessionBreaks),
        1 => Just(H::Restart),
        3 => any::<u16>().prop_map(H::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in between: no container is made twice, states only go up (both checked by the world at each
    /// step), and once things are quiet what runs is what is wanted and the manager knows it.
    #[test]
    fn all_is_well_in_the_end(happenings in prop::collection::vec(happening(), 0..80)) {
        let mut world = World::new();
        world.settle();
        for happening in happenings {
            match happening {
                Happening::Want(task, desired) => world.want(TaskId(task.into()), desired),
                Happening::Drop(task) => world.unassign(TaskId(task.into())),
                Happening::Answer(n) => world.answer(n),
                Happening::Lose(n, carried_out) => world.lose(n, carried_out),
                Happening::EngineDies => world.engine_dies(),
                Happening::EngineReturns => world.engine_returns(),
                Happening::Exit(task, seen) => world.exit(TaskId(task.into()), seen),
                Happening::Sicken(task) => world.sicken(TaskId(task.into())),
                Happening::RestartByHand(task, seen, looks) => world.restart_by_hand(TaskId(task.into()), seen, looks),
                Happening::StartByHand(task, seen) => world.start_by_hand(TaskId(task.into()), seen),
                Happening::EventsLost => world.input(Input::EventsLost),
                Happening::SessionBreaks => world.session_breaks(),
                Happening::Restart => world.restart(),
                Happening::Wait(ms) => world.wait(ms.into()),
            }
        }
        world.settle();
        world.check_settled();
    }
}
