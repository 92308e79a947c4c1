//! Single behaviours of the worker.

use swarm_model::{DesiredState as D, TaskId, TaskState as S};
use swarm_wire::agent::{AssignedTask, Assignments, Changeset, Item, ItemChange, ItemKey, Shared, ToAgent, ToManager};

use super::world::{World, put_secret, put_task, secret};
use crate::{
    executor::{ContainerEvent, EngineError, EngineReport, Observed, Running},
    step::{LocalTask, RESTARTED},
    testing::{assigned_spec, assigned_task},
    worker::{Input, Operation, SessionState, Stored, Worker},
};

const TASK: TaskId = TaskId(1);

fn quiet() -> World {
    let mut world = World::new();
    world.settle();
    world.sent.clear();
    world
}

fn running(world: &mut World) {
    world.want(TASK, D::Running);
    world.settle();
    assert_eq!(world.state(TASK), Some(S::Running));
    world.sent.clear();
}

fn statuses(world: &World) -> Vec<Vec<S>> {
    let batches = world.sent.iter().filter_map(|m| match m {
        ToManager::Status { reports, .. } => Some(reports.iter().map(|r| r.status.state).collect()),
        _ => None,
    });
    batches.collect()
}

#[test]
fn a_start_is_two_calls_and_one_report() {
    let mut world = quiet();
    world.want(TASK, D::Running);
    let mut calls = Vec::new();
    while let Some((_, call)) = world.calls.first() {
        calls.push(std::mem::discriminant(call));
        world.answer(0);
    }
    assert_eq!(calls.len(), 2, "create and start, nothing else");
    assert_eq!(statuses(&world), [[S::Running]], "progress waits for what follows");
}

#[test]
fn statuses_are_kept_until_they_are_acknowledged() {
    let mut world = quiet();
    world.session_breaks();
    world.answers = false;
    world.want(TASK, D::Running);
    world.answers = true;
    world.wait(20_000);
    running(&mut world);
    world.session_breaks();
    world.exit(TASK, true);
    world.settle();
    assert_eq!(world.known[&TASK].state, S::Failed);
    assert_eq!(world.known[&TASK].err.as_deref(), Some("task: non-zero exit (3)"));
    assert_eq!(world.known[&TASK].container.as_ref().and_then(|c| c.exit_code), Some(3));
}

#[test]
fn a_session_that_resumes_repeats_nothing() {
    let mut world = quiet();
    running(&mut world);
    world.session_breaks();
    world.settle();
    assert!(world.open);
    let hello = world.sent.iter().find_map(|m| if let ToManager::Hello(h) = m { Some(h) } else { None });
    assert!(hello.expect("a new session").resume.is_some());
    assert_eq!(statuses(&world), Vec::<Vec<S>>::new());
}

#[test]
fn a_task_never_fails_because_the_engine_is_silent() {
    let mut world = quiet();
    running(&mut world);
    world.engine_up = false;
    world.input(Input::EngineDown("hung".into()));
    world.want(TaskId(2), D::Running);
    world.want(TASK, D::Shutdown);
    world.wait(600_000);
    assert!(world.calls.is_empty(), "a silent engine is left alone");
    assert_eq!((world.state(TASK), world.state(TaskId(2))), (Some(S::Running), Some(S::Preparing)));
    let told = world.sent.iter().rev().find_map(|m| if let ToManager::Describe(r) = m { Some(r) } else { None });
    assert!(!told.expect("the manager is told").engine_reachable);
    world.settle();
    assert_eq!((world.state(TASK), world.state(TaskId(2))), (Some(S::Shutdown), Some(S::Running)));
}

#[test]
fn fatal_errors_reject_before_the_start_and_fail_after() {
    for (answers, state) in [(0, S::Rejected), (1, S::Failed)] {
        let mut world = quiet();
        world.want(TASK, D::Running);
        for _ in 0..answers {
            world.answer(0);
        }
        world.calls.clear();
        world.input(Input::Done { task: TASK, result: Err(EngineError::Fatal("no".into())) });
        assert_eq!(world.state(TASK), Some(state));
        assert_eq!(world.known[&TASK].err.as_deref(), Some("no"));
    }
}

