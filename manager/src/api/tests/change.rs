//! Which state a change rests on, and what is done again.

use super::*;

/// How often others were asked during some work.
async fn reads<T>(plane: &TestPlane, work: impl Future<Output = T>) -> (T, usize) {
    let before = plane.inner().reads;
    let done = work.await;
    (done, plane.inner().reads - before)
}

fn is_there(plane: &TestPlane, name: &str) -> bool {
    plane.state().service_by_name(name).is_some()
}

#[tokio::test]
async fn a_leader_changes_what_it_knows_and_a_follower_asks_first() {
    let plane = cluster();
    let (id, asked) = reads(&plane, create(&plane, "web")).await;
    assert_eq!(asked, 0);
    let version = plane.state().service_by_name("web").expect("a service").version;
    let update = format!("/services/{id}/update?version={version}");
    assert_eq!(reads(&plane, post(&plane, &update, &plain("web"))).await.1, 0);
    plane.inner().leading = None;
    let (answer, asked) = reads(&plane, delete(&plane, "/services/web")).await;
    assert_eq!((answer.status, asked), (200, 1));
}

#[tokio::test]
async fn nothing_is_refused_for_what_one_manager_alone_believes() {
    let plane = cluster();
    let before = plane.state();
    create(&plane, "web").await;
    // It has not heard of the service.
    plane.inner().leading = Some((1, Some(before)));
    let (answer, asked) = reads(&plane, delete(&plane, "/services/web")).await;
    assert_eq!((answer.status, asked, is_there(&plane, "web")), (200, 1, false));
    // Others have not either.
    let (answer, asked) = reads(&plane, delete(&plane, "/services/web")).await;
    assert_eq!((answer.error(404).as_str(), asked), ("service web not found", 1));
}

#[tokio::test]
async fn what_falls_is_tried_again_on_the_newest_state() {
    let plane = cluster();
    create(&plane, "web").await;
    let before = plane.state();
    delete(&plane, "/services/web").await.ok();
    create(&plane, "web").await;
    // Under this name it knows the service that is gone.
    plane.inner().leading = Some((1, Some(before)));
    let (answer, asked) = reads(&plane, delete(&plane, "/services/web")).await;
    assert_eq!((answer.status, asked, is_there(&plane, "web")), (200, 1, false));
}

#[tokio::test]
async fn a_leader_of_the_past_asks_and_makes_one_service() {
    let plane = cluster();
    plane.inner().term = 2;
    let ((), asked) = reads(&plane, async { drop(create(&plane, "web").await) }).await;
    assert_eq!((asked, plane.state().services().count()), (1, 1));
}

#[tokio::test]
async fn what_may_have_happened_is_not_repeated() {
    let plane = cluster();
    plane.inner().failure = Some(PlaneError::Unknown);
    let (answer, asked) = reads(&plane, post(&plane, "/services/create", &plain("web"))).await;
    assert_eq!((answer.status, asked, plane.inner().proposals), (500, 0, 1));
}
