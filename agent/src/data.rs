//! The connection to the node's data plane.

use std::{io, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use swarm_dataplane::protocol::{FromData, ToData};
use swarm_model::DataAddress;
use swarm_wire::channel;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Event,
    side::{self, OUTGOING_MAX, Side},
    worker::DataInput,
};

/// The way to the node's data plane.
pub trait DataPlane: Side<ToData> {
    /// Whether one runs already: that of an earlier run of this program goes on by the table that it had.
    fn runs(&self) -> BoxFuture<'_, bool>;

    /// The address at which other nodes reach it.
    fn address(&self) -> DataAddress;
}

/// Keeps a connection from the moment on that `needed` says, until `stop`.
pub(crate) async fn run(
    plane: Arc<dyn DataPlane>,
    needed: Arc<Notify>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let down = |_| Event::Data(None, DataInput::Down);
    let to = events.clone();
    side::keep("the data plane", needed, events, stop, || serve(plane.clone(), to.clone()).boxed(), down).await;
}

async fn serve(plane: Arc<dyn DataPlane>, events: mpsc::Sender<Event>) -> io::Result<()> {
    let (mut sender, mut receiver) = channel::<_, ToData, FromData>(plane.connect().await?);
    let mut settings = plane.settings();
    let FromData::Hello { program, table, .. } = side::greeting(&mut receiver).await? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its first message is no greeting"));
    };
    let told = settings.borrow_and_update().clone();
    for message in told.iter() {
        sender.send(message).await?;
    }
    tracing::info!(%program, "connected to the data plane");
    let (outgoing, mut messages) = mpsc::channel(OUTGOING_MAX);
    events.send(Event::Data(Some(outgoing), DataInput::Up(table))).await.map_err(|_| side::ended())?;
    let event = |message| Event::Data(None, DataInput::Says(message));
    side::pass((&mut sender, &mut receiver), &mut settings, &mut messages, &events, event).await
}
