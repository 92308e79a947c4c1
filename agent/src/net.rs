//! The connection to the node's `swarmd net`, which makes the devices and tables of networks.

use std::{io, sync::Arc};

use futures_util::FutureExt;
use swarm_net::protocol::{Caller, FromNet, NET_PROTOCOL, ToNet};
use swarm_wire::channel;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Event,
    side::{self, OUTGOING_MAX, Side},
    worker::NetInput,
};

/// Keeps a connection from the moment on that `needed` says, until `stop`.
pub(crate) async fn run(
    net: Arc<dyn Side<ToNet>>,
    needed: Arc<Notify>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let down = |reason| Event::Net(None, NetInput::Down(reason));
    let to = events.clone();
    side::keep("swarmd net", needed, events, stop, || serve(net.clone(), to.clone()).boxed(), down).await;
}

async fn serve(net: Arc<dyn Side<ToNet>>, events: mpsc::Sender<Event>) -> io::Result<()> {
    let (mut sender, mut receiver) = channel::<_, ToNet, FromNet>(net.connect().await?);
    let mut settings = net.settings();
    let FromNet::Hello { program, abilities, .. } = side::greeting(&mut receiver).await? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its first message is no greeting"));
    };
    sender.send(&ToNet::Hello { protocol: NET_PROTOCOL, caller: Caller::Swarmd }).await?;
    let told = settings.borrow_and_update().clone();
    for message in told.iter() {
        sender.send(message).await?;
    }
    tracing::info!(%program, "connected to swarmd net");
    let (outgoing, mut messages) = mpsc::channel(OUTGOING_MAX);
    events.send(Event::Net(Some(outgoing), NetInput::Up(abilities))).await.map_err(|_| side::ended())?;
    let event = |message| Event::Net(None, NetInput::Says(message));
    side::pass((&mut sender, &mut receiver), &mut settings, &mut messages, &events, event).await
}
