//! The connection to another process of the node: the data plane, or `swarmd net`.

use std::{io, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use swarm_wire::{Receiver, Sender};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::connection::{ByteStream, Event};

/// Messages that may wait to be written. More means that the process stands still: it is told everything anew when it
/// answers again.
pub(crate) const OUTGOING_MAX: usize = 1024;
/// Time between two attempts: a process that was started anew is to be there again within a second.
const RETRY: Duration = Duration::from_millis(100);
/// Time for the first message of the process.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// The way to another process of the node, which takes messages of type `To`.
pub trait Side<To>: Send + Sync + 'static {
    /// Opens a connection; starts the process where that is the node's task.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>>;

    /// The node's settings for the process, and every change of them: said before anything else.
    fn settings(&self) -> watch::Receiver<Arc<[To]>>;
}

/// Keeps a connection from the moment on that `needed` says, until `stop`. `serve` has one connection, until it ends;
/// `down` tells of its end.
pub(crate) async fn keep(
    name: &str,
    needed: Arc<Notify>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    serve: impl Fn() -> BoxFuture<'static, io::Result<()>>,
    down: impl Fn(String) -> Event,
) {
    let work = async {
        needed.notified().await;
        let mut reported = String::new();
        loop {
            let end = match serve().await {
                Ok(()) => "it closed the connection".to_owned(),
                Err(error) => error.to_string(),
            };
            if events.send(down(end.clone())).await.is_err() {
                return;
            }
            if end != reported {
                tracing::warn!(reason = %end, "no connection to {name} of this node; it is tried again");
                reported = end;
            }
            sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(work).await;
}

/// The first message of the process.
pub(crate) async fn greeting<S, From>(receiver: &mut Receiver<S, From>) -> io::Result<From>
where
    S: AsyncRead + Unpin,
    From: DeserializeOwned,
{
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "it did not greet in time");
    let hello = timeout(HELLO_MAX, receiver.recv()).await.map_err(|_| silent())??;
    hello.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it closed the connection without a greeting"))
}

/// Passes messages both ways, and the settings when they change, until the connection ends.
pub(crate) async fn pass<R, W, To, From>(
    (sender, receiver): (&mut Sender<W, To>, &mut Receiver<R, From>),
    settings: &mut watch::Receiver<Arc<[To]>>,
    messages: &mut mpsc::Receiver<To>,
    events: &mpsc::Sender<Event>,
    event: impl Fn(From) -> Event,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    To: Serialize,
    From: DeserializeOwned,
{
    // Receiving is not to be cancelled half-way.
    let read = async {
        while let Some(message) = receiver.recv().await? {
            events.send(event(message)).await.map_err(|_| ended())?;
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

/// The error of a connection whose agent is gone.
pub(crate) fn ended() -> io::Error {
    io::Error::other("the agent ended")
}
