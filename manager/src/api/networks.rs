//! Networks of the swarm. They are named objects whose subnets and VXLAN the cluster chooses where the user did not.

mod attach;
mod prune;
mod subnets;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use axum::{
    Router, extract,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use swarm_core::{Op, State, Tx};
use swarm_docker_api::{
    ApiError,
    view::{
        CreateNetworkResponse, NETWORK_FILTERS, NetworkPeerView, NetworkRequest, NetworkServiceView, NetworkTaskView,
        NetworkView, SWARM_SCOPE,
    },
};
use swarm_model::{
    Cluster, INGRESS_NETWORK, Id, NamedObject, NetworkAddr, ObjectContent, ObjectId, ObjectKey, ObjectKind,
    PREDEFINED_NETWORKS, Service, Task,
};

pub(super) use self::attach::{Attachments, name_by_ids, virtual_ips};
use self::wanted::Wanted;
use super::{
    Plane,
    call::Call,
    change::change,
    reply::{self, Reply},
    resolve,
};

/// The key under which a task shows the address of its node.
const HOST_IP: &str = "Host IP";

/// The routes.
pub(super) fn routes<P: Plane>() -> Router<P> {
    Router::new()
        .route("/networks", get(list::<P>))
        .route("/networks/create", post(create::<P>))
        .route("/networks/prune", post(prune::prune::<P>))
        .route("/networks/{id}", get(inspect::<P>).delete(remove::<P>))
}

/// A network that clients can name.
enum Found<'a> {
    /// The network that stands for published ports.
    Ingress,
    /// A network that a user made.
    Network(&'a Arc<NamedObject>),
}

/// A network by its id, its name, or the beginning of its id.
fn find<'a>(state: &'a State, cluster: &Cluster, text: &str) -> Result<Found<'a>, ApiError> {
    let ingress = cluster.id.to_string();
    if text == ingress || text.eq_ignore_ascii_case(INGRESS_NETWORK) {
        return Ok(Found::Ingress);
    }
    match resolve::object(state, ObjectKind::Network, text) {
        Err(error) if error.status == 404 && !text.is_empty() && ingress.starts_with(text) => Ok(Found::Ingress),
        found => found.map(Found::Network),
    }
}

async fn list<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let filters = call.filters(NETWORK_FILTERS)?;
    let state = plane.read().await?;
    let ingress = NetworkView::ingress(resolve::cluster(&state)?);
    let mut networks = Vec::new();
    if ingress.matches(&filters, true)? {
        networks.push(ingress);
    }
    for object in state.objects(ObjectKind::Network) {
        let Some(network) = show(object) else { continue };
        if network.matches(&filters, is_used(&state, object))? {
            networks.push(network);
        }
    }
    Ok(reply::list(networks, |network| network))
}

fn show(object: &NamedObject) -> Option<NetworkView> {
    Some(NetworkView::new(object, object.content.as_network()?))
}

fn is_used(state: &State, network: &NamedObject) -> bool {
    state.users_of(network.key()).next().is_some() || state.attachments_of_network(network.id).next().is_some()
}

/// Docker's client asks for the networks of a service with `scope=swarm`, also for those that every engine has.
async fn inspect<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let is_verbose = call.flag("verbose")?;
    let scope = call.param("scope").unwrap_or_default();
    let state = plane.read().await?;
    let cluster = resolve::cluster(&state)?;
    if scope == SWARM_SCOPE && PREDEFINED_NETWORKS.contains(&call.id()) {
        return reply::json(&NetworkView::predefined(cluster, call.id()));
    }
    let unknown = || ApiError::no_such(ObjectKind::Network.as_str(), call.id());
    if !matches!(scope, "" | SWARM_SCOPE) {
        return Err(unknown().into());
    }
    match find(&state, cluster, call.id())? {
        Found::Ingress => reply::json(&NetworkView::ingress(cluster)),
        Found::Network(object) => {
            let mut network = show(object).ok_or_else(unknown)?;
            let services = services_in(&state, object.key());
            network.peers = peers(&state, &services);
            if is_verbose {
                network.services = services.iter().map(|service| service.show(&state)).collect();
            }
            reply::json(&network)
        }
    }
}

/// A service in a network.
struct ServiceIn<'a> {
    service: &'a Service,
    network: ObjectId,
    /// Its tasks that have addresses in the network.
    tasks: Vec<&'a Arc<Task>>,
}

