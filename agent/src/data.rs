//! The connection to the node's data plane.

use std::{io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use swarm_dataplane::protocol::{FromData, ToData};
use swarm_model::DataAddress;
use swarm_wire::channel;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{ByteStream, Event},
    worker::DataInput,
};

/// Messages that may wait to be written. More means that the data plane stands still: it is told everything anew when it
/// answers again.
const OUTGOING_MAX: usize = 1024;
/// Time between two attempts: a data plane that was started anew is to listen again within a second.
const RETRY: Duration = Duration::from_millis(100);
/// Time for the first message of a data plane.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// The way to the node's data plane.
pub trait DataPlane: Send + Sync + 'static {
    /// Opens a connection; starts the process where that is the node's task.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;

    /// Whether one runs already: that of an earlier run of this program goes on by the table that it had.
    fn runs(&self) -> BoxFuture<'_, bool>;

    /// The node's settings for its data plane, and every change of them: said before anything else.
    fn settings(&self) -> watch::Receiver<Arc<[ToData]>>;

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
    let work = async {
        needed.notified().await;
        let mut reported = String::new();
        loop {
            let end = match serve(&*plane, &events).await {
                Ok(()) => "it closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            if events.send(Event::Data(None, DataInput::Down)).await.is_err() {
                return;
            }
            if end != reported {
                tracing::warn!(reason = %end, "no connection to the data plane of this node; it is tried again");
                reported = end;
            }
            sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

async fn serve(plane: &dyn DataPlane, events: &mpsc::Sender<Event>) -> io::Result<()> {
    let (mut sender, mut receiver) = channel::<_, ToData, FromData>(plane.connect().await?);
    let mut settings = plane.settings();
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "it did not greet in time");
    let hello = timeout(HELLO_MAX, receiver.recv()).await.map_err(|_| silent())??;
    let Some(FromData::Hello { program, table, .. }) = hello else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its first message is no greeting"));
    };
    let told = settings.borrow_and_update().clone();
    for message in told.iter() {
        sender.send(message).await?;
    }
    tracing::info!(%program, "connected to the data plane");
    let (outgoing, mut messages) = mpsc::channel(OUTGOING_MAX);
    let gone = |_| io::Error::other("the agent ended");
    events.send(Event::Data(Some(outgoing), DataInput::Up(table))).await.map_err(gone)?;
    // Receiving is not to be cancelled half-way.
    let read = async {
        while let Some(message) = receiver.recv().await? {
            events.send(Event::Data(None, DataInput::Says(message))).await.map_err(gone)?;
        }
        Ok(())
    };
    let write = async {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => sender.send(&message).await?,
                    None => return Err(io::Error::other("it does not keep up")),
                },
                Ok(()) = settings.changed() => {
                    let now = settings.borrow_and_update().clone();
                    for message in now.iter() {
                        sender.send(message).await?;
                    }
                }
            }
        }
    };
    tokio::select! {
        end = read => end,
        end = write => end,
    }
}