#[test]
fn a_program_that_does_not_exist_is_a_start_that_failed_with_its_exit_code() {
    let mut world = quiet();
    world.want(TASK, D::Running);
    world.answer(0);
    world.calls.clear();
    let result = Err(EngineError::NotStarted { reason: "no such file".into(), exit_code: 127 });
    world.input(Input::Done { task: TASK, result });
    let status = &world.known[&TASK];
    assert_eq!((status.state, status.message(), status.err.as_deref()), (S::Failed, "starting", Some("no such file")));
    assert_eq!(status.container.as_ref().and_then(|container| container.exit_code), Some(127));
}

#[test]
fn temporary_errors_are_said_and_tried_again_after_a_second() {
    let mut world = quiet();
    world.want(TASK, D::Running);
    world.calls.clear();
    world.input(Input::Done { task: TASK, result: Err(EngineError::Temporary("busy".into())) });
    world.wait(999);
    assert!(world.calls.is_empty());
    assert_eq!(world.known[&TASK].err.as_deref(), Some("busy"));
    world.wait(1);
    assert!(matches!(world.calls[0].1, Operation::Prepare(_)));
    world.settle();
    assert_eq!((world.known[&TASK].state, world.known[&TASK].err.as_deref()), (S::Running, None));
}

#[test]
fn desired_states_only_go_up() {
    let mut world = quiet();
    running(&mut world);
    world.want(TASK, D::Shutdown);
    let back = Assignments { complete: true, tasks: vec![assigned_task(1, D::Running)], ..Default::default() };
    world.input(Input::Message(ToAgent::Assignments(back)));
    world.settle();
    assert_eq!(world.state(TASK), Some(S::Shutdown));
}

#[test]
fn unanswered_heartbeats_end_the_session_but_a_pause_does_not() {
    let mut world = quiet();
    world.now_ms += 60_000;
    world.wait(10_000);
    assert!(!world.sent.iter().any(|m| matches!(m, ToManager::Hello(_))), "a stopped process resumes its session");
    world.open = false;
    // Two heartbeats are due within so long, and half a second later the session ends.
    world.wait(4_500);
    assert!(matches!(world.state, Some(SessionState::Connecting { .. })) || world.open);
    world.wait(1_000);
    assert!(world.sent.iter().any(|m| matches!(m, ToManager::Hello(_))), "it connects again");
}

#[test]
fn a_removed_node_keeps_its_containers_and_asks_rarely() {
    let mut world = quiet();
    running(&mut world);
    let refused = ToAgent::Refused { reason: "removed".into(), leader: None, removed: true };
    world.input(Input::Message(refused));
    assert_eq!(world.state, Some(SessionState::Removed { reason: "removed".into() }));
    world.wait(59_000);
    assert!(!world.sent.iter().any(|m| matches!(m, ToManager::Hello(_))));
    assert!(matches!(world.containers[&TASK], Observed::Running(_)));
    world.wait(2_000);
    assert!(world.sent.iter().any(|m| matches!(m, ToManager::Hello(_))));
}

#[test]
fn strays_go_only_once_the_assignment_is_known() {
    let mut world = World::new();
    let stray = Observed::Running(Running { id: "stray".into(), ..Running::default() });
    world.containers.insert(TaskId(99), stray);
    world.answers = false;
    world.session_breaks();
    world.restart();
    world.wait(200_000);
    assert_eq!(world.containers.len(), 1, "nobody has said what belongs here");
    world.answers = true;
    world.settle();
    assert!(world.containers.is_empty());
}

#[test]
fn a_lost_store_leads_to_adoption_not_to_a_second_copy() {
    let mut world = quiet();
    running(&mut world);
    world.lose_store();
    world.settle();
    assert_eq!(world.known[&TASK].state, S::Running);
    world.check_settled();
}

#[test]
fn a_task_without_its_spec_is_rejected() {
    let mut world = quiet();
    let mut task = assigned_task(1, D::Running);
    task.spec_version = 9;
    world.wanted.insert(TASK, task.clone());
    let message = Assignments { complete: true, tasks: vec![task], ..Default::default() };
    world.input(Input::Message(ToAgent::Assignments(message)));
    assert_eq!(world.known[&TASK].state, S::Rejected);
}

#[test]
fn preparing_waits_for_credentials_that_are_not_on_disk_and_is_cancelled_when_unwanted() {
    let mut world = quiet();
    let options = world.worker.options.clone();
    let task = LocalTask::new(assigned_task(1, D::Running), Default::default());
    let stored = Stored { tasks: vec![task], specs: vec![(assigned_spec("hello:1"), true)] };
    world.worker = Worker::new(options, stored);
    world.answers = false;
    world.input(Input::EngineUp(EngineReport::default()));
    world.wait(120_000);
    assert!(world.calls.is_empty(), "no pull without the credentials");
    world.wanted.insert(TASK, assigned_task(1, D::Running));
    world.answers = true;
    world.wait(20_000);
    assert!(matches!(world.calls[0].1, Operation::Prepare(_)));
}