fn services_in(state: &State, network: ObjectKey) -> Vec<ServiceIn<'_>> {
    let is_in = |task: &&Arc<Task>| task.holds_resources() && addr_in(&task.addrs, network.id).is_some();
    let service_in =
        |service: &'_ Arc<Service>| -> Vec<_> { state.tasks_of_service(service.id).filter(is_in).collect() };
    let services = state.users_of(network);
    services.map(|service| ServiceIn { service, network: network.id, tasks: service_in(service) }).collect()
}

/// The first address in a network.
fn addr_in(addrs: &[NetworkAddr], network: ObjectId) -> Option<IpAddr> {
    addrs.iter().find(|at| at.network == network).map(|at| at.addr)
}

fn peers(state: &State, services: &[ServiceIn<'_>]) -> Vec<NetworkPeerView> {
    let nodes: BTreeSet<_> = services.iter().flat_map(|service| &service.tasks).filter_map(|task| task.node).collect();
    let nodes = nodes.into_iter().filter_map(|node| state.node(node));
    let mut peers: Vec<_> =
        nodes.map(|node| NetworkPeerView { name: node.hostname().into(), ip: node.status.addr.clone() }).collect();
    peers.sort();
    peers
}

impl ServiceIn<'_> {
    /// The name of the service, and how it is shown.
    fn show(&self, state: &State) -> (String, NetworkServiceView) {
        let Self { service, network, tasks } = self;
        let text = |addrs: &[NetworkAddr]| addr_in(addrs, *network).map(|addr| addr.to_string()).unwrap_or_default();
        let host_ip = |task: &Task| task.node.and_then(|node| state.node(node)).map(|node| node.status.addr.clone());
        let task = |task: &Arc<Task>| NetworkTaskView {
            name: resolve::task_name(state, task),
            endpoint_id: task.id.to_string(),
            endpoint_ip: text(&task.addrs),
            info: BTreeMap::from([(HOST_IP.to_owned(), host_ip(task).unwrap_or_default())]),
        };
        let ports = service.ports.iter().map(|port| format!("Target: {}, Publish: {}", port.target, port.published));
        let view = NetworkServiceView {
            vip: text(&service.virtual_addrs),
            ports: ports.collect(),
            local_lb_index: 0,
            tasks: tasks.iter().map(|one| task(one)).collect(),
        };
        (service.spec.name.clone(), view)
    }
}

async fn create<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let wanted = Wanted::read(call.body::<NetworkRequest>()?)?;
    let (id, random) = (ObjectId::make(plane.now(), plane.random()), plane.random());
    change(&plane, &call.caller, |state| {
        let cluster = resolve::cluster(state)?;
        let (name, labels) = (wanted.name.clone(), wanted.labels.clone());
        if name.eq_ignore_ascii_case(INGRESS_NETWORK) || state.object_by_name(ObjectKind::Network, &name).is_some() {
            return Err(ApiError::conflict(format!("network with name {name} already exists")).into());
        }
        let content = Arc::new(ObjectContent::Network(wanted.choose(state, &cluster.overlay, random)?));
        Ok((Tx::new(vec![Op::CreateObject { id, name, labels, content }]), ()))
    })
    .await?;
    reply::json_with(StatusCode::CREATED, &CreateNetworkResponse { id: id.to_string(), warning: String::new() })
}

/// Tasks that are still being stopped keep no network: `stack rm` removes networks right behind their services
/// (docker-api §10).
async fn remove<P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    change(&plane, &call.caller, |state| {
        let cluster = resolve::cluster(state)?;
        let Found::Network(network) = find(state, cluster, call.id())? else {
            return Err(ApiError::forbidden(format!(
                "{INGRESS_NETWORK} is a pre-defined network and cannot be removed: it stands for the published ports, and \
                 takes no addresses"
            ))
            .into());
        };
        refuse_used(state, network)?;
        Ok((Tx::new(vec![Op::RemoveObject { object: network.key() }]), ()))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn refuse_used(state: &State, network: &NamedObject) -> Result<(), ApiError> {
    let mut users: Vec<&str> = state.users_of(network.key()).map(|service| service.spec.name.as_str()).collect();
    users.sort_unstable();
    match users[..] {
        [] => match state.attachments_of_network(network.id).next() {
            Some(user) => Err(ApiError::bad_request(format!(
                "network {} is in use by {}",
                network.name,
                state.describe_attachment(user)
            ))),
            None => Ok(()),
        },
        _ => Err(ApiError::bad_request(format!(
            "network {} is in use by service{} {}",
            network.name,
            if users.len() == 1 { "" } else { "s" },
            users.join(", ")
        ))),
    }
}
