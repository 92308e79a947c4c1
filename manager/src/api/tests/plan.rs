//! Plans, as clients get them.

use super::{rollout::settle, *};

async fn plan(plane: &TestPlane, request: &Value) -> Value {
    let before = plane.state().revision();
    let answer = post(plane, "/swarmd/plan", request).await.ok().json();
    assert_eq!(plane.state().revision(), before, "a plan changes nothing");
    answer
}

/// The steps of all waves, `after: action task from>to`.
fn steps(plan: &Value) -> Vec<String> {
    let waves = plan["Waves"].as_array().expect("a list").iter();
    let of_wave = |wave: &Value| -> Vec<String> {
        let text = |step: &Value, field: &str| step[field].as_str().unwrap_or("-").to_owned();
        let after = wave["After"].as_i64().expect("a number") / 1_000_000_000;
        let one = |step: &Value| {
            let (action, task) = (text(step, "Action"), text(step, "Task"));
            format!("{after}: {action} {task} {}>{}", text(step, "From"), text(step, "To"))
        };
        wave["Steps"].as_array().expect("a list").iter().map(one).collect()
    };
    waves.flat_map(of_wave).collect()
}

#[tokio::test]
async fn a_plan_tells_what_then_happens() {
    let plane = cluster();
    let mut spec = plain("web");
    spec["UpdateConfig"] = json!({"Parallelism": 1, "Delay": 10_000_000_000_u64});
    let made = plan(&plane, &json!({"Kind": "create", "Spec": spec})).await;
    assert_eq!(steps(&made), ["0: start web.1 ->alpha", "0: start web.2 ->beta"]);
    assert_eq!((&made["Changes"], &made["Fits"], &made["Subject"]), (&json!(true), &json!(true), &json!("web")));
    post(&plane, "/services/create", &spec).await.ok();
    settle(&plane);

    let view = get(&plane, "/services/web").await.ok().json();
    let same = plan(&plane, &json!({"Kind": "update", "Service": "web", "Spec": view["Spec"]})).await;
    assert_eq!((&same["Changes"], steps(&same).len()), (&json!(false), 0));
    assert_eq!(same["Version"], view["Version"]);

    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:2");
    let update = plan(&plane, &json!({"Kind": "update", "Service": "web", "Spec": spec})).await;
    assert_eq!(steps(&update), ["0: replace web.1 alpha>alpha", "10: replace web.2 beta>beta"]);
    assert_eq!(update["UpdateState"], "completed");

    let scale = plan(&plane, &json!({"Kind": "scale", "Service": "web", "Replicas": 1})).await;
    assert_eq!(steps(&scale), ["0: stop web.2 beta>-"]);
    let drain = plan(&plane, &json!({"Kind": "drain", "Node": "beta"})).await;
    assert_eq!(steps(&drain), ["0: move web.2 beta>alpha"]);
    assert_eq!(drain["Subject"], "beta");
}

#[tokio::test]
async fn what_does_not_fit_is_told_with_its_reason() {
    let plane = cluster();
    let mut spec = plain("web");
    spec["TaskTemplate"]["Resources"] = json!({"Reservations": {"NanoCPUs": 1_500_000_000_u64}});
    spec["Mode"] = json!({"Replicated": {"Replicas": 3}});
    let made = plan(&plane, &json!({"Kind": "create", "Spec": spec})).await;
    assert_eq!((&made["Fits"], &made["Waiting"][0]["Task"]), (&json!(false), &json!("web.3")));
    assert_eq!(made["Rejections"][0]["Nodes"][0]["Found"], "0.5 free of 2");
    // The service does not exist: there is nothing to update.
    assert_eq!(made["Fixes"], json!(["free 1 CPU on alpha, or make it with `--reserve-cpu 0.5`"]));
    spec["TaskTemplate"] = plain("web")["TaskTemplate"].clone();
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.hostname==gamma"]});
    let made = plan(&plane, &json!({"Kind": "create", "Spec": spec})).await;
    assert_eq!(made["Fixes"][0], "leave out `--constraint 'node.hostname==gamma'`");
    post(&plane, "/services/create", &spec).await.ok();
    settle(&plane);
    let made = plan(&plane, &json!({"Kind": "scale", "Service": "web", "Replicas": 4})).await;
    assert_eq!(made["Fixes"][0], "`swarmctl service update --constraint-rm 'node.hostname==gamma' web`");
}

#[tokio::test]
async fn what_stays_on_a_drained_node_is_told() {
    let plane = cluster();
    let mut spec = plain("pin");
    spec["UpdateConfig"] = json!({"Parallelism": 1});
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.hostname==beta"]});
    post(&plane, "/services/create", &spec).await.ok();
    settle(&plane);
    let drain = plan(&plane, &json!({"Kind": "drain", "Node": "beta"})).await;
    assert_eq!((&drain["Stuck"], &drain["Fits"]), (&json!(true), &json!(false)));
    assert_eq!(drain["Staying"][0]["Reason"], drain["Waiting"][0]["Reason"]);
    let second =
        json!({"Task": "pin.2", "Node": "beta", "Reason": "its turn does not come while pin.1 waits for a node"});
    assert_eq!(drain["Staying"][1], second);
}

#[tokio::test]
async fn what_would_be_refused_is_refused() {
    let plane = cluster();
    create(&plane, "web").await;
    for (request, status, part) in [
        (json!({"Kind": "create", "Spec": plain("web")}), 409, "already exists"),
        (json!({"Kind": "create", "Spec": {"Name": "a b"}}), 400, "a b"),
        (json!({"Kind": "update", "Service": "web", "Spec": plain("api")}), 501, "renaming"),
        (json!({"Kind": "scale", "Service": "nope", "Replicas": 1}), 404, "nope"),
        (json!({"Kind": "scale", "Service": "web", "Replicas": 900_000}), 400, "900000"),
        (json!({"Kind": "rollback", "Service": "web"}), 400, "previous spec"),
        (json!({"Kind": "rollback", "Service": "web", "To": 4}), 400, "no version 4"),
        (json!({"Kind": "drain", "Node": "gamma"}), 404, "gamma"),
        (json!({"Kind": "explode"}), 400, "explode"),
        (json!([]), 400, ""),
    ] {
        let message = post(&plane, "/swarmd/plan", &request).await.error(status);
        assert!(message.contains(part), "{request}: {message}");
    }
}
