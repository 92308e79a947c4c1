//! Tests of the choice among endpoints.

use super::*;
use crate::{
    endpoint::{Drains, Standing},
    voice::Voice,
};

fn route(count: u128) -> Route {
    let drains = Arc::new(Drains::new(Voice::default()));
    let mut candidates = Candidates::default();
    for id in 1..=count {
        let endpoint = Arc::new(Endpoint::new(TaskId(id), Arc::clone(&drains)));
        endpoint.stand(Standing::Open);
        candidates.put(Candidate { endpoint, way: Way::Remote(NodeId(1)) });
    }
    let port = PublishedPort { protocol: PortProtocol::Tcp, published: 80, target: 80 };
    Route { port, candidates, source: IngressSource::Client, is_published: true }
}

#[test]
fn ten_thousand_connections_are_even_to_within_a_tenth_however_long_they_last() {
    for is_kept in [false, true] {
        let route = route(10);
        let mut kept = Vec::new();
        for _ in 0..10_000 {
            let chosen = route.choose(&[]).unwrap();
            if is_kept {
                kept.push(chosen);
            }
        }
        let turns: Vec<_> = route.candidates.iter().map(|candidate| candidate.endpoint.turns()).collect();
        assert!(turns.iter().all(|turns| (900..=1100).contains(turns)), "{turns:?}");
    }
}

#[test]
fn each_endpoint_is_chosen_at_most_once_among_those_not_tried() {
    let route = route(5);
    let mut tried = Vec::new();
    while let Some(chosen) = route.choose(&tried) {
        assert!(!tried.contains(&chosen.lease.task()));
        tried.push(chosen.lease.task());
    }
    assert_eq!(tried.len(), 5);
    assert!(!route.has_other_than(&tried));
}

#[test]
fn closed_endpoints_are_passed_over() {
    let route = route(4);
    for candidate in route.candidates.iter().take(3) {
        candidate.endpoint.stand(Standing::Closed);
    }
    for _ in 0..100 {
        assert_eq!(route.choose(&[]).unwrap().lease.task(), TaskId(4));
    }
    route.candidates.get(3).unwrap().endpoint.stand(Standing::Draining);
    assert!(route.choose(&[]).is_none());
    assert!(!route.has_other_than(&[]));
}
