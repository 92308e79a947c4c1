//! How things are to be, by the words of swarmd.

use std::{net::IpAddr, sync::Arc};

use imbl::{OrdMap, OrdSet};
use swarm_model::{ObjectId, ServiceId};

use crate::protocol::{Configuration, LocalContainer, LocalNetwork, ToNet};

/// The wanted state: an immutable value, which costs nothing to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) configuration: Option<Arc<Configuration>>,
    pub(crate) networks: OrdMap<ObjectId, Network>,
    pub(crate) containers: OrdMap<String, Arc<LocalContainer>>,
}

/// A network with its content.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) local: Arc<LocalNetwork>,
    /// The data addresses of the nodes of containers, by the addresses of these.
    pub(crate) peers: OrdMap<Vec<IpAddr>, IpAddr>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    pub(crate) gone: OrdSet<IpAddr>,
}

/// A service with virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) virtual_addrs: Vec<IpAddr>,
    pub(crate) backends: Vec<IpAddr>,
}

impl Network {
    fn new(local: LocalNetwork) -> Self {
        Self { local: Arc::new(local), peers: OrdMap::new(), services: OrdMap::new(), gone: OrdSet::new() }
    }
}

impl State {
    /// Takes what a message says. Messages that say nothing of the wanted state change nothing, nor do those about the
    /// content of a network that was not put.
    pub(crate) fn apply(&mut self, message: &ToNet) {
        match message {
            ToNet::Configure(configuration) => self.configuration = Some(Arc::new(configuration.clone())),
            ToNet::PutNetwork(local) => match self.networks.get_mut(&local.id) {
                Some(network) => network.local = Arc::new(local.clone()),
                None => drop(self.networks.insert(local.id, Network::new(local.clone()))),
            },
            ToNet::RemoveNetwork(id) => drop(self.networks.remove(id)),
            ToNet::PutPeer { network, addrs, at } => {
                self.within(network, |network| _ = network.peers.insert(addrs.clone(), *at));
            }
            ToNet::RemovePeer { network, addrs } => self.within(network, |network| _ = network.peers.remove(addrs)),
            ToNet::PutService { network, service, virtual_addrs, backends } => {
                let record = Service { virtual_addrs: virtual_addrs.clone(), backends: backends.clone() };
                self.within(network, |network| _ = network.services.insert(*service, Arc::new(record)));
            }
            ToNet::RemoveService { network, service } => {
                self.within(network, |network| _ = network.services.remove(service));
            }
            ToNet::PutGone { network, addr } => self.within(network, |network| _ = network.gone.insert(*addr)),
            ToNet::RemoveGone { network, addr } => self.within(network, |network| _ = network.gone.remove(addr)),
            ToNet::PutContainer(container) => {
                self.containers.insert(container.id.clone(), Arc::new(container.clone()));
            }
            ToNet::RemoveContainer(id) => drop(self.containers.remove(id)),
            ToNet::Hello { .. } | ToNet::Complete | ToNet::Sync(_) | ToNet::CheckSubnet(_) | ToNet::Stop { .. } => {}
        }
    }

    fn within(&mut self, id: &ObjectId, change: impl FnOnce(&mut Network)) {
        match self.networks.get_mut(id) {
            Some(network) => change(network),
            None => tracing::debug!("the content of the network {id} is left out: the network was not put"),
        }
    }
}

/// The wanted state with its number: each change has a higher one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) revision: u64,
    pub(crate) state: State,
}
