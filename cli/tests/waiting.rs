//! Commands that wait, in real time but with short periods.

mod support;

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Fake, Ran, Reply};

/// A service that is verified for a nanosecond only.
fn service(replicas: u64) -> Value {
    let spec = json!({"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}, "UpdateConfig": {"Monitor": 1}});
    json!({"ID": "s1", "Version": {"Index": 7}, "Spec": spec})
}

fn task(id: u64, slot: u64, state: &str, err: &str) -> Value {
    json!({"ID": format!("t{id}"), "CreatedAt": format!("2026-11-22T11:00:{id:02}Z"), "ServiceID": "s1", "Slot": slot,
        "NodeID": "n1", "Status": {"State": state, "Err": err},
        "DesiredState": if err.is_empty() { "running" } else { "shutdown" }})
}

fn fake(replicas: u64, polls: impl IntoIterator<Item = Value>) -> Fake {
    let fake = Fake::start();
    fake.on_json("POST /services/create", &json!({"ID": "s1"}))
        .on_json("POST /services/s1/update", &json!({"Warnings": null}))
        .on_json("GET /services/s1", &service(replicas))
        .on_json("GET /services/web", &service(replicas))
        .on_json("GET /nodes", &json!([{"ID": "n1", "Status": {"State": "ready"}}]))
        .on("GET /tasks", polls.into_iter().map(|tasks| Reply::json(&tasks)));
    fake
}

const CREATE: [&str; 6] = ["service", "create", "--no-resolve-image", "--name", "web", "hello:1"];

#[test]
fn create_waits_until_the_tasks_run() {
    let fake = fake(
        2,
        [
            json!([]),
            json!([task(1, 1, "preparing", ""), task(2, 2, "pending", "")]),
            json!([task(1, 1, "running", ""), task(2, 2, "running", "")]),
        ],
    );
    assert_eq!(
        fake.run(&CREATE).ok(),
        "\
s1
overall progress: 0 out of 2 tasks
1/2: preparing
2/2: pending
1/2: running
2/2: running
overall progress: 2 out of 2 tasks
verify: Waiting 1 second to verify that tasks are stable...
verify: Service s1 converged
"
    );
    let filters = &fake.seen("GET /tasks")[0].query["filters"];
    assert_eq!(filters, r#"{"_up-to-date":{"true":true},"service":{"s1":true}}"#);
    assert_eq!(fake.seen("GET /services/s1")[0].query["insertDefaults"], "false");
}

#[test]
fn quiet_shows_the_id_only() {
    let fake = fake(1, [json!([task(1, 1, "running", "")])]);
    assert_eq!(fake.run(&[&CREATE[..2], &["-q"], &CREATE[2..]].concat()).ok(), "s1\n");
}

#[test]
fn three_failures_end_the_wait() {
    let missing = |id| task(id, 1, "rejected", "No such image: hello:1");
    let tasks = json!([missing(1), missing(2), missing(3), task(4, 1, "ready", "")]);
    let ran = fake(1, [json!([]), tasks]).run(&CREATE);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.starts_with("s1\noverall progress: 0 out of 1 tasks\n"), "{}", ran.stdout);
    assert_eq!(
        ran.stderr,
        "Error: service web does not converge: task web.1 was rejected 3 times in a row: No such image: hello:1\n\
         The cluster goes on trying. See: swarmctl service why web; swarmctl service logs web\n"
    );
}

#[test]
fn the_timeout_ends_the_wait() {
    let fake = fake(1, [json!([task(1, 1, "pending", "")])]);
    let ran = fake.run(&[&CREATE[..2], &["--timeout", "300ms"], &CREATE[2..]].concat());
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("Error: service web did not converge within 300ms: 0 out of 1 tasks\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn scale_waits_and_ignores_failures_of_before() {
    let old = |id| task(id, 1, "failed", "task: non-zero exit (7)");
    let before = json!([old(1), old(2), old(3)]);
    let after = json!([old(1), old(2), old(3), task(4, 1, "running", "")]);
    let fake = fake(1, [before.clone(), before, after]);
    let text = fake.run(&["service", "scale", "web=1"]).ok();
    assert!(text.starts_with("web scaled to 1\noverall progress: 0 out of 1 tasks\n"), "{text}");
    assert!(text.ends_with("verify: Service s1 converged\n"), "{text}");
}

#[test]
fn update_and_rollback_wait_for_their_end() {
    let up = json!([task(2, 1, "running", "")]);
    let fake = fake(1, [up.clone()]);
    let text = fake.run(&["service", "update", "--force", "web"]).ok();
    assert!(text.starts_with("web\n1/1: running\noverall progress: 1 out of 1 tasks\n"), "{text}");
    assert!(text.ends_with("verify: Service s1 converged\n"), "{text}");

    let with_status = |state: &str, message: &str| {
        let mut service = service(1);
        service["UpdateStatus"] = json!({"State": state, "Message": message});
        Reply::json(&service)
    };
    let started = with_status("rollback_started", "manually requested rollback");
    let completed = with_status("rollback_completed", "rollback completed");
    for line in [&["service", "rollback", "web"][..], &["service", "update", "--rollback", "web"]] {
        fake.on("GET /services/s1", [started.clone(), completed.clone()])
            .on("GET /tasks", [Reply::json(&json!([])), Reply::json(&json!([])), Reply::json(&up)]);
        assert_eq!(
            fake.run(line).ok(),
            "\
web
rollback: manually requested rollback
overall progress: rolling back update: 0 out of 1 tasks
1/1: running
overall progress: rolling back update: 1 out of 1 tasks
verify: Waiting 1 second to verify that tasks are stable...
verify: Service s1 converged
rollback: rollback completed
"
        );
    }

    let message = "update paused due to failure or early termination of task t1";
    fake.on("GET /services/s1", [with_status("paused", message)]);
    let ran = fake.run(&["service", "update", "--image", "hello:broken", "--no-resolve-image", "web"]);
    assert_eq!(
        (ran.code, ran.stderr),
        (
            Some(1),
            format!(
                "Error: the update of service web is paused: {message}\nSee: swarmctl service why web. \
         Try it again: swarmctl service update --force web. Go back: swarmctl service update --rollback web\n"
            )
        )
    );
}

#[test]
fn an_update_that_was_rolled_back_says_why() {
    let with_status = |state: &str, message: &str| {
        let mut service = service(1);
        service["UpdateStatus"] = json!({"State": state, "Message": message});
        Reply::json(&service)
    };
    let message = "update rolled back due to task t3, which did not run before its deadline";
    let late = json!([task(2, 1, "running", ""), task(3, 1, "shutdown", "x")]);
    let fake = fake(1, [late]);
    fake.on(
        "GET /services/s1",
        [with_status("rollback_started", message), with_status("rollback_completed", "rollback completed")],
    );
    assert_eq!(
        fake.run(&["service", "update", "--force", "web"]).failed(),
        "Error: the update of service web was rolled back due to task web.1, which did not run before its deadline\n\
         The service runs as before. See: swarmctl service history web\n"
    );
}

#[test]
fn ctrl_c_leaves_the_cluster_at_work() {
    let fake = fake(1, [json!([])]);
    let child = fake.command(&CREATE).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The second round of looks: the wait is under way and listens to signals.
    fake.wait_for("GET /nodes", 2);
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(kill.success());
    let text = Ran::from(child.wait_with_output().unwrap()).ok();
    assert!(
        text.ends_with("Operation continuing in background.\nUse `swarmctl service ps s1` to check progress.\n"),
        "{text}"
    );
}

fn node(availability: &str, state: &str) -> Value {
    json!({"ID": "n1", "Version": {"Index": 9}, "Spec": {"Role": "worker", "Availability": availability},
        "Status": {"State": state}})
}

fn draining(polls: impl IntoIterator<Item = Value>) -> Fake {
    let fake = Fake::start();
    fake.on_json("GET /nodes/worker1", &node("active", "ready"))
        .on_json("GET /nodes/n1", &node("drain", "ready"))
        .on_json("POST /nodes/n1/update", &json!(null))
        .on("GET /tasks", polls.into_iter().map(|tasks| Reply::json(&tasks)));
    fake
}

#[test]
fn drain_waits_until_no_task_is_left() {
    let fake = draining([
        json!([task(1, 1, "running", ""), task(2, 2, "running", "")]),
        json!([task(1, 1, "running", ""), task(2, 2, "shutdown", "x")]),
        json!([task(1, 1, "failed", "x"), task(2, 2, "shutdown", "x")]),
    ]);
    let shown = fake.run(&["node", "drain", "--wait", "worker1"]).ok();
    assert_eq!(shown, "worker1: 2 tasks left\nworker1: 1 task left\nworker1: drained\n");
    let sent = &fake.seen("POST /nodes/n1/update")[0];
    assert_eq!((&sent.body["Availability"], sent.query["version"].as_str()), (&json!("drain"), "9"));
    assert_eq!(fake.seen("GET /tasks")[0].query["filters"], r#"{"node":{"n1":true}}"#);
}

#[test]
fn a_drain_of_several_nodes_knows_them_all_before_it_drains_one() {
    let fake = draining([json!([])]);
    let error = fake.run(&["node", "drain", "worker1", "nosuch"]).failed();
    assert!(error.contains("nosuch"), "{error}");
    assert!(fake.seen("POST /nodes/n1/update").is_empty());
}

#[test]
fn a_drain_says_whether_it_goes_by_policy_and_how_long() {
    let fake = draining([json!([])]);
    for flags in [&[][..], &["--timeout", "90s"], &["--now"]] {
        let args: Vec<&str> = ["node", "drain"].iter().chain(flags).chain(&["worker1"]).copied().collect();
        assert_eq!(fake.run(&args).ok(), "worker1\n");
    }
    assert_eq!(fake.run(&["node", "drain", "--now", "--timeout", "1m", "worker1"]).code, Some(2));
    assert!(fake.run(&["node", "drain", "elsewhere"]).failed().contains("no such node: elsewhere"));
    let seen = fake.seen("POST /nodes/n1/update");
    let how = |n: usize| ["drain", "drainTimeout"].map(|key| seen[n].query.get(key).cloned().unwrap_or_default());
    assert_eq!(
        [how(0), how(1), how(2)],
        [["policy", "1h0m0s"], ["policy", "1m30s"], ["now", ""]].map(|a| a.map(str::to_owned))
    );
}

#[test]
fn a_drain_that_is_taken_back_ends_the_wait() {
    let fake = draining([json!([task(1, 1, "running", "")])]);
    fake.on("GET /nodes/n1", [node("drain", "ready"), node("active", "ready")].map(|node| Reply::json(&node)));
    let ran = fake.run(&["node", "drain", "--wait", "--timeout", "1m", "worker1"]);
    assert_eq!(
        ran.failed(),
        "Error: worker1 is active again: somebody took its drain back\n\
         The tasks that are left stay on it. Drain it again: swarmctl node drain worker1\n"
    );
}

#[test]
fn nobody_sees_what_runs_on_a_node_that_is_down() {
    let unseen = task(1, 1, "running", "its node is down");
    let fake = draining([json!([unseen, task(2, 2, "running", "")]), json!([unseen])]);
    fake.on_json("GET /nodes/n1", &node("drain", "down"));
    assert_eq!(
        fake.run(&["node", "drain", "--wait", "worker1"]).ok(),
        "worker1: 1 task left\n\
         worker1: the node is down; its tasks are started elsewhere, and what still runs on it nobody can see\n"
    );
}
