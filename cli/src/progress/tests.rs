//! The wait against a scripted cluster, in tokio's paused time.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};
use swarm_docker_api::view::{ServiceView, TaskView};

use super::*;
use crate::{client::ClientError, out::capture};

/// Gives what the script says; the last line of it again and again.
struct Script {
    lines: VecDeque<Result<Snapshot, u16>>,
    polls: usize,
}

impl Script {
    fn new(lines: impl IntoIterator<Item = Snapshot>) -> Self {
        Self { lines: lines.into_iter().map(Ok).collect(), polls: 0 }
    }
}

impl Source for Script {
    async fn poll(&mut self) -> Result<Snapshot, ClientError> {
        self.polls += 1;
        let line = if self.lines.len() > 1 { self.lines.pop_front() } else { self.lines.front().cloned() };
        line.expect("a script has a line")
            .map_err(|status| ClientError::Refused { status, message: "no leader".to_owned() })
    }
}

fn service(spec: Value) -> ServiceView {
    serde_json::from_value(json!({"ID": "s1", "Spec": spec})).unwrap()
}

fn replicated(replicas: u64) -> ServiceView {
    service(json!({"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}}))
}

/// A task in the notation `id slot state [desired]`; a later id was made later.
fn task(id: u64, slot: u64, state: &str, desired: &str, err: &str) -> TaskView {
    serde_json::from_value(json!({
        "ID": format!("t{id}"), "CreatedAt": format!("2026-11-22T11:00:{id:02}Z"), "ServiceID": "s1", "Slot": slot,
        "NodeID": "n1", "Status": {"State": state, "Err": err}, "DesiredState": desired,
    }))
    .unwrap()
}

fn up(id: u64, slot: u64, state: &str) -> TaskView {
    task(id, slot, state, "running", "")
}

fn rejected(id: u64, slot: u64) -> TaskView {
    task(id, slot, "rejected", "shutdown", "No such image: nowhere:1")
}

fn snapshot(service: &ServiceView, tasks: &[TaskView]) -> Snapshot {
    Snapshot { service: service.clone(), tasks: tasks.to_vec(), live_nodes: BTreeSet::from(["n1".to_owned()]) }
}

async fn wait_with(script: &mut Script, terminal: bool, timeout_s: Option<i64>) -> (anyhow::Result<Outcome>, String) {
    let (mut out, captured) = capture::out(terminal);
    let wait = Wait::new(Display::new(&mut out, false), Before::default());
    let deadline = timeout_s.map(|s| Deadline::after_ns(s * 1_000_000_000));
    let result = wait.run(script, deadline, std::future::pending()).await;
    (result, captured.text())
}

async fn wait(script: &mut Script) -> (anyhow::Result<Outcome>, String) {
    wait_with(script, false, None).await
}

#[tokio::test(start_paused = true)]
async fn lines_change_until_all_run_and_stay_up() {
    let web = replicated(2);
    let mut script = Script::new([
        snapshot(&web, &[]),
        snapshot(&web, &[up(1, 1, "preparing"), up(2, 2, "pending")]),
        snapshot(&web, &[up(1, 1, "running"), up(2, 2, "preparing")]),
        snapshot(&web, &[up(1, 1, "running"), up(2, 2, "running")]),
    ]);
    let begun = Instant::now();
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::Converged);
    assert_eq!(
        text,
        "\
overall progress: 0 out of 2 tasks
1/2: preparing
2/2: pending
1/2: running
2/2: preparing
overall progress: 1 out of 2 tasks
2/2: running
overall progress: 2 out of 2 tasks
verify: Waiting 5 seconds to verify that tasks are stable...
verify: Service s1 converged
"
    );
    assert_eq!(begun.elapsed(), POLL * 3 + MONITOR_DEFAULT);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_finds_no_node_says_why_after_a_while() {
    let web = replicated(1);
    let waits = snapshot(&web, &[task(1, 1, "pending", "running", "no suitable node (x)")]);
    let brief: Vec<Snapshot> = vec![waits.clone(); 5];
    let runs = snapshot(&web, &[up(1, 1, "running")]);
    let (_, text) = wait(&mut Script::new(brief.into_iter().chain([runs.clone()]))).await;
    assert!(!text.contains("service why"), "{text}");
    let long: Vec<Snapshot> = vec![waits; 20];
    let (_, text) = wait(&mut Script::new(long.into_iter().chain([runs]))).await;
    assert_eq!(text.matches("waiting: no suitable node (x). See: swarmctl service why web\n").count(), 1, "{text}");
    assert!(text.contains("waiting: none, all tasks have a node\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_monitor_period_of_the_service_counts() {
    let web = service(json!({"Name": "web", "UpdateConfig": {"Monitor": 400_000_000}}));
    let mut script = Script::new([snapshot(&web, &[up(1, 1, "running")])]);
    let begun = Instant::now();
    wait(&mut script).await.0.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_falls_over_starts_the_verification_anew() {
    let web = replicated(1);
    let running = || snapshot(&web, &[up(2, 1, "running")]);
    let failed = [task(2, 1, "failed", "shutdown", "exit 1"), up(3, 1, "ready")];
    let mut script = Script::new([running(), running(), snapshot(&web, &failed), running()]);
    let begun = Instant::now();
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::Converged);
    assert!(text.contains("verify: Detected task failure\n"), "{text}");
    assert_eq!(begun.elapsed(), POLL * 3 + MONITOR_DEFAULT);
}

#[tokio::test(start_paused = true)]
async fn three_failures_in_a_row_end_the_wait() {
    let web = replicated(2);
    let other = up(9, 2, "running");
    let mut script = Script::new([
        snapshot(&web, &[up(1, 1, "preparing"), other.clone()]),
        snapshot(&web, &[rejected(1, 1), up(2, 1, "ready"), other.clone()]),
        // The cluster keeps little history: the first failure is forgotten already.
        snapshot(&web, &[rejected(2, 1), up(3, 1, "ready"), other.clone()]),
        snapshot(&web, &[rejected(3, 1), up(4, 1, "ready"), other]),
    ]);
    let (result, text) = wait(&mut script).await;
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "service web does not converge: task web.1 was rejected 3 times in a row: No such image: nowhere:1"
    );
    assert!(crate::error::hint(&error).is_some_and(|h| h.contains("swarmctl service why web")));
    assert!(text.contains("overall progress: 1 out of 2 tasks\n"), "{text}");
    assert_eq!(script.polls, 4);
}

#[tokio::test(start_paused = true)]
async fn failures_of_different_slots_or_with_a_stop_between_are_not_in_a_row() {
    let web = replicated(3);
    let stopped = task(3, 1, "shutdown", "shutdown", "");
    let tasks = [rejected(1, 1), rejected(2, 1), stopped, rejected(4, 1), rejected(5, 2), rejected(6, 3)];
    let running = [up(7, 1, "running"), up(8, 2, "running"), up(9, 3, "running")];
    let mut script = Script::new([snapshot(&web, &tasks), snapshot(&web, &[&tasks[..], &running].concat())]);
    assert_eq!(wait(&mut script).await.0.unwrap(), Outcome::Converged);
}

#[tokio::test(start_paused = true)]
async fn failures_before_the_command_do_not_count() {
    let web = replicated(1);
    let old = [rejected(1, 1), rejected(2, 1), rejected(3, 1)];
    let (mut out, _) = capture::out(false);
    let wait = Wait::new(Display::new(&mut out, true), Before::of(&replicated(2), &old));
    let mut script = Script::new([snapshot(&web, &old), snapshot(&web, &[&old[..], &[up(4, 1, "running")]].concat())]);
    assert_eq!(wait.run(&mut script, None, std::future::pending()).await.unwrap(), Outcome::Converged);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_not_restarted_ends_the_wait_at_once() {
    for (condition, state, what) in [
        ("none", "failed", "failed once, and is not restarted"),
        ("on-failure", "complete", "ended once, and is not restarted"),
    ] {
        let web = service(json!({"Name": "web", "TaskTemplate": {"RestartPolicy": {"Condition": condition}}}));
        let mut script = Script::new([snapshot(&web, &[task(1, 1, state, "shutdown", "exit")])]);
        let error = wait(&mut script).await.0.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_says_how_far_it_was() {
    let web = replicated(2);
    let err = "no suitable node (insufficient resources on 3 nodes)";
    let mut script = Script::new([snapshot(&web, &[up(1, 1, "running"), task(2, 2, "pending", "running", err)])]);
    let begun = Instant::now();
    let error = wait_with(&mut script, false, Some(90)).await.0.unwrap_err().to_string();
    assert_eq!(error, format!("service web did not converge within 1m30s: 1 out of 2 tasks; 2/2 says: {err}"));
    assert_eq!(begun.elapsed(), Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_leaves_the_cluster_at_work() {
    let (mut out, _) = capture::out(false);
    let mut script = Script::new([snapshot(&replicated(1), &[])]);
    let wait = Wait::new(Display::new(&mut out, true), Before::default());
    assert_eq!(wait.run(&mut script, None, sleep(POLL * 3)).await.unwrap(), Outcome::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn short_outages_are_waited_out_and_long_ones_are_not() {
    let web = replicated(1);
    let mut script = Script::new([snapshot(&web, &[up(1, 1, "running")])]);
    for _ in 0..10 {
        script.lines.push_front(Err(503));
    }
    assert_eq!(wait(&mut script).await.0.unwrap(), Outcome::Converged);

    let mut script = Script { lines: VecDeque::from([Err(503)]), polls: 0 };
    let begun = Instant::now();
    assert_eq!(wait(&mut script).await.0.unwrap_err().to_string(), "no leader");
    assert_eq!(begun.elapsed(), OUTAGE_MAX);

    let mut script = Script { lines: VecDeque::from([Err(404)]), polls: 0 };
    assert!(wait(&mut script).await.0.is_err());
    assert_eq!(script.polls, 1);
}

/// The service in the middle of an update.
fn updating(mut service: ServiceView, state: &str, message: &str) -> ServiceView {
    service.update_status = Some(serde_json::from_value(json!({"State": state, "Message": message})).unwrap());
    service
}

#[tokio::test(start_paused = true)]
async fn states_of_an_update_that_end_the_wait() {
    let script = |state| Script::new([snapshot(&updating(replicated(1), state, "task t1 failed"), &[])]);
    let error = wait(&mut script("paused")).await.0.unwrap_err().to_string();
    assert_eq!(error, "the update of service web is paused: task t1 failed");
    let error = wait(&mut script("rollback_paused")).await.0.unwrap_err().to_string();
    assert_eq!(error, "the rollback of service web is paused: task t1 failed");
    let failed = task(3, 1, "failed", "shutdown", "exit 1");
    let mut with_reason = Script::new([snapshot(&updating(replicated(1), "paused", "task t3 failed"), &[failed])]);
    let error = wait(&mut with_reason).await.0.unwrap_err();
    assert_eq!(error.to_string(), "the update of service web is paused: task web.1 failed: exit 1");
    assert!(crate::error::hint(&error).unwrap().contains("swarmctl service update --rollback web"));
    assert_eq!(wait(&mut script("completed")).await.0.unwrap(), Outcome::Converged);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_was_paused_before_a_change_does_not_unmake_it() {
    let paused = updating(replicated(1), "paused", "task t1 failed");
    let (mut out, _) = capture::out(false);
    let wait = Wait::new(Display::new(&mut out, false), Before::of(&paused, &[]));
    let mut script = Script::new([snapshot(&paused, &[])]);
    let error = wait.run(&mut script, None, std::future::pending()).await.unwrap_err().to_string();
    assert_eq!(error, "service web is changed, but its update is still paused: task t1 failed");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_before_is_none_of_a_change_that_starts_nothing() {
    let back = updating(replicated(1), "rollback_completed", "rollback completed");
    let tasks = [up(1, 1, "running")];
    let (mut out, text) = capture::out(false);
    let wait = Wait::new(Display::new(&mut out, false), Before::of(&back, &tasks));
    let mut script = Script::new([snapshot(&back, &tasks)]);
    assert_eq!(wait.run(&mut script, None, std::future::pending()).await.unwrap(), Outcome::Converged);
    assert!(!text.text().contains("rollback"), "{}", text.text());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_rolls_itself_back() {
    let web = |state, message| updating(replicated(2), state, message);
    let back = web("rollback_started", "update rolled back due to failure of task t1");
    let failed = task(3, 1, "failed", "shutdown", "exit 1");
    let old = [up(4, 1, "running"), up(2, 2, "running")];
    let first = [
        snapshot(&replicated(2), &[]),
        snapshot(&web("updating", "update in progress"), &[up(3, 1, "starting")]),
        snapshot(&web("updating", "update in progress"), std::slice::from_ref(&failed)),
        snapshot(&back, &old[1..]),
    ];
    // The manager calls it complete only after the client's own monitor is over.
    let until_complete = vec![snapshot(&back, &old); 40];
    let end = [snapshot(&web("rollback_completed", "rollback completed"), &old)];
    let mut script = Script::new(first.into_iter().chain(until_complete).chain(end));
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::RolledBack("update rolled back due to failure of task t1".to_owned()));
    assert_eq!(last_failure(&[failed], &BTreeSet::new(), "web").unwrap(), "task web.1 failed: exit 1");
    assert_eq!(
        text,
        "\
overall progress: 0 out of 2 tasks
1/2: starting
1/2: exit 1
rollback: update rolled back due to failure of task t1
2/2: running
overall progress: rolling back update: 1 out of 2 tasks
1/2: running
overall progress: rolling back update: 2 out of 2 tasks
verify: Waiting 5 seconds to verify that tasks are stable...
verify: Service s1 converged
rollback: rollback completed
"
    );
}

#[tokio::test(start_paused = true)]
async fn the_policy_of_an_update_judges_its_failures() {
    let failed: Vec<TaskView> = (1..=5).map(|id| rejected(id, 1)).collect();
    for state in ["updating", "rollback_started"] {
        let begin = snapshot(&updating(replicated(1), state, ""), &failed);
        let mut script = Script::new([begin, snapshot(&replicated(1), &failed)]);
        assert!(wait(&mut script).await.0.unwrap_err().to_string().contains("5 times in a row"));
        assert_eq!(script.polls, 2, "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_that_completes_although_its_tasks_do_not_run() {
    let web = |state| updating(replicated(1), state, "");
    let again = |id| [rejected(id, 1), task(id + 1, 1, "assigned", "ready", "")];
    let mut script = Script::new([
        snapshot(&web("updating"), &again(1)),
        snapshot(&web("completed"), &again(1)),
        snapshot(&web("completed"), &again(2)),
        snapshot(&web("completed"), &again(3)),
    ]);
    assert_eq!(
        wait(&mut script).await.0.unwrap_err().to_string(),
        "service web does not converge: task web.1 was rejected 3 times in a row: No such image: nowhere:1"
    );
    // The old task serves on, and nothing follows the new one.
    let error = wait(&mut Script::new([snapshot(&web("completed"), &[rejected(1, 1)])])).await.0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the update of service web is complete, but not all its tasks run: \
         task web.1 was rejected: No such image: nowhere:1"
    );
    // On a node that is down nothing is waited for.
    let mut lost = up(1, 1, "preparing");
    lost.node_id = "n2".to_owned();
    assert_eq!(wait(&mut Script::new([snapshot(&web("completed"), &[lost])])).await.0.unwrap(), Outcome::Converged);
    // One that comes up in the end is no failure.
    let up_late = snapshot(&web("completed"), &[rejected(1, 1), up(2, 1, "running")]);
    let mut script = Script::new([snapshot(&web("completed"), &again(1)), up_late]);
    assert_eq!(wait(&mut script).await.0.unwrap(), Outcome::Converged);
}

#[tokio::test(start_paused = true)]
async fn a_global_update_has_not_converged_before_it_reached_every_node() {
    let on = |id, node: &str| {
        let mut task = up(id, 0, "running");
        task.node_id = node.to_owned();
        task
    };
    let (a, b) = (on(1, "aaaaaaaaaaaaaaaaaaaaaaaaa"), on(2, "bbbbbbbbbbbbbbbbbbbbbbbbb"));
    let agent = service(json!({"Name": "agent", "Mode": {"Global": {}}}));
    let look = |state, tasks: &[TaskView]| {
        let nodes = tasks.iter().map(|task| task.node_id.clone()).collect();
        Snapshot { live_nodes: nodes, ..snapshot(&updating(agent.clone(), state, ""), tasks) }
    };
    let both = [a.clone(), b];
    let mut script = Script::new([look("updating", &[a]), look("updating", &both), look("completed", &both)]);
    let begun = Instant::now();
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::Converged);
    assert_eq!(begun.elapsed(), POLL * 2 + MONITOR_DEFAULT);
    assert_eq!(
        text,
        "\
aaaaaaaaaaaa: running
overall progress: 1 out of 1 tasks
bbbbbbbbbbbb: running
overall progress: 2 out of 2 tasks
verify: Waiting 5 seconds to verify that tasks are stable...
verify: Service s1 converged
"
    );
}

#[tokio::test(start_paused = true)]
async fn tasks_of_dead_nodes_do_not_count_and_slots_keep_their_lines() {
    let web = replicated(2);
    let mut lost = up(1, 7, "running");
    lost.node_id = "n2".to_owned();
    let mut script = Script::new([
        snapshot(&web, &[lost.clone(), up(2, 4, "running")]),
        snapshot(&web, &[lost, up(2, 4, "running"), up(3, 7, "running")]),
    ]);
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::Converged);
    assert!(text.starts_with("1/2: running\noverall progress: 1 out of 2 tasks\n2/2: running\noverall"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn global_services() {
    let agent = service(json!({"Name": "agent", "Mode": {"Global": {}}}));
    let mut script = Script::new([
        snapshot(&agent, &[]),
        snapshot(&agent, &[up(1, 0, "preparing")]),
        snapshot(&agent, &[up(1, 0, "running")]),
    ]);
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::Converged);
    let begin = "overall progress: waiting for new tasks\nn1: preparing\noverall progress: 0 out of 1 tasks\n";
    assert!(text.starts_with(begin), "{text}");
}

/// A task of a job in slot `slot` of an execution.
fn of_job(id: u64, slot: Option<u64>, iteration: u64, state: &str, desired: &str) -> TaskView {
    let mut task = task(id, 0, state, desired, "");
    (task.slot, task.job_iteration) = (slot, Some(swarm_docker_api::view::Version { index: iteration }));
    task
}

fn job(mode: Value) -> ServiceView {
    let mut job = service(json!({"Name": "job", "Mode": mode}));
    job.job_status = serde_json::from_value(json!({"JobIteration": {"Index": 1}})).unwrap();
    job
}

#[tokio::test(start_paused = true)]
async fn a_replicated_job_has_ended_when_all_its_slots_have_completed() {
    let job = job(json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}));
    let before = of_job(1, Some(0), 0, "complete", "shutdown");
    let first = of_job(2, Some(0), 1, "complete", "complete");
    let failed = of_job(3, Some(1), 1, "failed", "shutdown");
    let mut script = Script::new([
        snapshot(&job, &[before.clone(), of_job(2, Some(0), 1, "running", "complete")]),
        snapshot(&job, &[before.clone(), first.clone(), of_job(3, Some(1), 1, "running", "complete")]),
        snapshot(&job, &[before.clone(), first.clone(), failed.clone(), of_job(4, Some(1), 1, "ready", "ready")]),
        snapshot(&job, &[before, first, failed, of_job(4, Some(1), 1, "complete", "complete")]),
    ]);
    let (result, text) = wait(&mut script).await;
    assert_eq!(result.unwrap(), Outcome::Converged);
    assert_eq!(
        text,
        "\
active tasks: 1 out of 1 tasks
1/2: running
job progress: 0 out of 2 complete
1/2: complete
2/2: running
job progress: 1 out of 2 complete
2/2: ready
active tasks: 0 out of 0 tasks
2/2: complete
job progress: 2 out of 2 complete
job: complete
"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_task_is_not_restarted_cannot_complete() {
    let mut once = job(json!({"GlobalJob": {}}));
    let spec = std::sync::Arc::make_mut(&mut once.spec);
    spec.task_template.restart_policy = serde_json::from_value(json!({"Condition": "none"})).unwrap();
    let at = |id, node: &str, state: &str, desired: &str| {
        let mut task = of_job(id, None, 1, state, desired);
        task.node_id = node.to_owned();
        task
    };
    let gone = at(3, "drained", "running", "shutdown");
    let mut script = Script::new([
        snapshot(&once, &[]),
        snapshot(&once, &[at(1, "n1", "running", "complete"), at(2, "n2", "running", "complete"), gone.clone()]),
        snapshot(&once, &[at(1, "n1", "complete", "complete"), at(2, "n2", "failed", "shutdown"), gone]),
    ]);
    let (result, text) = wait(&mut script).await;
    assert!(text.starts_with("job progress: waiting for tasks\nn1: running\nn2: running\njob progress: 0 out of 2"));
    assert!(text.ends_with("job progress: 1 out of 2 complete\n"), "{text}");
    let error = result.unwrap_err().to_string();
    assert!(error.contains("task job.n2 failed once, and is not restarted"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_terminal_gets_bars_that_change_in_place() {
    let web = replicated(1);
    let mut script = Script::new([snapshot(&web, &[up(1, 1, "preparing")]), snapshot(&web, &[up(1, 1, "running")])]);
    let (_, text) = wait_with(&mut script, true, None).await;
    let bar = |state: &str, done: usize| format!("1/1: {state:<9} [{}>{}]\n", "=".repeat(done), " ".repeat(50 - done));
    assert!(text.contains(&bar("preparing", 33)), "{text:?}");
    assert!(text.contains(&bar("running", 50)), "{text:?}");
    assert!(text.contains("\x1b[2A\r\x1b[2Koverall progress: 1 out of 1 tasks\n"), "{text:?}");
    assert!(text.contains("verify: Waiting 1 second to verify"), "{text:?}");
    assert_eq!(text.matches("\x1b[?7l").count(), text.matches("\x1b[?7h").count());
}

#[tokio::test(start_paused = true)]
async fn many_tasks_have_one_line_and_errors_are_cut() {
    let many = replicated(21);
    let tasks: Vec<TaskView> = (1..=21).map(|i| up(i, i, "running")).collect();
    let (_, text) = wait(&mut Script::new([snapshot(&many, &tasks)])).await;
    assert_eq!(text.lines().count(), 3, "{text}");

    let long = "x\n".repeat(60);
    let tasks = [task(1, 1, "pending", "running", &long)];
    let (_, text) = wait_with(&mut Script::new([snapshot(&replicated(1), &tasks)]), false, Some(1)).await;
    let line = text.lines().next().unwrap();
    assert!(line.ends_with('…') && line.chars().count() == "1/1: ".len() + 75, "{line}");
}
