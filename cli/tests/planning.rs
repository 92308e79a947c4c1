//! `service plan`: what is asked, what is shown, and the exit codes.

mod support;

use serde_json::{Value, json};
use support::{Fake, Reply, recorded};

fn plan(changes: bool, fits: bool, waves: Value) -> Value {
    json!({"Subject": "web", "Version": {"Index": 26}, "Changes": changes, "Fits": fits, "Waves": waves,
        "EndsAfter": 15_000_000_007_u64, "UpdateState": "completed"})
}

fn with_web() -> (Fake, Value) {
    let fake = Fake::start();
    let service = recorded("service_inspect");
    fake.on_json("GET /services/web", &service);
    (fake, service)
}

#[test]
fn an_update_is_planned_with_the_flags_of_update() {
    let (fake, service) = with_web();
    let waves = json!([
        {"After": 0, "Steps": [{"Action": "move", "Task": "web.1", "From": "n1", "To": "n2"},
            {"Action": "stop", "Task": "web.2", "From": "n1"}, {"Action": "drop", "Task": "web.4"}]},
        {"After": 10_000_000_003_u64, "Steps": [{"Action": "start", "Task": "web.3", "To": "n3"}]},
    ]);
    fake.on_json("POST /swarmd/plan", &plan(true, true, waves));
    let ran = fake.run(&["service", "plan", "update", "--replicas", "7", "web"]);
    assert_eq!((ran.code, &*ran.stderr), (Some(1), ""));
    assert_eq!(
        ran.stdout,
        "\
Changes of the spec
  ~ Mode.Replicated.Replicas: 2 -> 7

WAVE      AFTER     ACTION    TASK      FROM      TO
1         0s        move      web.1     n1        n2
                    stop      web.2     n1
                    drop      web.4
2         10s       start     web.3               n3

2 waves, done after 15s at the earliest: 1 started, 1 moved, 1 stopped, 1 no longer waiting.

With --check-version 26 the change itself refuses if a service or a node changes before it.
"
    );
    let mut spec = service["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = json!(7);
    let asked = &fake.seen("POST /swarmd/plan")[0].body;
    assert_eq!(asked, &json!({"Kind": "update", "Service": service["ID"], "Spec": spec}));

    fake.run(&["service", "plan", "scale", "web=7"]);
    assert_eq!(&fake.seen("POST /swarmd/plan")[1].body, asked);
    fake.run(&["service", "plan", "rollback", "--to", "3", "web"]);
    assert_eq!(fake.seen("POST /swarmd/plan")[2].body, json!({"Kind": "rollback", "Service": "web", "To": 3}));
    fake.run(&["service", "plan", "drain", "n1"]);
    assert_eq!(fake.seen("POST /swarmd/plan")[3].body, json!({"Kind": "drain", "Node": "n1", "Now": false}));
    fake.run(&["service", "plan", "create", "--no-resolve-image", "--name", "api", "x", "serve", "-v"]);
    let asked = &fake.seen("POST /swarmd/plan")[4].body;
    assert_eq!((&asked["Kind"], &asked["Spec"]["Name"]), (&json!("create"), &json!("api")));
    assert_eq!(asked["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"], json!(["serve", "-v"]));
}

#[test]
fn the_plan_of_a_rollback_names_what_it_changes() {
    let fake = Fake::start();
    let version = |number: u64, replicas: u64| {
        json!({"Number": number, "Current": number == 3, "Previous": number == 2,
            "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}}})
    };
    fake.on_json("POST /swarmd/plan", &plan(true, true, json!([])))
        .on_json("GET /swarmd/services/web/history", &json!([version(1, 5), version(2, 2), version(3, 4)]));
    for (line, replicas) in [(&["web"][..], 2), (&["--to", "1", "web"], 5)] {
        let page = fake.run(&[&["service", "plan", "rollback"], line].concat()).stdout;
        let changes = format!("Changes of the spec\n  ~ Mode.Replicated.Replicas: 4 -> {replicas}\n\n");
        assert!(page.starts_with(&changes), "{page}");
    }
}

#[test]
fn the_exit_code_is_the_answer() {
    let (fake, _) = with_web();
    let mut unfit = plan(true, false, json!([{"Steps": [{"Action": "wait", "Task": "web.2", "Reason": "no room"}]}]));
    unfit["Waiting"] = json!([{"Task": "web.2", "Reason": "no room"}]);
    unfit["Rejections"] =
        json!([{"Filter": "resources", "Asked": "2 CPUs", "Nodes": [{"Node": "n1", "Found": "1 free"}]}]);
    unfit["Fixes"] = json!(["add a node"]);
    fake.on(
        "POST /swarmd/plan",
        [
            Reply::json(&plan(false, true, json!([]))),
            Reply::json(&plan(true, true, json!([]))),
            Reply::json(&unfit),
            Reply::error(400, "service web has no version 9"),
            Reply::error(404, "service web not found"),
        ],
    );
    let line = ["service", "plan", "rollback", "web"];
    assert_eq!(fake.run(&line).ok(), "Nothing would change.\n");
    let ran = fake.run(&line);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.starts_with("No task would be touched.\n"), "{}", ran.stdout);
    let ran = fake.run(&line);
    assert_eq!(ran.code, Some(2));
    let part = "Tasks without a node in the end\nweb.2: no room\nNodes that cannot take web.2\n  resources: 2 \
                CPUs\n    n1    1 free\nWhat would help\n- add a node\n";
    assert!(ran.stdout.contains(part) && ran.stdout.contains("1 left waiting"), "{}", ran.stdout);
    let ran = fake.run(&line);
    assert_eq!((ran.code, &*ran.stderr), (Some(3), "Error: service web has no version 9\n"));
    let ran = fake.run(&line);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stderr.starts_with("Error: no such service: web\n"), "{}", ran.stderr);
}

#[test]
fn a_plan_says_what_changes_even_if_that_touches_no_task() {
    let (fake, _) = with_web();
    fake.on_json("POST /swarmd/plan", &plan(true, true, json!([])));
    let ran = fake.run(&["service", "plan", "update", "--label-add", "team=shop", "web"]);
    let head = "Changes of the spec\n  + Labels.team: shop\n\nNo task would be touched.\n";
    assert!(ran.stdout.starts_with(head), "{}", ran.stdout);
    let ran = fake.run(&["service", "plan", "scale", "web=7"]);
    assert!(ran.stdout.starts_with("Changes of the spec\n  ~ Mode.Replicated.Replicas: "), "{}", ran.stdout);
}

#[test]
fn what_stays_is_told_and_that_it_does_not_end() {
    let (fake, _) = with_web();
    let mut stuck = plan(
        true,
        false,
        json!([{"Steps": [{"Action": "wait", "Task": "pin.1", "To": "n3", "Reason": "no room"},
            {"Action": "wait", "Task": "api.1"}]}]),
    );
    stuck["UpdateState"] = json!("");
    stuck["Stuck"] = json!(true);
    stuck["Waiting"] = json!([{"Task": "pin.1", "Reason": "no room"}, {"Task": "api.1", "Reason": "no room"}]);
    stuck["Staying"] = json!([{"Task": "pin.1", "Node": "n3", "Reason": "no room"},
        {"Task": "pin.2", "Node": "n3", "Reason": "its turn does not come"}]);
    fake.on_json("POST /swarmd/plan", &stuck);
    let ran = fake.run(&["service", "plan", "drain", "n3"]);
    assert_eq!(ran.code, Some(2));
    let head = "\
WAVE      AFTER     ACTION    TASK      FROM      TO
1         0s        wait      pin.1
                    wait      api.1

1 wave, does not end until there is room: 1 left waiting, 2 stay.

Tasks that stay as they are
pin.1 on n3: no room
pin.2 on n3: its turn does not come

Tasks without a node in the end
api.1: no room
";
    assert!(ran.stdout.starts_with(head), "{}", ran.stdout);

    for (state, told) in [
        ("updating", "its update goes on"),
        ("paused", "its update is then paused"),
        ("rollback_started", "its rollback goes on"),
        ("rollback_paused", "its rollback is then paused"),
    ] {
        stuck["UpdateState"] = json!(state);
        fake.on_json("POST /swarmd/plan", &stuck);
        let page = fake.run(&["service", "plan", "drain", "n3"]).stdout;
        assert!(page.contains(&format!("1 left waiting, 2 stay; {told}.")), "{page}");
    }

    // It is to be known of a node that is drained already as well.
    stuck["UpdateState"] = json!("");
    stuck["Waves"] = json!([]);
    stuck["Waiting"] = json!([]);
    stuck["Changes"] = json!(false);
    fake.on_json("POST /swarmd/plan", &stuck);
    let ran = fake.run(&["service", "plan", "drain", "n3"]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stdout.starts_with("Nothing would change.\n\nTasks that stay as they are\npin.1 on n3: "),
        "{}",
        ran.stdout
    );
    stuck["Changes"] = json!(true);
    fake.on_json("POST /swarmd/plan", &stuck);
    let head =
        "No task would be touched, does not end as things are: 2 stay.\n\nTasks that stay as they are\npin.1 on n3: ";
    let ran = fake.run(&["service", "plan", "drain", "n3"]);
    assert!(ran.stdout.starts_with(head), "{}", ran.stdout);
}

#[test]
fn a_rollback_that_is_to_come_is_told() {
    let (fake, _) = with_web();
    let mut plan = plan(true, false, json!([{"Steps": [{"Action": "wait", "Task": "web.1", "Reason": "no room"}]}]));
    plan["UpdateState"] = json!("rollback_completed");
    plan["RolledBack"] = json!({"Reason": "task web.1, which did not run before its deadline",
        "Waiting": [{"Task": "web.1", "Reason": "no room"}]});
    plan["Rejections"] =
        json!([{"Filter": "resources", "Asked": "2 CPUs", "Nodes": [{"Node": "n1", "Found": "1 free"}]}]);
    fake.on_json("POST /swarmd/plan", &plan);
    let ran = fake.run(&["service", "plan", "rollback", "web"]);
    assert_eq!(ran.code, Some(2));
    let part = "\
1 wave, done after 15s at the earliest: 1 waiting in between; its update is rolled back due to task web.1, which did not \
                run before its deadline.

Tasks without a node until the rollback
web.1: no room
Nodes that cannot take web.1
  resources: 2 CPUs
    n1    1 free
";
    assert!(ran.stdout.contains(part), "{}", ran.stdout);
}

#[test]
fn a_plan_can_be_read_by_programs() {
    let (fake, _) = with_web();
    let plan = plan(true, true, json!([]));
    fake.on_json("POST /swarmd/plan", &plan);
    let ran = fake.run(&["service", "plan", "drain", "--format", "json", "n1"]);
    assert_eq!((ran.code, serde_json::from_str::<Value>(&ran.stdout).ok()), (Some(1), Some(plan)));
    assert_eq!(fake.run(&["service", "plan", "update", "--format", "{{.Fits}}", "web"]).stdout, "true\n");
}

/// 2 says that a task finds no node: a script must not take a slip of its own for that.
#[test]
fn a_command_line_that_cannot_be_read_is_no_plan() {
    let fake = Fake::start();
    for line in [&["service", "plan", "scale", "web=-1"][..], &["service", "plan", "update", "--imagee", "x", "web"]] {
        assert_eq!(fake.run(line).code, Some(3), "{line:?}");
    }
    assert_eq!(fake.run(&["service", "scale", "web=-1"]).code, Some(2));
}
