//! Authors of changes, and the notes on their calls.

use axum::http::Method;

use super::*;

/// The notes on a call, and the author of its transaction.
async fn noted(plane: &TestPlane, request: Request<Body>) -> (Option<String>, Option<u64>, Option<String>) {
    let caller = Caller::new(alice());
    plane.inner().authors.clear();
    send_as(plane, &caller, request).await;
    let by = plane.inner().authors.last().cloned().flatten().map(|author| author.to_string());
    (caller.object().map(str::to_owned), caller.revision(), by)
}

fn request(method: Method, path: &str, body: &Value) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    request.body(body.to_string().into()).expect("a request")
}

#[tokio::test]
async fn each_change_names_who_asked_for_it() {
    let plane = cluster();
    let by = || Some("user alice (1000) on alpha".to_owned());
    let next = |plane: &TestPlane| Some(plane.state().revision() + 1);
    let service = |plane: &TestPlane| plane.state().service_by_name("web").expect("a service").version;
    let (post, delete) = (Method::POST, Method::DELETE);

    let revision = next(&plane);
    let made = noted(&plane, request(post.clone(), "/services/create", &plain("web"))).await;
    assert_eq!(made, (Some("service web".into()), revision, by()));
    let mut changed = plain("web");
    changed["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:2");
    let node = plane.state().node(WORKER).expect("a node").version;
    for (path, body, object) in [
        (format!("/services/web/update?version={}", service(&plane)), changed.clone(), "service web"),
        ("/swarmd/services/web/rebalance".into(), Value::Null, "service web"),
        ("/secrets/create".into(), json!({"Name": "key", "Data": "czNjcjN0"}), "secret key"),
        ("/configs/create".into(), json!({"Name": "page", "Data": "czNjcjN0"}), "config page"),
        (format!("/nodes/beta/update?version={node}"), json!({"Role": "worker", "Availability": "pause"}), "node beta"),
    ] {
        let revision = next(&plane);
        let made = noted(&plane, request(post.clone(), &path, &body)).await;
        assert_eq!(made, (Some(object.into()), revision, by()), "{path}");
    }
    for (path, object) in [("/secrets/key", "secret key"), ("/services/web", "service web")] {
        let revision = next(&plane);
        let made = noted(&plane, request(delete.clone(), path, &Value::Null)).await;
        assert_eq!(made, (Some(object.into()), revision, by()), "{path}");
    }

    // A call that is refused has no revision.
    assert_eq!(noted(&plane, request(delete, "/services/web", &Value::Null)).await, (None, None, None));
    plane.inner().failure = Some(PlaneError::Unknown);
    let made = noted(&plane, request(post, "/services/create", &plain("api"))).await;
    assert_eq!(made, (Some("service api".into()), None, None));
}

#[tokio::test]
async fn the_history_says_who_asked_for_a_version_and_who_went_back_to_it() {
    let plane = cluster();
    create(&plane, "web").await;
    let mut changed = plain("web");
    changed["TaskTemplate"]["ContainerSpec"]["Image"] = json!("hello:2");
    let version = |plane: &TestPlane| plane.state().service_by_name("web").expect("a service").version;
    let caller = Caller::new(Arc::new(Author::of(Principal::user(1001, Some("bob")))));
    let path = format!("/services/web/update?version={}", version(&plane));
    send_as(&plane, &caller, request(Method::POST, &path, &changed)).await.ok();
    let path = format!("/swarmd/services/web/rollback?to=1&version={}", version(&plane));
    let caller = Caller::new(Arc::new(Author::of(Principal::user(1002, None))));
    send_as(&plane, &caller, request(Method::POST, &path, &Value::Null)).await.ok();

    let history = get(&plane, "/swarmd/services/web/history").await.ok().json();
    let node = json!({"ID": MANAGER.to_string(), "Name": "alpha"});
    assert_eq!(history[0]["By"], json!({"Kind": "user", "Name": "alice", "ID": "1000", "Node": node}));
    assert_eq!(history[0]["RestoredBy"], json!({"Kind": "user", "ID": "1002"}));
    assert!(history[0]["RestoredAt"].is_string());
    assert_eq!(history[1]["By"], json!({"Kind": "user", "Name": "bob", "ID": "1001"}));
    assert_eq!(history[1].get("RestoredBy"), None);
    // Docker's clients see nothing of it.
    assert!(!get(&plane, "/services/web").await.ok().json().to_string().contains("alice"));
}

#[tokio::test]
async fn no_route_answers_a_call_of_nobody() {
    let plane = cluster();
    create(&plane, "web").await;
    let before = plane.inner().proposals;
    for (method, path) in [
        ("GET", "/swarm"),
        ("POST", "/swarm/update?version=1"),
        ("GET", "/swarm/unlockkey"),
        ("GET", "/nodes"),
        ("GET", "/nodes/beta"),
        ("DELETE", "/nodes/beta"),
        ("POST", "/nodes/beta/update?version=1"),
        ("GET", "/services"),
        ("GET", "/services?consistency=stale"),
        ("POST", "/services/create"),
        ("GET", "/services/web"),
        ("DELETE", "/services/web"),
        ("POST", "/services/web/update?version=1"),
        ("GET", "/services/web/logs?stdout=1"),
        ("POST", "/swarmd/services/web/rebalance"),
        ("GET", "/swarmd/managers"),
        ("POST", "/swarmd/backup"),
        ("POST", "/swarmd/transfer"),
        ("GET", "/tasks"),
        ("GET", "/tasks/x"),
        ("GET", "/tasks/x/logs"),
        ("GET", "/swarmd/services/web/history"),
        ("POST", "/swarmd/services/web/rollback"),
        ("POST", "/swarmd/plan"),
        ("GET", "/swarmd/services/web/why"),
        ("GET", "/swarmd/tasks/x/why"),
        ("GET", "/secrets"),
        ("POST", "/secrets/create"),
        ("DELETE", "/secrets/x"),
        ("POST", "/configs/x/update"),
        ("PUT", "/services"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        let response: Response<Body> = routes(plane.clone()).oneshot(request).await.expect("a router always answers");
        assert_eq!(response.status().as_u16(), 500, "{method} {path}");
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("past the place that authorises calls"), "{method} {path}: {text}");
    }
    assert_eq!(plane.inner().proposals, before);
}
