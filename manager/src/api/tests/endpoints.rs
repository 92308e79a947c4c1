//! The endpoints of a service, with the answers of nodes.

use swarm_model::{DataAddress, IngressSource, NodeWarning, PortProtocol, WarnedPort, WarningCause};
use swarm_wire::{
    agent::Traffic,
    endpoints::{EndpointStats, ServiceStats},
};

use super::*;

/// A service that publishes a port, with a task that runs on each of the two nodes.
async fn serving() -> (TestPlane, ServiceId, [TaskId; 2]) {
    let plane = cluster();
    for (node, hostname) in [(MANAGER, "alpha"), (WORKER, "beta")] {
        let data_address = Some(DataAddress { addr: None, port: 7946 });
        let description = NodeDescription { hostname: hostname.into(), data_address, ..NodeDescription::default() };
        report_node(&plane, node, NodeState::Ready, Some(description));
    }
    let mut spec = plain("web");
    spec["EndpointSpec"] = json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]});
    let made = post(&plane, "/services/create", &spec).await.ok().json();
    let service = made["ID"].as_str().expect("an id");
    let tasks =
        [(1, MANAGER), (2, WORKER)].map(|(slot, node)| add_task(&plane, service, slot, node, TaskState::Running));
    (plane, service.parse().expect("an id"), tasks)
}

fn counted(task: TaskId, by: u64, source: Option<IngressSource>) -> EndpointStats {
    EndpointStats {
        task,
        connections: by,
        connections_total: 10 * by,
        bytes_in: 100 * by,
        bytes_out: 1000 * by,
        errors: by,
        source,
    }
}

#[tokio::test]
async fn counters_are_summed_over_nodes_and_a_silent_one_is_named() {
    let (plane, service, [one, two]) = serving().await;
    let refused = |by| ServiceStats { service, connections: 9, over_connections: by, over_rate: 0, bad_headers: 2 };
    let of_alpha = Traffic {
        // The table takes the source of a task from the task's own node, so the second source of alpha must not show.
        endpoints: vec![counted(one, 1, Some(IngressSource::Client)), counted(two, 3, Some(IngressSource::Proxy))],
        service: Some(refused(1)),
    };
    plane.inner().answers.push((MANAGER, NodeAnswer::Traffic(of_alpha.clone())));

    let view = get(&plane, "/swarmd/services/web/endpoints?stats=1").await.ok().json();
    let asked: Vec<_> = [MANAGER, WORKER].map(|node| (node, Question::Traffic(service))).into();
    assert_eq!(plane.inner().asked, asked);
    assert_eq!(view["Endpoints"][0]["Source"], "client");
    assert_eq!((&view["Endpoints"][1]["Source"], &view["Endpoints"][1]["State"]), (&Value::Null, &json!("in")));
    let silent = &view["Silent"];
    assert_eq!((&silent[0]["Node"], silent.as_array().map(Vec::len)), (&json!("beta"), Some(1)));
    assert_eq!(silent[0]["Reason"], "it has no session with the leader");

    let of_beta = Traffic { endpoints: vec![counted(two, 4, Some(IngressSource::Node))], service: Some(refused(5)) };
    plane.inner().answers.push((WORKER, NodeAnswer::Traffic(of_beta)));
    let view = get(&plane, "/swarmd/services/web/endpoints?stats=1").await.ok().json();
    assert_eq!(
        view["Endpoints"][1]["Stats"],
        json!({"Connections": 7, "ConnectionsTotal": 70, "BytesIn": 700, "BytesOut": 7000, "Errors": 7})
    );
    assert_eq!(view["Endpoints"][1]["Source"], "node");
    assert_eq!(view["Refused"], json!({"OverConnections": 6, "BadHeaders": 4}));
    assert_eq!(view["Silent"], Value::Null);
}

#[tokio::test]
async fn without_stats_the_nodes_of_the_tasks_alone_are_asked() {
    let (plane, service, [one, _]) = serving().await;
    plane.apply(vec![Op::ReportTasks {
        node: WORKER,
        reports: plane.state().tasks_of_node(WORKER).map(|task| (task.id, ended())).collect(),
    }]);
    let traffic = Traffic { endpoints: vec![counted(one, 1, Some(IngressSource::Client))], service: None };
    plane.inner().answers.push((MANAGER, NodeAnswer::Traffic(traffic)));
    let view = get(&plane, "/swarmd/services/web/endpoints").await.ok().json();
    assert_eq!(plane.inner().asked, [(MANAGER, Question::Traffic(service))]);
    assert_eq!(view["Endpoints"].as_array().map(Vec::len), Some(1));
    assert_eq!((&view["Endpoints"][0]["Source"], &view["Endpoints"][0]["Stats"]), (&json!("client"), &Value::Null));

    plane.inner().answers = vec![(MANAGER, NodeAnswer::Unable("no data plane".into()))];
    let view = get(&plane, "/swarmd/services/web/endpoints").await.ok().json();
    assert_eq!(view["Silent"][0]["Reason"], "no data plane");
}

