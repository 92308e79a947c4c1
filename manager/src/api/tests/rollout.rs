//! Updates, rollbacks and global services: the routes beside the real decisions, with agents that obey at once.

use swarm_core::{Context, Dirty, decide};
use swarm_model::{NodeResources, Task};

use super::*;

/// Decisions after which a cluster that does not come to rest is taken for one that never will.
const ROUNDS_MAX: usize = 200;

/// One decision and what agents make of it. Returns whether anything happened. When there is only waiting left to do,
/// the clock goes on to the next deadline.
fn round(plane: &TestPlane) -> bool {
    let mut inner = plane.inner();
    let now = inner.now.max(inner.state.time());
    inner.calls += 1;
    let seed = inner.calls.unsigned_abs();
    let plan = decide(&inner.state, &Dirty::everything(), &Context::at(now, seed));
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    let planned = !plan.txs.is_empty();
    if planned {
        inner.now = now;
        let outcomes = inner.apply(plan.txs);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
    let reports: Vec<Tx> =
        inner.state.tasks().filter_map(|task| obey(&inner.state, task)).map(|op| Tx::new(vec![op])).collect();
    let reported = !reports.is_empty();
    if reported {
        inner.apply(reports);
    }
    if planned || reported {
        return true;
    }
    let Some(deadline) = plan.deadlines.values().min() else { return false };
    inner.now = *deadline;
    true
}

/// What the agent of a task's node reports: it runs, or fails with the image tag `broken`, and stops when it is told.
/// A job's task ends by itself.
fn obey(state: &State, task: &Task) -> Option<Op> {
    let (node, now) = (task.node?, task.status.state);
    state.node(node).filter(|node| node.status.state == NodeState::Ready)?;
    let spec = state.spec(task.service, task.spec_version)?;
    let next = match task.desired {
        _ if now.is_terminal() || now == TaskState::Pending => return None,
        DesiredState::Ready => TaskState::Ready,
        DesiredState::Running | DesiredState::Complete
            if spec.spec.task_template.container_spec.image.ends_with(":broken") =>
        {
            TaskState::Failed
        }
        DesiredState::Complete if now == TaskState::Running => TaskState::Complete,
        DesiredState::Running | DesiredState::Complete => TaskState::Running,
        DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
    };
    let report = (task.id, TaskStatus::new(next, state.time()));
    (next != now).then(|| Op::ReportTasks { node, reports: vec![report] })
}

/// Goes on until nothing is left to do.
pub(super) fn settle(plane: &TestPlane) {
    assert!((0..ROUNDS_MAX).any(|_| !round(plane)), "it comes to rest");
}

/// Goes on until the update of a service is in this state.
async fn run_until(plane: &TestPlane, service: &str, state: &str) {
    for _ in 0..ROUNDS_MAX {
        if inspect(plane, service).await["UpdateStatus"]["State"] == state {
            return;
        }
        round(plane);
    }
    panic!("the update never is {state}: {}", inspect(plane, service).await);
}

async fn inspect(plane: &TestPlane, service: &str) -> Value {
    get(plane, &format!("/services/{service}")).await.ok().json()
}

/// Get, modify, put: what every client does.
async fn update(plane: &TestPlane, service: &str, change: impl FnOnce(&mut Value)) {
    let mut view = inspect(plane, service).await;
    change(&mut view["Spec"]);
    let path = format!("/services/{service}/update?version={}&registryAuthFrom=spec", view["Version"]["Index"]);
    post(plane, &path, &view["Spec"]).await.ok();
}

async fn update_image(plane: &TestPlane, service: &str, image: &str) {
    update(plane, service, |spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image)).await;
}

/// The rollback that clients ask for. The body is to be ignored, whatever it is.
async fn roll_back(plane: &TestPlane, service: &str) -> Answer {
    let version = inspect(plane, service).await["Version"]["Index"].clone();
    post(plane, &format!("/services/{service}/update?version={version}&rollback=previous"), &json!("ignored")).await
}

