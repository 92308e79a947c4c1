//! History, and rollback to a part of it.

use super::*;

async fn update(plane: &TestPlane, id: &str, image: &str) {
    let mut view = get(plane, &format!("/services/{id}")).await.ok().json();
    view["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
    post(plane, &format!("/services/{id}/update?version={}", view["Version"]["Index"]), &view["Spec"]).await.ok();
}

async fn version(plane: &TestPlane) -> Value {
    get(plane, "/services/web").await.ok().json()["Version"]["Index"].clone()
}

async fn roll_back(plane: &TestPlane, version: &Value, to: &str) -> Answer {
    post(plane, &format!("/swarmd/services/web/rollback?version={version}&to={to}"), &Value::Null).await
}

#[tokio::test]
async fn a_service_goes_back_to_a_part_of_its_history() {
    let plane = cluster();
    let mut spec = plain("web");
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:1");
    let request = Request::post("/services/create")
        .header(CONTENT_TYPE, "application/json")
        .header("x-registry-auth", "eyJ1c2VybmFtZSI6InNlY3JldCJ9");
    let id = send(&plane, request.body(spec.to_string().into()).expect("a request")).await.ok().json()["ID"].clone();
    let id = id.as_str().expect("an id");
    for image in ["hello:2", "hello:3", "hello:3"] {
        update(&plane, id, image).await;
    }
    let history = get(&plane, "/swarmd/services/web/history").await.ok();
    assert!(!String::from_utf8_lossy(&history.body).contains("eyJ1"), "credentials are not shown");
    let history = history.json();
    let shown = |history: &Value| -> Vec<String> {
        let revisions = history.as_array().expect("a list").iter();
        let one = |r: &Value| {
            let image = &r["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
            format!("{} {} {image} {} {}", r["Number"], r["Base"], r["Current"], r["Previous"])
        };
        revisions.map(one).collect()
    };
    assert_eq!(
        shown(&history),
        [r#"1 null "hello:1" null null"#, r#"2 1 "hello:2" null true"#, r#"3 2 "hello:3" true null"#]
    );

    let before = version(&plane).await;
    roll_back(&plane, &before, "1").await.ok();
    let view = get(&plane, "/services/web").await.ok().json();
    assert_eq!(view["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], "hello:1");
    assert_eq!(view["UpdateStatus"]["State"], "rollback_started");
    let history = get(&plane, "/swarmd/services/web/history").await.ok().json();
    assert_eq!(shown(&history)[0], r#"1 null "hello:1" true null"#);

    let now = version(&plane).await;
    assert!(roll_back(&plane, &before, "2").await.error(500).contains("out of sequence"));
    assert!(roll_back(&plane, &now, "9").await.error(400).contains("has no version 9; kept are 1, 2, 3"));
    assert!(roll_back(&plane, &now, "1").await.error(400).contains("is at version 1 already"));
    assert!(roll_back(&plane, &now, "x").await.error(400).contains("'x'"));
    assert!(roll_back(&plane, &json!(-1), "1").await.error(400).contains("version"));
    assert!(get(&plane, "/swarmd/services/nope/history").await.error(404).contains("nope"));
}
