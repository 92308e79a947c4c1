//! Tests of the choice among endpoints.

use super::*;
use crate::{
    endpoint::{Drains, Standing},
    voice::Voice,
};

/// The client where it does not matter.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn route(count: u128) -> Route {
    let drains = Arc::new(Drains::new(Voice::default()));
    let mut candidates = Candidates::default();
    for id in 1..=count {
        let endpoint = Arc::new(Endpoint::new(TaskId(id), Arc::clone(&drains)));
        endpoint.stand(Standing::Open);
        candidates.put(Candidate { endpoint, way: Way::Remote(NodeId(1)) });
    }
    let (locals, ingress, limits) = Default::default();
    let port = PublishedPort { protocol: PortProtocol::Tcp, published: 80, target: 80 };
    Route { port, candidates, locals, ingress, limits, is_published: true }
}

#[test]
fn ten_thousand_connections_are_even_to_within_a_tenth_however_long_they_last() {
    for is_kept in [false, true] {
        let route = route(10);
        let mut kept = Vec::new();
        for _ in 0..10_000 {
            let chosen = route.choose(CLIENT, &[]).unwrap();
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
    while let Some(chosen) = route.choose(CLIENT, &tried) {
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
        assert_eq!(route.choose(CLIENT, &[]).unwrap().lease.task(), TaskId(4));
    }
    route.candidates.get(3).unwrap().endpoint.stand(Standing::Draining);
    assert!(route.choose(CLIENT, &[]).is_none());
    assert!(!route.has_other_than(&[]));
}

/// The same route with other wishes of the service, and the first of its tasks on this node.
fn with(route: Route, choice: IngressChoice, has_affinity: bool, locals_count: usize) -> Route {
    let mut locals = Candidates::default();
    route.candidates.iter().take(locals_count).for_each(|candidate| locals.put(candidate.clone()));
    Route { locals, ingress: Arc::new(Ingress { choice, has_affinity, ..Ingress::default() }), ..route }
}

fn chosen(route: &Route, client: u32) -> Option<TaskId> {
    route.choose(IpAddr::from(client.to_be_bytes()), &[]).map(|chosen| chosen.lease.task())
}

#[test]
fn a_task_of_this_node_is_preferred_while_it_is_open() {
    for has_affinity in [false, true] {
        let preferring = with(route(4), IngressChoice::PreferLocal, has_affinity, 2);
        let only = with(preferring.clone(), IngressChoice::OnlyLocal, has_affinity, 2);
        assert!((0..100).all(|client| chosen(&preferring, client) <= Some(TaskId(2))));
        for candidate in preferring.locals.iter() {
            candidate.endpoint.stand(Standing::Closed);
        }
        assert!((0..100).all(|client| chosen(&preferring, client) > Some(TaskId(2))));
        assert!((0..100).all(|client| chosen(&only, client).is_none()));
        assert!(preferring.has_other_than(&[]) && !only.has_other_than(&[]));
        assert!(only.is_for_this_node() && !with(only, IngressChoice::OnlyLocal, has_affinity, 0).is_for_this_node());
    }
}

#[test]
fn a_client_keeps_its_task_and_moves_only_when_the_task_goes() {
    let route = with(route(5), IngressChoice::Any, true, 0);
    let clients = 0..1_000;
    let before: Vec<_> = clients.clone().map(|client| chosen(&route, client).unwrap()).collect();
    assert!(clients.clone().map(|client| chosen(&route, client).unwrap()).eq(before.iter().copied()));
    for task in (1..=5).map(TaskId) {
        assert!((100..300).contains(&before.iter().filter(|chosen| **chosen == task).count()), "task {task}");
    }
    // The same client as an IPv6 socket shows it.
    let mapped = IpAddr::V6(std::net::Ipv4Addr::from(7_u32.to_be_bytes()).to_ipv6_mapped());
    assert_eq!(route.choose(mapped, &[]).unwrap().lease.task(), before[7]);
    let gone = TaskId(3);
    let going = route.candidates.iter().find(|candidate| candidate.endpoint.task == gone).unwrap();
    going.endpoint.stand(Standing::Draining);
    for (client, before) in clients.clone().zip(&before) {
        let now = chosen(&route, client).unwrap();
        assert!(if *before == gone { now != gone } else { now == *before }, "client {client}: {before} and {now}");
    }
    going.endpoint.stand(Standing::Open);
    assert!(clients.map(|client| chosen(&route, client).unwrap()).eq(before));
}