/// Tasks that are up to date and running, as clients look for them.
async fn up_to_date(plane: &TestPlane, service: &str) -> Vec<Value> {
    let filters = json!({"_up-to-date": {"true": true}, "service": {service: true}});
    let list = filtered(plane, "/tasks", filters).await.ok().json();
    let runs = |task: &&Value| task["Status"]["State"] == "running" && task["DesiredState"] == "running";
    list.as_array().expect("a list").iter().filter(runs).cloned().collect()
}

fn images(tasks: &[Value]) -> Vec<&str> {
    tasks.iter().map(|task| task["Spec"]["ContainerSpec"]["Image"].as_str().expect("an image")).collect()
}

/// The service `web` of two replicas, running.
async fn running() -> TestPlane {
    let plane = cluster();
    create(&plane, "web").await;
    settle(&plane);
    assert_eq!(up_to_date(&plane, "web").await.len(), 2);
    plane
}

#[tokio::test]
async fn an_update_replaces_the_tasks_and_says_how_far_it_is() {
    let plane = running().await;
    update_image(&plane, "web", "hello:2").await;
    let view = inspect(&plane, "web").await;
    assert_eq!(view.get("UpdateStatus"), None);
    assert_eq!(view["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"], "hello:1");
    assert_eq!(up_to_date(&plane, "web").await, [] as [Value; 0]);

    round(&plane);
    let status = inspect(&plane, "web").await["UpdateStatus"].clone();
    assert_eq!((&status["State"], &status["Message"]), (&json!("updating"), &json!("update in progress")));
    run_until(&plane, "web", "completed").await;
    let status = inspect(&plane, "web").await["UpdateStatus"].clone();
    assert_eq!(status["Message"], "update completed");
    assert!(status["CompletedAt"].as_str() > status["StartedAt"].as_str(), "{status}");
    assert_eq!(images(&up_to_date(&plane, "web").await), ["hello:2", "hello:2"]);

    // The next change must not show the end of this one, in whatever moment a client looks.
    update(&plane, "web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    assert_eq!(inspect(&plane, "web").await.get("UpdateStatus"), None);
    run_until(&plane, "web", "completed").await;
}

#[tokio::test]
async fn tasks_that_a_change_does_not_concern_stay_up_to_date() {
    let plane = running().await;
    let before = up_to_date(&plane, "web").await;
    update(&plane, "web", |spec| {
        spec["Labels"]["a"] = json!("b");
        spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.hostname!=gamma"]});
    })
    .await;
    settle(&plane);
    assert_eq!(up_to_date(&plane, "web").await, before);
    assert_eq!(inspect(&plane, "web").await.get("UpdateStatus"), None);
}

#[tokio::test]
async fn a_rollback_swaps_the_specs_and_a_second_one_swaps_them_again() {
    let plane = running().await;
    update_image(&plane, "web", "hello:2").await;
    run_until(&plane, "web", "completed").await;
    for (image, other) in [("hello:1", "hello:2"), ("hello:2", "hello:1")] {
        let old = up_to_date(&plane, "web").await;
        assert_eq!(roll_back(&plane, "web").await.ok().json(), json!({"Warnings": null}));
        let view = inspect(&plane, "web").await;
        assert_eq!(view["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], image);
        assert_eq!(view["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"], other);
        let status = &view["UpdateStatus"];
        assert_eq!(
            (&status["State"], &status["Message"]),
            (&json!("rollback_started"), &json!("manually requested rollback"))
        );
        run_until(&plane, "web", "rollback_completed").await;
        assert_eq!(inspect(&plane, "web").await["UpdateStatus"]["Message"], "rollback completed");
        let new = up_to_date(&plane, "web").await;
        assert_eq!(images(&new), [image, image]);
        assert!(new.iter().all(|task| old.iter().all(|old| old["ID"] != task["ID"])));
    }
}

#[tokio::test]
async fn an_update_that_fails_pauses_until_the_next_one() {
    let plane = running().await;
    update_image(&plane, "web", "hello:broken").await;
    run_until(&plane, "web", "paused").await;
    let view = inspect(&plane, "web").await;
    let message = view["UpdateStatus"]["Message"].as_str().expect("a message");
    let task = message.strip_prefix("update paused due to failure or early termination of task ").expect(message);
    assert_eq!(get(&plane, &format!("/tasks/{task}")).await.ok().json()["Status"]["State"], "failed");
    assert_eq!(view["UpdateStatus"].get("CompletedAt"), None);

    update_image(&plane, "web", "hello:2").await;
    assert_eq!(inspect(&plane, "web").await.get("UpdateStatus"), None);
    run_until(&plane, "web", "completed").await;
    assert_eq!(images(&up_to_date(&plane, "web").await), ["hello:2", "hello:2"]);
}

#[tokio::test]
async fn an_update_that_fails_rolls_itself_back() {
    let plane = running().await;
    update(&plane, "web", |spec| {
        spec["UpdateConfig"] = json!({"Parallelism": 1, "FailureAction": "rollback"});
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:broken");
    })
    .await;
    run_until(&plane, "web", "rollback_started").await;
    let view = inspect(&plane, "web").await;
    let message = view["UpdateStatus"]["Message"].as_str().expect("a message");
    assert!(message.starts_with("update rolled back due to failure or early termination of task "), "{message}");
    assert_eq!(view.get("PreviousSpec"), None);
    run_until(&plane, "web", "rollback_completed").await;
    assert_eq!(images(&up_to_date(&plane, "web").await), ["hello:1", "hello:1"]);
    let message = roll_back(&plane, "web").await.error(400);
    assert_eq!(message, "service web does not have a previous spec");
}

#[tokio::test]
async fn a_slot_is_its_running_task_after_a_rollback() {
    let plane = running().await;
    let before = up_to_date(&plane, "web").await;
    update(&plane, "web", |spec| {
        spec["TaskTemplate"]["Resources"] = json!({"Reservations": {"NanoCPUs": 8_000_000_000_u64}});
    })
    .await;
    round(&plane);
    let waits = get(&plane, "/swarmd/tasks/web.1/why").await.ok().json();
    assert_eq!(waits["Tasks"][0]["State"], "pending", "{waits}");
    roll_back(&plane, "web").await.ok();
    settle(&plane);
    assert_eq!(up_to_date(&plane, "web").await.len(), 2);
    let runs = get(&plane, "/swarmd/tasks/web.1/why").await.ok().json();
    assert_eq!(runs["Tasks"][0]["State"], "running", "{runs}");
    assert!(before.iter().any(|task| task["ID"] == runs["Tasks"][0]["ID"]), "{runs}");
}

/// Makes a global service and returns its id.
async fn create_global(plane: &TestPlane, change: impl FnOnce(&mut Value)) -> String {
    let mut spec = plain("agent");
    spec["Mode"] = json!({"Global": {}});
    change(&mut spec);
    let answer = post(plane, "/services/create", &spec).await.ok();
    settle(plane);
    answer.json()["ID"].as_str().expect("an id").to_owned()
}

async fn counts(plane: &TestPlane) -> Value {
    get(plane, "/services?status=true").await.ok().json()[0]["ServiceStatus"].clone()
}

#[tokio::test]
async fn a_global_service_has_a_task_on_each_node() {
    let plane = cluster();
    let id = create_global(&plane, |_| {}).await;
    assert_eq!(inspect(&plane, "agent").await["Spec"]["Mode"], json!({"Global": {}}));
    let tasks = up_to_date(&plane, "agent").await;
    let mut nodes: Vec<_> = tasks.iter().map(|task| task["NodeID"].as_str().expect("a node").to_owned()).collect();
    nodes.sort();
    assert_eq!(nodes, [WORKER.to_string(), MANAGER.to_string()]);
    assert!(tasks.iter().all(|task| task.get("Slot").is_none() && task["ServiceID"] == id));
    let (task, node) = (tasks[0]["ID"].as_str().expect("id"), tasks[0]["NodeID"].as_str().expect("id"));
    assert_eq!(get(&plane, &format!("/tasks/agent.{node}.{task}")).await.ok().json()["ID"], task);
    assert_eq!(filtered(&plane, "/services", json!({"mode": ["global"]})).await.all("/ID"), [id]);
    assert_eq!(counts(&plane).await, json!({"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}));

    update_image(&plane, "agent", "hello:2").await;
    run_until(&plane, "agent", "completed").await;
    assert_eq!(images(&up_to_date(&plane, "agent").await), ["hello:2", "hello:2"]);
    roll_back(&plane, "agent").await.ok();
    run_until(&plane, "agent", "rollback_completed").await;
    assert_eq!(images(&up_to_date(&plane, "agent").await), ["hello:1", "hello:1"]);
}

#[tokio::test]
async fn a_global_task_that_finds_no_room_waits_on_its_node() {
    let plane = cluster();
    let mut description = NodeDescription { hostname: "beta".into(), ..NodeDescription::default() };
    description.resources = NodeResources { nano_cpus: 500_000_000, ..NodeResources::default() };
    report_node(&plane, WORKER, NodeState::Ready, Some(description));
    let reserve =
        |spec: &mut Value| spec["TaskTemplate"]["Resources"] = json!({"Reservations": {"NanoCPUs": 1_000_000_000}});
    create_global(&plane, reserve).await;
    let filters = json!({"node": ["beta"], "service": ["agent"]});
    let list = filtered(&plane, "/tasks", filters).await.ok().json();
    let task = &list[0];
    assert_eq!((&task["NodeID"], task.get("Slot")), (&json!(WORKER.to_string()), None));
    assert_eq!((&task["Status"]["State"], &task["DesiredState"]), (&json!("pending"), &json!("running")));
    let reason = task["Status"]["Err"].as_str().expect("a reason");
    assert!(reason.contains("insufficient resources"), "{reason}");
    assert_eq!(counts(&plane).await, json!({"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 0}));
}

#[tokio::test]
async fn a_node_that_left_is_down_and_counts_no_more_until_it_is_removed() {
    let plane = cluster();
    create_global(&plane, |_| {}).await;
    report_node(&plane, WORKER, NodeState::Down, None);
    settle(&plane);
    assert_eq!(get(&plane, "/nodes/beta").await.ok().json()["Status"]["State"], "down");
    assert_eq!(counts(&plane).await, json!({"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 0}));
    delete(&plane, "/nodes/beta").await.ok();
    settle(&plane);
    assert_eq!(filtered(&plane, "/nodes", json!({})).await.all("/Description/Hostname"), ["alpha"]);
    assert_eq!(get(&plane, "/tasks").await.all("/NodeID"), [MANAGER.to_string()]);
}

/// What `docker service ls` shows of a service.
async fn numbers(plane: &TestPlane, service: &str) -> Value {
    let list = get(plane, "/services?status=true").await.ok().json();
    let shown = list.as_array().expect("a list").iter().find(|view| view["Spec"]["Name"] == service).cloned();
    shown.expect("the service")["ServiceStatus"].clone()
}

#[tokio::test]
async fn a_replicated_job_runs_to_its_end() {
    let plane = cluster();
    let mut spec = json!({"Name": "job", "TaskTemplate": {"ContainerSpec": {"Image": "hello:1"}}});
    spec["Mode"] = json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}});
    post(&plane, "/services/create", &spec).await.ok();
    let view = inspect(&plane, "job").await;
    assert_eq!(view["JobStatus"], json!({"JobIteration": {}, "LastExecution": view["CreatedAt"]}));
    round(&plane);
    assert_eq!(numbers(&plane, "job").await, json!({"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}));
    settle(&plane);
    assert_eq!(numbers(&plane, "job").await, json!({"RunningTasks": 0, "DesiredTasks": 2, "CompletedTasks": 5}));
    // The docker CLI counts the tasks of a job by their slots, from 0 on.
    let tasks = filtered(&plane, "/tasks", json!({"service": ["job"], "_up-to-date": ["true"]})).await.ok().json();
    let tasks = tasks.as_array().expect("a list");
    let mut slots: Vec<_> = tasks.iter().map(|task| task["Slot"].as_u64().expect("a slot")).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3, 4]);
    let states = |task: &Value| (task["Status"]["State"].clone(), task["DesiredState"].clone());
    assert!(tasks.iter().all(|task| states(task) == (json!("complete"), json!("complete"))));
    assert!(tasks.iter().all(|task| task["JobIteration"] == json!({})));
    let first = tasks.iter().find(|task| task["Slot"] == 0).expect("slot 0")["ID"].as_str().expect("id").to_owned();
    assert_eq!(get(&plane, &format!("/tasks/job.0.{first}")).await.ok().json()["ID"], first);

    update_image(&plane, "job", "hello:2").await;
    let view = inspect(&plane, "job").await;
    assert_eq!(view["JobStatus"], json!({"JobIteration": {"Index": 1}, "LastExecution": view["UpdatedAt"]}));
    assert_eq!(numbers(&plane, "job").await["CompletedTasks"], 0);
    settle(&plane);
    assert_eq!(numbers(&plane, "job").await["CompletedTasks"], 5);
    assert_eq!(inspect(&plane, "job").await.get("UpdateStatus"), None, "a job has no rolling update");
}

#[tokio::test]
async fn a_global_job_runs_once_on_every_node() {
    let plane = cluster();
    let mut spec = json!({"Name": "job", "TaskTemplate": {"ContainerSpec": {"Image": "hello:1"}}});
    spec["Mode"] = json!({"GlobalJob": {}});
    post(&plane, "/services/create", &spec).await.ok();
    round(&plane);
    assert_eq!(numbers(&plane, "job").await, json!({"RunningTasks": 2, "DesiredTasks": 2, "CompletedTasks": 0}));
    settle(&plane);
    assert_eq!(numbers(&plane, "job").await, json!({"RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 2}));
    let tasks = filtered(&plane, "/tasks", json!({"service": ["job"]})).await.ok().json();
    assert!(tasks.as_array().expect("a list").iter().all(|task| task.get("Slot").is_none()), "{tasks}");
    // What a read with defaults shows can be written back.
    let view = get(&plane, "/services/job?insertDefaults=true").await.ok().json();
    let path = format!("/services/job/update?version={}", view["Version"]["Index"]);
    post(&plane, &path, &view["Spec"]).await.ok();
    spec["RollbackConfig"] = json!({});
    spec["Name"] = json!("other");
    assert_eq!(post(&plane, "/services/create", &spec).await.error(400), "Jobs may not have a rollback config");
}

#[tokio::test]
async fn a_rebalance_by_hand_moves_tasks_to_a_node_that_comes() {
    let plane = cluster();
    report_node(&plane, WORKER, NodeState::Down, None);
    create(&plane, "web").await;
    settle(&plane);
    let nodes = async || {
        let tasks = up_to_date(&plane, "web").await;
        tasks
            .iter()
            .map(|task| task["NodeID"].as_str().expect("a node").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    report_node(&plane, WORKER, NodeState::Ready, None);
    settle(&plane);
    assert_eq!(nodes().await.len(), 1, "nothing moves by itself");
    post(&plane, "/swarmd/services/web/rebalance", &json!(null)).await.ok();
    settle(&plane);
    assert_eq!(nodes().await.len(), 2);

    let answer = post(&plane, "/swarmd/services/nothing/rebalance", &json!(null)).await;
    assert_eq!(answer.status, 404);
    create_global(&plane, |_| ()).await;
    let answer = post(&plane, "/swarmd/services/agent/rebalance", &json!(null)).await;
    assert_eq!(answer.status, 400);
    let mut packed = plain("packed");
    packed["Labels"] = json!({"swarmd.placement": "pack"});
    post(&plane, "/services/create", &packed).await.ok();
    let answer = post(&plane, "/swarmd/services/packed/rebalance", &json!(null)).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["message"].to_string();
    assert!(message.contains("choose swarmd.placement=spread"), "{message}");
}
