//! The names of the node's networks: the resolver, and the sockets in containers that it serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use swarm_model::ObjectId;
use swarm_names::{Audience, ContainerNames, NamesTable, Resolver, UpstreamOptions};
use swarm_net::resolver_sockets;
use swarm_wire::networks::{Member, MemberKey, Members, NetworkRecord, NetworkUpdate};
use tokio::{sync::watch, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::protocol::ToData;

/// Pause before the sockets in a container are asked for again.
const RETRY: Duration = Duration::from_millis(200);

/// The names of the node's networks.
#[derive(Default)]
pub(crate) struct Names {
    state: Mutex<State>,
    /// The socket of `swarmd net`, once it is known.
    net_socket: watch::Sender<Option<PathBuf>>,
}

/// The networks and containers that swarmd has named, and the resolver that answers for them.
#[derive(Default)]
struct State {
    table: NamesTable,
    networks: BTreeMap<ObjectId, (Option<NetworkRecord>, Members)>,
    containers: BTreeMap<String, (ContainerNames, AbortOnDropHandle<()>)>,
    /// Runs from the first network on.
    resolver: Option<Arc<Resolver>>,
}

impl State {
    fn resolver(&mut self) -> Arc<Resolver> {
        self.resolver.get_or_insert_with(|| Arc::new(Resolver::start(UpstreamOptions::default()))).clone()
    }

    fn publish(&mut self) {
        let table = self.table.clone();
        self.resolver().publish(table);
    }

    fn remove_network(&mut self, network: ObjectId) {
        self.networks.remove(&network);
        self.table.remove_network(network);
    }

    fn remove_container(&mut self, container: &str) {
        self.containers.remove(container);
        self.table.remove_container(container);
        self.resolver().remove(&Audience::Container(container.to_owned()));
    }

    /// Takes changes of the members of a network.
    fn change(&mut self, update: &NetworkUpdate, each: impl FnOnce(&Members, &[(MemberKey, Option<Member>)])) {
        let network = update.network;
        let (_, members) = self.networks.entry(network).or_default();
        let changed = match members.take(update) {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%network, %error, "changes of a network cannot be read; its names stay as they are");
                return;
            }
        };
        each(members, &changed);
        for (key, _) in changed {
            match (key, members.get(key)) {
                (_, Some(Member::Service(service))) => self.table.put_service(network, service.clone()),
                (_, Some(Member::Endpoint(endpoint))) => self.table.put_endpoint(network, endpoint.clone()),
                (MemberKey::Service(service), None) => self.table.remove_service(network, service),
                (MemberKey::Endpoint(task), None) => self.table.remove_endpoint(network, task),
                (_, Some(Member::Node(_))) | (MemberKey::Node(_), None) => {}
            }
        }
        self.table.set_ready(network, members.is_whole());
    }
}

impl Names {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes where `swarmd net` listens.
    pub(crate) fn set_net_socket(&self, socket: Option<PathBuf>) {
        self.net_socket.send_if_modified(|known| {
            let is_new = *known != socket;
            *known = socket;
            is_new
        });
    }

    /// The path of the socket of `swarmd net`; none while it is not known.
    pub(crate) fn net_socket(&self) -> watch::Receiver<Option<PathBuf>> {
        self.net_socket.subscribe()
    }

    /// Takes a network in which this node takes part.
    pub(crate) fn put_network(&self, record: NetworkRecord) {
        let mut state = self.state();
        let id = record.id;
        state.table.put_network(record.clone());
        let (known, members) = state.networks.entry(id).or_default();
        *known = Some(record);
        let is_whole = members.is_whole();
        state.table.set_ready(id, is_whole);
        state.publish();
    }

    /// The node has left a network.
    pub(crate) fn remove_network(&self, network: ObjectId) {
        let mut state = self.state();
        state.remove_network(network);
        state.publish();
    }

    /// Takes changes of the members of a network, and shows them to `also`, each with the record that was there before.
    pub(crate) fn change(&self, update: &NetworkUpdate, also: impl FnOnce(&Members, &[(MemberKey, Option<Member>)])) {
        let mut state = self.state();
        state.change(update, also);
        if update.complete {
            state.publish();
        }
    }

    /// A container may ask for names.
    pub(crate) fn put_container(&self, names: ContainerNames) {
        let mut state = self.state();
        state.table.put_container(names.clone());
        state.publish();
        let resolver = state.resolver();
        let container = names.container.clone();
        match state.containers.get_mut(&container) {
            Some((known, _)) => *known = names,
            None => {
                let serving = tokio::spawn(serve(container.clone(), resolver, self.net_socket.subscribe()));
                state.containers.insert(container, (names, AbortOnDropHandle::new(serving)));
            }
        }
    }

    /// A container asks no more.
    pub(crate) fn remove_container(&self, container: &str) {
        let mut state = self.state();
        state.remove_container(container);
        state.publish();
    }

    /// Other networks and containers than these are gone. Returns the networks that are.
    pub(crate) fn keep(&self, networks: &[ObjectId], containers: &[String]) -> Vec<ObjectId> {
        let (networks, containers): (BTreeSet<_>, BTreeSet<_>) =
            (networks.iter().collect(), containers.iter().collect());
        let mut state = self.state();
        let left: Vec<_> = state.networks.keys().filter(|id| !networks.contains(id)).copied().collect();
        left.iter().for_each(|network| state.remove_network(*network));
        let gone = left;
        let left: Vec<_> = state.containers.keys().filter(|id| !containers.contains(id)).cloned().collect();
        left.iter().for_each(|container| state.remove_container(container));
        state.publish();
        gone
    }

    /// The messages that lead the process that takes over to the same networks and containers.
    pub(crate) fn said(&self) -> Vec<ToData> {
        let state = self.state();
        let networks = state.networks.iter().flat_map(|(id, (record, members))| {
            let record = record.clone().map(ToData::PutNetwork);
            let members = if members.is_whole() { members.to_updates(*id) } else { Vec::new() };
            record.into_iter().chain(members.into_iter().map(ToData::Members))
        });
        networks.chain(state.containers.values().map(|(names, _)| ToData::PutContainer(names.clone()))).collect()
    }
}

/// Serves the sockets in a container, for as long as it is known. `swarmd net` opens them, and opens others when the
/// container was started again.
async fn serve(container: String, resolver: Arc<Resolver>, mut net_socket: watch::Receiver<Option<PathBuf>>) {
    let audience = Audience::Container(container.clone());
    let (mut last, mut reported) = (String::new(), String::new());
    loop {
        let Ok(path) = net_socket.wait_for(Option::is_some).await.map(|path| path.clone().unwrap_or_default()) else {
            return;
        };
        let served = async {
            let mut sockets = resolver_sockets(&path, &container).await?;
            resolver.put(audience.clone(), sockets.udp.try_clone()?, sockets.tcp.try_clone()?)?;
            sockets.ended().await;
            std::io::Result::Ok(())
        };
        if let Err(error) = served.await {
            // A container that ends is heard of here before swarmd says so: trouble is what comes twice.
            let text = error.to_string();
            if text == last && text != reported {
                tracing::warn!(%container, reason = %text, "names cannot be asked for in a container yet");
                reported.clone_from(&text);
            }
            last = text;
        }
        sleep(RETRY).await;
    }
}
