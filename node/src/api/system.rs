//! `/_ping`, `/version`, `/info`: the engine's answers with the swarm's part filled in.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, Response};
use serde::de::DeserializeOwned;
use swarm_docker_api::{
    API_VERSION_MAX, API_VERSION_MIN, LOCKED,
    view::{ClusterInfo, ComponentView, InfoView, NodeView, PeerView, PlatformView, SwarmInfo, Time, VersionView},
};
use swarm_manager::api::Caller;
use swarm_model::{Author, NodeName, Principal};
use swarm_wire::clock;
use tower::ServiceExt;

use super::respond;
use crate::node::{Member, MemberState, Node, Swarm};

/// Longest wait for what our own manager has to say; without a leader it says nothing.
const MANAGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer of our own manager: a thousand nodes take about a megabyte.
const MANAGER_ANSWER_BYTES_MAX: usize = 64 << 20;

/// The answer to both GET and HEAD.
pub(super) fn ping(node: &Node) -> Response<Body> {
    let swarm = match &*node.swarm() {
        Swarm::Out => "inactive",
        Swarm::Locked(_) => "locked",
        Swarm::In(member) => match (member.state(), member.routes().is_some()) {
            (MemberState::Pending(_), _) => "pending",
            (MemberState::Error(_), _) => "error",
            (MemberState::Active(_), true) => "active/manager",
            (MemberState::Active(_), false) => "active/worker",
        },
    };
    let mut response = Response::new(Body::from("OK"));
    respond::set(
        response.headers_mut(),
        &[
            ("swarm", swarm),
            ("builder-version", "2"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("content-type", "text/plain; charset=utf-8"),
        ],
    );
    response
}

/// The engine's answer, so that clients see which Docker they work with, and this program as one more component.
pub(super) async fn version(node: &Node) -> Response<Body> {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let own = ComponentView {
        name: "swarmd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        details: [("ApiVersion", API_VERSION_MAX), ("MinAPIVersion", API_VERSION_MIN)]
            .map(|(key, value)| (key.to_owned(), value.to_string()))
            .into(),
    };
    let mut version = node.engine().ask("/version").await.unwrap_or_else(|_| VersionView {
        platform: PlatformView { name: "swarmd".to_owned() },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: "linux".to_owned(),
        arch: go_arch(&text(system.machine())).to_owned(),
        kernel_version: text(system.release()),
        ..VersionView::default()
    });
    version.components.insert(0, own);
    version.api_version = API_VERSION_MAX.to_string();
    version.min_api_version = API_VERSION_MIN.to_string();
    respond::json(&version)
}

/// The engine's answer with this node's name and swarm.
pub(super) async fn info(node: &Arc<Node>) -> Response<Body> {
    let (engine, swarm) = tokio::join!(node.engine().ask::<InfoView>("/info"), swarm_info(node));
    let mut info = engine.unwrap_or_else(|problem| own_info(node, problem.message));
    node.config().hostname.clone_into(&mut info.name);
    info.swarm = swarm;
    if let Some(problem) = node.audit().problem() {
        info.warnings.get_or_insert_default().push(format!("WARNING: {problem}"));
    }
    respond::json(&info)
}

/// What can be said without an engine.
fn own_info(node: &Node, problem: String) -> InfoView {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let time = serde_json::to_value(Time(clock::now())).unwrap_or_default();
    InfoView {
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        os_type: "linux".to_owned(),
        operating_system: text(system.sysname()),
        kernel_version: text(system.release()),
        architecture: text(system.machine()),
        ncpu: std::thread::available_parallelism().map_or(0, |n| n.get() as i64),
        mem_total: i64::try_from(rustix::system::sysinfo().totalram).unwrap_or(i64::MAX),
        warnings: node.engine().exists().then(|| vec![format!("WARNING: {problem}")]),
        extra: [("SystemTime".to_owned(), time)].into(),
        ..InfoView::default()
    }
}

async fn swarm_info(node: &Node) -> SwarmInfo {
    let swarm = node.swarm();
    let member = match &*swarm {
        Swarm::In(member) => member,
        Swarm::Out => return SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
        Swarm::Locked(peer) => {
            return SwarmInfo {
                node_id: peer.node.to_string(),
                local_node_state: "locked".to_owned(),
                error: LOCKED.to_owned(),
                ..SwarmInfo::default()
            };
        }
    };
    let (state, error) = match member.state() {
        MemberState::Pending(reason) => ("pending", reason),
        MemberState::Active(problem) => ("active", problem),
        MemberState::Error(reason) => ("error", reason),
    };
    let mut info = SwarmInfo {
        node_id: member.identity().node().to_string(),
        node_addr: member.advertise_ip(),
        local_node_state: state.to_owned(),
        error,
        remote_managers: Some(known_managers(member)),
        ..SwarmInfo::default()
    };
    if let Some(routes) = member.routes() {
        info.control_available = true;
        let name = NodeName::new(member.identity().node(), &node.config().hostname);
        let own = Caller::new(Arc::new(Author::of(Principal::Node(name))));
        match tokio::join!(ask::<ClusterInfo>(&routes, "/swarm", &own), ask::<Vec<NodeView>>(&routes, "/nodes", &own)) {
            (Some(cluster), Some(nodes)) => {
                let managers = nodes.iter().filter_map(|n| Some((n, n.manager_status.as_ref()?)));
                let peers = managers.map(|(n, m)| PeerView { node_id: n.id.clone(), addr: m.addr.clone() });
                info.remote_managers = Some(peers.collect());
                info.nodes = nodes.len() as u64;
                info.managers = info.remote_managers.as_ref().map_or(0, Vec::len) as u64;
                info.cluster = Some(cluster);
            }
            // The cause comes before its effects: a manager that has stopped also refuses the session of its own node,
            // and a node that was removed has lost both.
            _ if state == "error" => {}
            _ => match member.problem() {
                Some(problem) => info.error = problem,
                None if info.error.is_empty() => info.error = "the swarm does not have a leader".to_owned(),
                None => {}
            },
        }
    }
    info
}

fn known_managers(member: &Member) -> Vec<PeerView> {
    member.managers().into_iter().map(|addr| PeerView { node_id: String::new(), addr }).collect()
}

/// What our own manager says; nothing if it cannot say it in time.
async fn ask<T: DeserializeOwned>(routes: &Router, path: &str, own: &Caller) -> Option<T> {
    let asked = async {
        let request = Request::get(path).extension(own.clone()).body(Body::empty()).ok()?;
        let Ok(response) = routes.clone().oneshot(request).await;
        let success = response.status().is_success();
        let body = axum::body::to_bytes(response.into_body(), MANAGER_ANSWER_BYTES_MAX).await.ok()?;
        success.then(|| serde_json::from_slice(&body).ok()).flatten()
    };
    tokio::time::timeout(MANAGER_TIMEOUT, asked).await.ok().flatten()
}

/// Docker names architectures as Go does in `/version`, and as the kernel does in `/info`.
fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i686" => "386",
        other => other,
    }
}
