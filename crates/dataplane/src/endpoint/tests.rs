//! Tests of endpoints.

use super::*;

fn endpoint(voice: &Voice) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(TaskId(1), Arc::new(Drains::new(voice.clone()))))
}

#[test]
fn a_closed_endpoint_begins_nothing_and_keeps_what_it_has() {
    let endpoint = endpoint(&Voice::default());
    assert!(endpoint.begin().is_none());
    assert!(endpoint.stand(Standing::Open));
    assert!(!endpoint.stand(Standing::Open));
    let (one, linked) = (endpoint.begin().unwrap(), endpoint.begin_linked());
    one.connected();
    linked.connected();
    endpoint.stand(Standing::Closed);
    assert!(endpoint.begin().is_none());
    assert_eq!(endpoint.stats(None).unwrap().connections, 1);
    assert_eq!(endpoint.stats(None).unwrap().connections_total, 1);
    drop((one, linked));
    assert_eq!(endpoint.stats(None).unwrap().connections, 0);
}

#[test]
fn drained_is_said_once_for_each_time_that_it_becomes_true() {
    let voice = Voice::default();
    let mut said = voice.turn_to(FromData::Refused { reason: String::new() });
    let endpoint = endpoint(&voice);
    endpoint.stand(Standing::Open);
    let lease = endpoint.begin();
    endpoint.stand(Standing::Draining);
    endpoint.stand(Standing::Draining);
    drop(lease);
    endpoint.stand(Standing::Draining);
    drop(endpoint.begin_linked());
    endpoint.drains.repeat();
    let heard: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).skip(1).collect();
    let (drained, in_use) = (FromData::Drained(TaskId(1)), FromData::InUse(TaskId(1)));
    assert_eq!(heard, [drained.clone(), in_use, drained.clone(), drained]);
}
