//! Services that name secrets and configs.

use swarm_model::ObjectKind;

use super::*;

/// Makes a secret or a config, and returns its id.
async fn add(plane: &TestPlane, kind: &str, name: &str) -> String {
    let answer = post(plane, &format!("/{kind}s/create"), &json!({"Name": name, "Data": "eA=="})).await.ok();
    answer.json()["ID"].as_str().expect("an id").to_owned()
}

fn secret(id: &str, name: &str) -> Value {
    json!({"File": {"Name": name, "UID": "0", "GID": "0", "Mode": 292}, "SecretID": id, "SecretName": name})
}

fn config(id: &str, name: &str) -> Value {
    json!({"File": {"Name": "/cfg/one", "UID": "7", "GID": "7", "Mode": 256}, "ConfigID": id, "ConfigName": name})
}

/// A service with these lists.
fn using(secrets: Value, configs: Value) -> Value {
    let mut spec = plain("web");
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = secrets;
    spec["TaskTemplate"]["ContainerSpec"]["Configs"] = configs;
    spec
}

/// Get, modify, put.
async fn update(plane: &TestPlane, change: impl FnOnce(&mut Value)) -> Answer {
    let mut view = get(plane, "/services/web").await.ok().json();
    change(&mut view["Spec"]);
    post(plane, &format!("/services/web/update?version={}", view["Version"]["Index"]), &view["Spec"]).await
}

#[tokio::test]
async fn a_service_names_its_objects_and_shows_them_as_they_came() {
    let plane = cluster();
    let (key, site) = (add(&plane, "secret", "key").await, add(&plane, "config", "site").await);
    let spec = using(json!([secret(&key, "key")]), json!([config(&site, "site")]));
    post(&plane, "/services/create", &spec).await.ok();
    let shown = get(&plane, "/services/web").await.ok().json();
    let container = &shown["Spec"]["TaskTemplate"]["ContainerSpec"];
    assert_eq!(
        (&container["Secrets"], &container["Configs"]),
        (&json!([secret(&key, "key")]), &json!([config(&site, "site")]))
    );
    assert_eq!(get(&plane, "/configs/site?services=1").await.json()["Services"], json!(["web"]));
    // The objects can be removed once the service names them no longer.
    update(&plane, |spec| spec["TaskTemplate"]["ContainerSpec"]["Configs"] = json!([])).await.ok();
    delete(&plane, "/configs/site").await.ok();
    assert_eq!(delete(&plane, "/secrets/key").await.status, 400);
}

#[tokio::test]
async fn an_id_and_a_name_belong_to_one_object_that_is_there() {
    let plane = cluster();
    let (key, other) = (add(&plane, "secret", "key").await, add(&plane, "secret", "other").await);
    let site = add(&plane, "config", "site").await;
    let none = json!([]);
    plane.inner().proposed.clear();
    for (spec, expected) in [
        (using(json!([secret("nope", "nope")]), none.clone()), "secret not found: nope".to_owned()),
        // An id that could be one, and that of another kind.
        (using(json!([secret(&site, "site")]), none.clone()), "secret not found: site".into()),
        (using(none.clone(), json!([config(&key, "key")])), "config not found: key".into()),
        (
            using(json!([secret(&key, "other")]), none.clone()),
            format!("secret not found: other (the id {key} is that of secret 'key')"),
        ),
        (
            using(json!([secret(&key, "KEY")]), none.clone()),
            format!("secret not found: KEY (the id {key} is that of secret 'key')"),
        ),
        (
            using(json!([secret("a", "a"), secret(&other, "other"), secret("b", "b")]), json!([config("c", "c")])),
            "secrets not found: a, b".into(),
        ),
        (
            using(json!([secret(&key, "key"), secret(&key, "key")]), none.clone()),
            "secret references 'key' and 'key' have a conflicting target: 'key'".into(),
        ),
    ] {
        assert_eq!(post(&plane, "/services/create", &spec).await.error(400), expected);
        let planned = post(&plane, "/swarmd/plan", &json!({"Kind": "create", "Spec": spec})).await.error(400);
        assert_eq!(planned, expected);
    }
    assert!(plane.inner().proposed.is_empty());
    post(&plane, "/services/create", &using(json!([secret(&key, "key")]), none)).await.ok();
    let error =
        update(&plane, |spec| spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([secret(&key, "x")])).await;
    assert_eq!(error.error(400), format!("secret not found: x (the id {key} is that of secret 'key')"));
}

#[tokio::test]
async fn an_object_that_went_keeps_no_update_from_the_service_that_names_it() {
    let plane = cluster();
    let key = add(&plane, "secret", "key").await;
    let secrets = |spec: &mut Value, secrets| spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = secrets;
    post(&plane, "/services/create", &using(json!([secret(&key, "key")]), json!([]))).await.ok();
    update(&plane, |spec| secrets(spec, json!([]))).await.ok();
    delete(&plane, "/secrets/key").await.ok();
    // Back to the spec that names it.
    let version = &get(&plane, "/services/web").await.json()["Version"]["Index"];
    post(&plane, &format!("/services/web/update?version={version}&rollback=previous"), &json!({})).await.ok();
    assert!(plane.state().objects(ObjectKind::Secret).next().is_none());
    update(&plane, |spec| spec["Labels"]["a"] = json!("b")).await.ok();
    let mut moved = secret(&key, "key");
    moved["File"]["Name"] = json!("elsewhere");
    update(&plane, |spec| secrets(spec, json!([moved]))).await.ok();
    let error = update(&plane, |spec| secrets(spec, json!([secret(&key, "key"), secret("x", "x")]))).await.error(400);
    assert_eq!(error, "secret not found: x");
    update(&plane, |spec| secrets(spec, json!([]))).await.ok();
    let error = update(&plane, |spec| secrets(spec, json!([secret(&key, "key")]))).await.error(400);
    assert_eq!(error, "secret not found: key");
}