#[test]
fn leaving_takes_everything_along() {
    let mut world = quiet();
    running(&mut world);
    world.input(Input::Leave);
    assert!(world.sent.contains(&ToManager::Leaving));
    assert!(!world.left);
    world.settle();
    assert!(world.left && world.containers.is_empty());
}

#[test]
fn nothing_brings_back_a_node_that_said_it_leaves() {
    for last_word in [None, Some(ToAgent::Refused { reason: "removed".into(), leader: None, removed: true })] {
        let mut world = quiet();
        running(&mut world);
        // The container cannot be removed for a while.
        world.engine_dies();
        world.input(Input::Leave);
        world.sent.clear();
        match last_word {
            Some(word) => world.input(Input::Message(word)),
            None => world.session_breaks(),
        }
        world.wait(10_000);
        world.engine_returns();
        world.wait(120_000);
        assert!(!world.open && world.sent.is_empty(), "{:?}", world.sent);
        world.settle();
        assert!(world.left && world.containers.is_empty() && world.sent.is_empty());
    }
}

#[test]
fn a_leader_that_is_news_is_tried_at_once_and_another_word_of_the_same_is_not() {
    let mut world = quiet();
    // Nobody answers until the delays are as long as they get.
    world.answers = false;
    world.session_breaks();
    world.wait(200_000);
    // What a manager says to the hello, in milliseconds until the next attempt.
    let mut delay_ms = |leader: &str| {
        while !world.worker.is_connecting() {
            world.wait(1);
        }
        world.input(Input::Connected);
        let leader = Some(leader.to_owned());
        world.input(Input::Message(ToAgent::Refused { reason: "no leader".into(), leader, removed: false }));
        world.worker.deadline_ms() - world.now_ms
    };
    for at in 0..20 {
        let delay = delay_ms(&format!("10.0.0.{at}:2377"));
        assert!(delay <= 200, "{delay} ms");
    }
    let longest = (0..20).map(|_| delay_ms("10.0.0.19:2377")).max();
    assert!((200..=900).contains(&longest.unwrap_or_default()), "{longest:?} ms");
}

#[test]
fn a_restart_by_hand_is_a_failure_whenever_the_agent_looks() {
    for desired in [D::Running, D::Complete] {
        for looks in [true, false] {
            let mut world = quiet();
            world.want(TASK, desired);
            world.settle();
            world.restart_by_hand(TASK, true, looks);
            world.settle();
            let is_job = desired == D::Complete;
            let end = if is_job && looks { (S::Complete, None) } else { (S::Failed, Some(RESTARTED)) };
            let status = &world.known[&TASK];
            assert_eq!((status.state, status.err.as_deref()), end, "{desired}, looks {looks}");
            assert_eq!(world.stops, 1, "its new run is stopped, once");
            world.check_settled();
        }
    }
}

#[test]
fn a_restart_by_hand_that_nobody_told_of_is_found_out() {
    type Happens = fn(&mut World);
    let lost: [(&str, Happens); 3] = [
        ("events are lost", |world| world.input(Input::EventsLost)),
        ("the agent was killed meanwhile", World::restart),
        ("the engine was away", |world| {
            world.input(Input::EngineDown("away".into()));
            world.input(Input::EngineUp(EngineReport::default()));
        }),
    ];
    for (what, happens) in lost {
        let mut world = quiet();
        running(&mut world);
        world.restart_by_hand(TASK, false, false);
        happens(&mut world);
        world.settle();
        assert_eq!(world.known[&TASK].err.as_deref(), Some(RESTARTED), "{what}");
        assert_eq!(world.stops, 1, "{what}");
        world.check_settled();
    }
}

#[test]
fn a_container_that_is_started_after_its_task_ended_is_stopped_at_once() {
    for (desired, end) in [(D::Running, S::Failed), (D::Shutdown, S::Shutdown)] {
        let mut world = quiet();
        running(&mut world);
        match end {
            S::Failed => world.exit(TASK, true),
            _ => world.want(TASK, desired),
        }
        world.settle();
        world.stops = 0;
        for n in 1..=3 {
            world.start_by_hand(TASK, true);
            while !world.calls.is_empty() {
                world.answer(0);
            }
            assert_eq!(world.stops, n, "without waiting for a listing");
            assert_eq!(world.state(TASK), Some(end));
        }
        // Also one that nobody told of, by the next listing.
        world.start_by_hand(TASK, false);
        world.settle();
        assert_eq!(world.stops, 4);
        world.check_settled();
    }
}

