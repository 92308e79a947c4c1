//! Reads that need no majority, and the page of the managers.

use super::*;

fn silent() -> PlaneError {
    PlaneError::NoMajority { silent: vec!["10.0.0.2:2377".into(), "10.0.0.3:2377".into()], voters: 3, unknown: false }
}

async fn head(plane: &TestPlane, path: &str) -> (u16, String, String) {
    let request = Request::get(path).extension(Caller::new(alice())).body(Body::empty()).expect("a request");
    let response = routes(plane.clone()).oneshot(request).await.expect("a router always answers");
    let header = |name: &str| response.headers().get(name).map_or("", |v| v.to_str().expect("text")).to_owned();
    (response.status().as_u16(), header("x-swarmd-revision"), header("x-swarmd-leader-contact-ms"))
}

#[tokio::test]
async fn stale_reads_need_no_majority_and_say_how_old_they_are() {
    let plane = cluster();
    plane.inner().unread = Some(silent());
    let message = get(&plane, "/nodes").await.error(503);
    for part in ["2 of the 3 managers", "10.0.0.3:2377", "--consistency stale", "--force-new-cluster", "swarm restore"]
    {
        assert!(message.contains(part), "{message}");
    }
    let revision = plane.state().revision().to_string();
    for path in ["/nodes", "/nodes/beta", "/services", "/tasks", "/swarm"] {
        let stale = head(&plane, &format!("{path}?consistency=stale")).await;
        assert_eq!(stale, (200, revision.clone(), "1500".to_owned()), "{path}");
    }
    assert_eq!(head(&plane, "/nodes/none?consistency=stale").await.0, 404);
    plane.inner().unread = None;
    assert_eq!(head(&plane, "/nodes?consistency=linearizable").await, (200, String::new(), String::new()));
}

#[tokio::test]
async fn nothing_is_changed_by_a_stale_request() {
    let plane = cluster();
    let message = post(&plane, "/services/create?consistency=stale", &plain("web")).await.error(400);
    assert!(message.contains("for reads"), "{message}");
    assert_eq!(plane.state().services().count(), 0);
    assert!(get(&plane, "/nodes?consistency=eventual").await.error(400).contains("\"eventual\""));
}

#[tokio::test]
async fn the_managers_page_says_what_to_worry_about() {
    let plane = cluster();
    plane.inner().unread = Some(silent());
    let page = get(&plane, "/swarmd/managers").await.ok().json();
    let manager = &page["Managers"][0];
    assert_eq!((&manager["AppliedIndex"], &manager["ClockSkewMs"]), (&json!(9), &json!(-1500)));
    assert_eq!((&page["SnapshotBytes"], &manager["Reachability"]), (&json!(77), &json!("reachable")));
    assert_eq!((&page["FeatureLevel"], &manager["FeatureLevel"]), (&json!(2), &json!(1)));
    let warnings = page["Warnings"].to_string();
    for part in ["the clock of the manager at", "nearly full (50MiB free)", "there is one manager"] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}
