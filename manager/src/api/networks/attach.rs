//! The networks of services and tasks.

use std::{collections::BTreeMap, sync::Arc};

use swarm_core::State;
use swarm_docker_api::{
    ApiError, read_value,
    view::{AttachedNetworkView, NetworkAttachmentView, VirtualIp},
};
use swarm_model::{
    NamedObject, NetworkAddr, NetworkAttachment, NetworkContent, ObjectId, ObjectKey, ObjectKind, PREDEFINED_NETWORKS,
    Service, ServiceSpec, Task,
};

use super::{Found, INGRESS_NETWORK, find};
use crate::api::resolve;

/// The field of a service spec that had the networks before the task template had them.
const FORMER_FIELD: &str = "Networks";

/// Names the networks of a spec by their ids, and puts those of the former field of services where the field of the task
/// template has none, as Docker does. The engine's own networks keep their names.
///
/// # Errors
/// 404 for a network that is not there, 400 for one that nobody can join.
pub(in crate::api) fn name_by_ids(state: &State, spec: &mut ServiceSpec) -> Result<(), ApiError> {
    let cluster = resolve::cluster(state)?;
    let networks = &mut spec.task_template.networks;
    if let Some(former) = spec.extra.remove(FORMER_FIELD)
        && networks.is_empty()
    {
        *networks = read_value::<Option<Vec<NetworkAttachment>>>(former)
            .map_err(|error| ApiError::bad_request(format!("{FORMER_FIELD}: {error}")))?
            .unwrap_or_default();
    }
    for network in networks.iter_mut().filter(|network| !PREDEFINED_NETWORKS.contains(&network.target.as_str())) {
        network.target = match find(state, cluster, &network.target)? {
            Found::Network(object) => object.id.to_string(),
            Found::Ingress => {
                return Err(ApiError::bad_request(format!(
                    "Service cannot be explicitly attached to the ingress network \"{INGRESS_NETWORK}\""
                )));
            }
        };
    }
    Ok(())
}

/// The virtual addresses of a service, as they are shown.
pub(in crate::api) fn virtual_ips(state: &State, service: &Service) -> Vec<VirtualIp> {
    let shown = |at: &NetworkAddr| {
        let (_, network) = network(state, at.network)?;
        Some(VirtualIp { network_id: at.network.to_string(), addr: with_prefix(network, *at)? })
    };
    service.virtual_addrs.iter().filter_map(shown).collect()
}

fn network(state: &State, id: ObjectId) -> Option<(&Arc<NamedObject>, &NetworkContent)> {
    let object = state.object(ObjectKey { kind: ObjectKind::Network, id })?;
    Some((object, object.content.as_network()?))
}

/// An address with the prefix length of its subnet.
fn with_prefix(network: &NetworkContent, at: NetworkAddr) -> Option<String> {
    Some(format!("{}/{}", at.addr, network.subnet_of(at.addr)?.range.prefix_len()))
}

/// The networks of many tasks, each network shown once.
#[derive(Default)]
pub(in crate::api) struct Attachments(BTreeMap<ObjectId, Arc<AttachedNetworkView>>);

impl Attachments {
    /// The networks of a task, with its addresses.
    pub(in crate::api) fn of(&mut self, state: &State, task: &Task) -> Vec<NetworkAttachmentView> {
        let mut shown: Vec<(ObjectId, NetworkAttachmentView)> = Vec::new();
        for at in task.addrs.iter() {
            // The network of a task that is being stopped may be gone.
            let Some((object, content)) = network(state, at.network) else { continue };
            let Some(addr) = with_prefix(content, *at) else { continue };
            match shown.last_mut() {
                Some((id, attachment)) if *id == at.network => attachment.addresses.push(addr),
                _ => {
                    let view = || Arc::new(AttachedNetworkView::new(object, content));
                    let network = self.0.entry(at.network).or_insert_with(view).clone();
                    shown.push((at.network, NetworkAttachmentView { network, addresses: vec![addr] }));
                }
            }
        }
        shown.into_iter().map(|(_, attachment)| attachment).collect()
    }
}
