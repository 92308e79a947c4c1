//! Forwards datagrams: each client address that asks has a flow, with a socket or a stream of its own to one task.

mod datagrams;
mod flow;
mod socket;

use std::{collections::BTreeMap, io, net::SocketAddr, pin::pin, sync::Arc};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use swarm_model::TaskId;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::{AbortHandle, coop},
};

use self::flow::Flow;
pub(crate) use self::{
    flow::{connect_task, serve_linked},
    socket::PublicSocket,
};
use crate::{
    buffer::Buffer,
    forward::Forwarder,
    limits::Admitted,
    route::{Chosen, Port, Way},
    source::{Origin, proxy::Ends},
};

/// Flows of a port on an address. When there are as many, a new one ends the oldest: a flood of forged addresses takes
/// no more than this.
const FLOWS_MAX: usize = 4096;
/// Datagrams that wait for a stream to another node. More are lost, as in any queue of a network.
const WAITING_DATAGRAMS_MAX: usize = 64;

/// Names a flow: the client, and the address that it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowKey {
    pub(crate) client: SocketAddr,
    pub(crate) asked: SocketAddr,
}

/// How datagrams of a flow go to its task.
enum Upstream {
    Local(Arc<UdpSocket>),
    Remote(mpsc::Sender<Vec<u8>>),
}

/// A flow as the port knows it. It ends when this is dropped.
struct Known {
    /// Flows count up, so that the oldest has the lowest number.
    number: u64,
    task: TaskId,
    upstream: Upstream,
    flow: Arc<Flow>,
    running: AbortHandle,
    _admitted: Admitted,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A published port on an address.
pub(crate) struct UdpPort {
    socket: Arc<PublicSocket>,
    port: Arc<Port>,
    forwarder: Arc<Forwarder>,
    flows: BTreeMap<FlowKey, Known>,
    by_age: BTreeMap<u64, FlowKey>,
    next_number: u64,
    ended: mpsc::UnboundedSender<(u64, FlowKey)>,
}

/// Forwards the datagrams of a port until it is dropped, or another process takes them.
pub(crate) async fn serve(socket: Arc<PublicSocket>, port: Arc<Port>, forwarder: Arc<Forwarder>) {
    // Each flow says once that it has ended, so that the queue is no longer than the table.
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut served = UdpPort {
        socket: Arc::clone(&socket),
        port,
        forwarder,
        flows: BTreeMap::new(),
        by_age: BTreeMap::new(),
        next_number: 0,
        ended,
    };
    let leaving = served.forwarder.leaving.clone();
    let mut leaving = pin!(leaving.cancelled());
    // Once another process takes what clients send, answers go on until the last flow has ended.
    let mut has_left = false;
    while !has_left || !served.flows.is_empty() {
        tokio::select! {
            () = leaving.as_mut(), if !has_left => has_left = true,
            Some((number, key)) = ends.recv() => {
                if served.flows.get(&key).is_some_and(|known| known.number == number) {
                    served.remove(key);
                }
            }
            ready = socket.readable(), if !has_left => {
                if let Err(e) = ready {
                    tracing::warn!("port {}/udp does not receive any more: {e}", served.port.number);
                    return;
                }
                served.receive();
                coop::consume_budget().await;
            }
        }
    }
}

impl UdpPort {
    /// Takes what has come.
    fn receive(&mut self) {
        let mut buffer = Buffer::take();
        loop {
            match self.socket.try_recv(buffer.space()) {
                Ok((len, key)) => self.forward(key, buffer.space().get(..len).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Of a reply that did not arrive, or a datagram that is damaged: the next one may be right.
                Err(e) => tracing::debug!("port {}/udp: {e}", self.port.number),
            }
        }
    }

    /// Sends a datagram on. One that no task takes is lost.
    fn forward(&mut self, key: FlowKey, datagram: &[u8]) {
        let failed = match self.flows.get(&key) {
            Some(known) if known.send(datagram) => return,
            Some(known) => vec![known.task],
            None => Vec::new(),
        };
        self.remove(key);
        let client = key.client.ip();
        let Some(admitted) = self.port.route().admit(client) else { return };
        let Some(chosen) = self.port.route().choose(client, &failed).or_else(|| self.port.route().choose(client, &[]))
        else {
            return;
        };
        if let Some(known) = self.begin(key, chosen, admitted) {
            known.send(datagram);
            self.by_age.insert(known.number, key);
            self.flows.insert(key, known);
        }
    }

    fn begin(&mut self, key: FlowKey, chosen: Chosen, admitted: Admitted) -> Option<Known> {
        let oldest = self.by_age.first_key_value().map(|(_, key)| *key);
        if let Some(oldest) = oldest.filter(|_| self.flows.len() >= FLOWS_MAX) {
            self.remove(oldest);
        }
        let Some(reserved) = self.forwarder.descriptors.reserve(1) else {
            self.forwarder.descriptors.refused();
            return None;
        };
        let number = self.next_number;
        self.next_number += 1;
        let (task, way, port) = (chosen.lease.task(), chosen.way, chosen.port);
        let end = flow::End::new(self.ended.clone(), number, key);
        let flow = Arc::new(Flow::new(key, Arc::clone(&self.port), Arc::clone(&self.socket)));
        let connections = &self.forwarder.connections;
        let (upstream, running) = match way {
            Way::Local(addr) => {
                let addr = SocketAddr::new(addr, port.target);
                let ends = Ends { client: key.client, asked: key.asked };
                let origin = Origin { ends, source: chosen.source };
                let socket = match self.forwarder.plane.sources.connect_datagrams(origin, addr) {
                    Ok(socket) => Arc::new(socket),
                    Err(e) => {
                        tracing::debug!(%task, port = port.published, "no socket to a task: {e}");
                        chosen.lease.failed();
                        return None;
                    }
                };
                let running = Arc::clone(&flow).run_local(Arc::clone(&socket), chosen.lease, reserved, end);
                (Upstream::Local(socket), connections.spawn(running).abort_handle())
            }
            Way::Remote(node) => {
                let (sender, datagrams) = mpsc::channel(WAITING_DATAGRAMS_MAX);
                let remote = Arc::clone(&self.forwarder.plane.remote);
                let to = flow::RemoteTask { remote, node, port };
                let running = Arc::clone(&flow).run_remote(to, datagrams, chosen.lease, reserved, end);
                (Upstream::Remote(sender), connections.spawn(running).abort_handle())
            }
        };
        Some(Known { number, task, upstream, flow, running, _admitted: admitted })
    }

    fn remove(&mut self, key: FlowKey) {
        if let Some(known) = self.flows.remove(&key) {
            self.by_age.remove(&known.number);
        }
    }
}

impl Known {
    /// Sends a datagram to the task. Returns false when the flow has ended or its task is not there.
    fn send(&self, datagram: &[u8]) -> bool {
        if self.flow.has_ended() {
            return false;
        }
        self.flow.used();
        let sent = match &self.upstream {
            // Without asking the runtime, which does not know yet that a new socket is ready.
            Upstream::Local(socket) => match send(socket, datagram, SendFlags::DONTWAIT) {
                Ok(n) => n,
                // Lost, as in any queue of a network.
                Err(Errno::WOULDBLOCK | Errno::NOBUFS | Errno::MSGSIZE) => 0,
                Err(_) => return false,
            },
            Upstream::Remote(sender) => match sender.try_send(datagram.to_vec()) {
                Ok(()) => datagram.len(),
                Err(mpsc::error::TrySendError::Full(_)) => 0,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            },
        };
        self.flow.sent(sent);
        true
    }
}

#[cfg(test)]
mod tests;