fn ended() -> TaskStatus {
    TaskStatus::new(TaskState::Failed, Timestamp::from_millis(1_700_000_600_000))
}

fn warned(plane: &TestPlane, node: NodeId, causes: &[WarningCause]) {
    let warning = |cause: &WarningCause| NodeWarning { cause: *cause, text: format!("{cause:?}") };
    let warnings = causes.iter().map(warning).collect();
    let description = NodeDescription { hostname: "beta".into(), warnings, ..NodeDescription::default() };
    report_node(plane, node, NodeState::Ready, Some(description));
}

#[tokio::test]
async fn warnings_of_nodes_about_the_ports_of_a_service_are_told_with_it() {
    let (plane, _, _) = serving().await;
    let port = |protocol, published| WarnedPort { protocol, published };
    let own = [
        WarningCause::PortTaken(port(PortProtocol::Tcp, 8080)),
        WarningCause::Descriptors,
        WarningCause::Peer(MANAGER),
    ];
    let others = [
        WarningCause::PortTaken(port(PortProtocol::Tcp, 8081)),
        WarningCause::PortTaken(port(PortProtocol::Udp, 8080)),
        // No task of the service is there.
        WarningCause::Peer(NodeId(99)),
        WarningCause::ClientAddress,
        WarningCause::Network,
    ];
    warned(&plane, WORKER, &[&own[..], &others[..]].concat());
    let why = get(&plane, "/swarmd/services/web/why").await.ok().json();
    let told = why["Warnings"].as_array().expect("a list");
    let texts: Vec<_> = told.iter().map(|warning| warning["Text"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(texts, own.map(|cause| format!("{cause:?}")));
    let first = json!({
        "NodeID": WORKER.to_string(), "Node": "beta", "Text": texts[0],
        "Cause": {"port-taken": {"Protocol": "tcp", "Published": 8080}},
    });
    assert_eq!(told[0], first);
    let node = get(&plane, &format!("/nodes/{WORKER}")).await.ok().json();
    assert_eq!(node["Warnings"].as_array().map(Vec::len), Some(own.len() + others.len()));

    // Without published ports there is nothing to warn of.
    post(&plane, "/services/create", &plain("quiet")).await.ok();
    assert_eq!(get(&plane, "/swarmd/services/quiet/why").await.ok().json()["Warnings"], Value::Null);
    warned(&plane, WORKER, &[own[0]; 12]);
    let why = get(&plane, "/swarmd/services/web/why").await.ok().json();
    assert_eq!((why["Warnings"].as_array().map(Vec::len), &why["MoreWarnings"]), (Some(10), &json!(2)));
}

#[tokio::test]
async fn nodes_that_do_not_reach_each_other_are_named() {
    let plane = cluster();
    let view = get(&plane, "/swarmd/reach").await.ok().json();
    assert!(view["Reason"].as_str().is_some_and(|reason| reason.contains("no service publishes a port")), "{view}");
    assert_eq!(plane.inner().asked, []);

    let (plane, _, _) = serving().await;
    let unreached = NodeAnswer::Unreached(vec![(WORKER, "no answer in time".into())]);
    plane.inner().answers.push((MANAGER, unreached));
    let view = get(&plane, "/swarmd/reach").await.ok().json();
    let asked = [(MANAGER, Question::Reach(vec![WORKER])), (WORKER, Question::Reach(vec![MANAGER]))];
    assert_eq!(plane.inner().asked, asked);
    assert_eq!((&view["Pairs"], &view["Probed"]), (&json!(2), &json!(1)));
    let pair = json!({
        "FromID": MANAGER.to_string(), "From": "alpha", "ToID": WORKER.to_string(), "To": "beta",
        "Addr": "10.0.0.9:7946", "Reason": "no answer in time",
    });
    assert_eq!(view["Unreached"], json!([pair]));
    assert_eq!(view["Silent"][0]["Node"], "beta");
}
