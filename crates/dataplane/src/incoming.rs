//! Streams that other nodes open to tasks of this one.

use std::{io, net::SocketAddr, sync::Arc};

use swarm_model::PortProtocol;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, timeout_at},
};

use crate::{
    forward::Forwarder,
    plane::Served,
    relay,
    remote::{Arrival, OpenRequest},
    source::{Origin, proxy::Ends},
    udp,
};

/// How long a stream to a task that is not in the table waits for the table: less than the other node waits for an answer.
const TABLE_WAIT: Duration = Duration::from_millis(700);

/// Takes what comes until the links have ended.
pub(crate) async fn take<A: Arrival>(mut arrivals: mpsc::Receiver<A>, forwarder: Arc<Forwarder>) {
    while let Some(arrival) = arrivals.recv().await {
        let served = serve(arrival, Arc::clone(&forwarder));
        forwarder.connections.spawn(served);
    }
}

async fn serve<A: Arrival>(arrival: A, forwarder: Arc<Forwarder>) {
    let request = arrival.request();
    let refuse = |arrival: A, reason: String| {
        tracing::debug!(from = %arrival.from(), task = %request.task, "refused a stream of another node: {reason}");
        arrival.refuse(reason);
    };
    let served = match check_soon(&request, &forwarder).await {
        Ok(served) => served,
        Err(reason) => return refuse(arrival, reason),
    };
    let Some(_reserved) = forwarder.descriptors.reserve(1) else {
        forwarder.descriptors.refused();
        return refuse(arrival, format!("limit of {} open files", forwarder.descriptors.limit));
    };
    let lease = served.endpoint.begin_linked();
    let addr = SocketAddr::new(served.addr, request.port.target);
    let sources = &forwarder.plane.sources;
    let ends = Ends { client: request.client, asked: request.asked };
    let origin = Origin { ends, source: served.source };
    let failed = |e: io::Error| format!("the task does not accept: {e}");
    match request.port.protocol {
        PortProtocol::Tcp => match sources.connect(origin, addr).await {
            Ok(task) => relay::linked(task, arrival.accept(), false, &lease).await,
            Err(e) => refuse(arrival, failed(e)),
        },
        PortProtocol::Udp => match sources.connect_datagrams(origin, addr) {
            Ok(task) => udp::serve_linked(arrival.accept(), task).await,
            Err(e) => refuse(arrival, failed(e)),
        },
        PortProtocol::Sctp => refuse(arrival, "SCTP is not forwarded".to_owned()),
    }
}

/// The other node may have a newer table, which is on its way here.
async fn check_soon(request: &OpenRequest, forwarder: &Forwarder) -> Result<Served, String> {
    let mut rebuilt = forwarder.plane.rebuilt();
    let deadline = Instant::now() + TABLE_WAIT;
    loop {
        rebuilt.mark_unchanged();
        let reason = match check(request, forwarder) {
            Ok(served) => return Ok(served),
            Err(reason) => reason,
        };
        if !matches!(timeout_at(deadline, rebuilt.changed()).await, Ok(Ok(()))) {
            return Err(reason);
        }
    }
}

/// Whether another node may ask for that: the task is of this node and in the table, and its service publishes the port.
fn check(request: &OpenRequest, forwarder: &Forwarder) -> Result<Served, String> {
    let OpenRequest { task, port, .. } = request;
    let served = forwarder.plane.served(*task).ok_or_else(|| format!("task {task} does not serve on this node"))?;
    if !served.ports.contains(port) {
        let (published, protocol, target) = (port.published, port.protocol.as_str(), port.target);
        return Err(format!("the service of task {task} does not publish {published}:{target}/{protocol}"));
    }
    Ok(served)
}
