//! The session with swarmd: takes its messages, and answers.

use std::sync::Arc;

use swarm_model::NodeId;
use swarm_net::socket::OwnSocket;
use swarm_wire::channel;
use tokio::{
    net::UnixStream,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    plane::Plane,
    protocol::{DATA_PROTOCOL, FromData, ToData},
};

/// Follows what swarmd says, until it says that the data plane is to end. A new connection replaces the one before.
pub(crate) async fn serve(socket: &OwnSocket, plane: &Arc<Plane>) {
    let stop = CancellationToken::new();
    let mut session: Option<Session> = None;
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            stream = socket.accept() => stream,
        };
        if let Some(before) = session.take() {
            before.end().await;
        }
        session = Some(Session::begin(stream, Arc::clone(plane), stop.clone()));
    }
}

/// A connection of swarmd.
struct Session {
    listening: JoinHandle<()>,
    speaking: JoinHandle<()>,
}

impl Session {
    fn begin(stream: UnixStream, plane: Arc<Plane>, stop: CancellationToken) -> Self {
        let (mut sender, mut receiver) = channel::<_, FromData, ToData>(stream);
        let mut messages = plane.voice.turn_to(FromData::Hello {
            protocol: DATA_PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            table: plane.version(),
        });
        plane.warnings.repeat();
        plane.drains.repeat();
        let speaking = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Err(e) = sender.send(&message).await {
                    tracing::debug!("cannot speak to swarmd: {e}");
                    return;
                }
            }
            let _ = sender.close().await;
        });
        let listening = tokio::spawn(async move {
            loop {
                match receiver.recv().await {
                    Ok(Some(ToData::Stop)) => return stop.cancel(),
                    Ok(Some(message)) => hear(&plane, message),
                    Ok(None) => return tracing::info!("swarmd is gone; its last words hold"),
                    Err(e) => return tracing::warn!("the connection of swarmd broke; its last words hold: {e}"),
                }
            }
        });
        Self { listening, speaking }
    }

    /// Closes the connection. Nothing that it said is heard afterwards.
    async fn end(mut self) {
        self.listening.abort();
        self.speaking.abort();
        let _ = tokio::join!(&mut self.listening, &mut self.speaking);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.listening.abort();
        self.speaking.abort();
    }
}

/// Probes nodes, all at once, and says which of them do not answer.
fn probe(plane: &Plane, number: u64, nodes: Vec<NodeId>) -> impl Future<Output = ()> + use<> {
    let (remote, voice) = (Arc::clone(&plane.remote), plane.voice.clone());
    async move {
        let mut probes = JoinSet::new();
        for node in nodes {
            let remote = Arc::clone(&remote);
            probes.spawn(async move { remote.probe(node).await.err().map(|reason| (node, reason)) });
        }
        let failed = probes.join_all().await.into_iter().flatten().collect();
        voice.say(FromData::Probed { number, failed });
    }
}

/// Does what swarmd says.
pub(crate) fn hear(plane: &Plane, message: ToData) {
    match message {
        ToData::Configure(configuration) => plane.configure(configuration),
        ToData::Identity(identity) => plane.identify(identity),
        ToData::LocalTasks(tasks) => plane.set_locals(tasks),
        ToData::Probe { number, nodes } => drop(tokio::spawn(probe(plane, number, nodes))),
        ToData::PutLocal(task) => plane.put_local(task),
        ToData::RemoveLocal(task) => plane.remove_local(task),
        ToData::Table(update) => match plane.change(&update) {
            Ok(Some(version)) => plane.voice.say(FromData::Applied(version)),
            Ok(None) => {}
            Err(e) => {
                tracing::warn!("refused an update of the endpoint table: {e}");
                plane.voice.say(FromData::Refused { reason: e.to_string() });
            }
        },
        ToData::PutNetwork(record) => plane.put_network(record),
        ToData::RemoveNetwork(network) => plane.remove_network(network),
        ToData::Members(update) => plane.change_members(&update),
        ToData::PutContainer(names) => plane.names.put_container(names),
        ToData::RemoveContainer(container) => plane.names.remove_container(&container),
        ToData::KeepNames { networks, containers } => plane.keep_networks(&networks, &containers),
        ToData::Stats => plane.voice.say(FromData::Stats(plane.stats())),
        // The session ends with it.
        ToData::Stop => {}
    }
}