#[test]
fn a_container_of_a_forgotten_task_goes_when_it_is_started() {
    let mut world = quiet();
    running(&mut world);
    let stray = Observed::Running(Running { id: "stray".into(), ..Running::default() });
    world.containers.insert(TaskId(99), stray);
    world.input(Input::Container(ContainerEvent::Started(TaskId(99))));
    assert!(!world.containers.contains_key(&TaskId(99)));
    world.check_settled();
}

#[test]
fn our_own_starts_cost_no_look() {
    let mut world = quiet();
    world.want(TASK, D::Running);
    world.answer(0);
    assert!(matches!(world.calls[0].1, Operation::Start(..)));
    world.input(Input::Container(ContainerEvent::Started(TASK)));
    world.answer(0);
    assert!(world.calls.is_empty());
    assert_eq!(world.state(TASK), Some(S::Running));
}

#[test]
fn a_task_waits_for_the_objects_that_it_needs_and_says_which_one_is_missing() {
    let mut world = quiet();
    world.tell(vec![ItemChange::Remove(ItemKey::Object(secret().key()))]);
    let mut spec = assigned_spec("hello:1");
    let list = serde_json::json!([{"SecretID": secret().id.to_string(), "SecretName": "key"}]);
    spec.task.container_spec.extra.insert("Secrets".into(), list);
    world.tell(vec![ItemChange::Put(Item::Spec(Shared::new(&spec).unwrap()))]);
    let task = AssignedTask { needs: [secret().key()].into(), ..assigned_task(2, D::Running) };
    world.wanted.insert(task.id, task.clone());
    world.tell(vec![put_task(task)]);
    world.wait(5_000);
    assert!(world.calls.is_empty(), "nothing is pulled or made");
    let status = &world.known[&TaskId(2)];
    let expected = "waits for secret key, which no manager has told this node of yet";
    assert_eq!((status.state, status.err.as_deref()), (S::Preparing, Some(expected)));

    world.tell(vec![put_secret()]);
    world.settle();
    let status = &world.known[&TaskId(2)];
    assert_eq!((status.state, status.err.as_deref()), (S::Running, None));
    assert!(world.files.contains(&TaskId(2)));

    // The files stay until the task has ended, whatever the node is told of the secret.
    world.tell(vec![ItemChange::Remove(ItemKey::Object(secret().key()))]);
    world.settle();
    assert!(world.files.contains(&TaskId(2)));
    world.want(TaskId(2), D::Shutdown);
    world.settle();
    assert!(world.files.is_empty());
}

#[test]
fn a_container_that_is_there_without_its_files_is_not_started_before_they_are() {
    let mut world = quiet();
    world.want(TaskId(2), D::Ready);
    world.settle();
    assert_eq!(world.state(TaskId(2)), Some(S::Ready));
    // The machine is switched off and on: the files were in memory. No manager is in reach.
    world.answers = false;
    world.restart();
    world.files.clear();
    let mut task = world.wanted[&TaskId(2)].clone();
    task.desired = D::Running;
    world.wanted.insert(task.id, task);
    world.wait(200_000);
    assert!(world.files.is_empty() && matches!(world.containers[&TaskId(2)], Observed::Created { .. }));
    world.answers = true;
    world.settle();
    assert_eq!(world.state(TaskId(2)), Some(S::Running));
    assert!(world.files.contains(&TaskId(2)));
}

#[test]
fn an_assignment_that_cannot_be_read_ends_the_session_and_the_next_one_tells_all() {
    let mut world = quiet();
    let bytes = rmp_serde::to_vec_named(&ToAgent::Changes(Changeset {
        complete: true,
        revision: 99,
        changes: vec![put_secret()],
        ..Default::default()
    }));
    let mut bytes = bytes.unwrap();
    // The name of a field of the object.
    let at = bytes.windows(7).position(|window| window == b"content").unwrap();
    bytes[at] = b'x';
    let damaged: ToAgent = rmp_serde::from_slice(&bytes).unwrap();
    world.input(Input::Message(damaged));
    assert!(!world.open, "it hangs up");
    running(&mut world);
}
