//! The Unix socket of the API, and serving HTTP on it.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{Api, Client},
    reminder::{PERIOD, Reminder},
    users::Users,
};

/// How long requests that are being answered may take to end when swarmd stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ApiSocket {
    /// Opens the socket, mode 0660. A file that a crash left behind is replaced, a socket on which somebody listens
    /// is not.
    pub(crate) async fn bind(path: &Path) -> Result<Self> {
        let named = || format!("the API socket {}", path.display());
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)
                .with_context(|| format!("cannot make the folder of {} (choose another one with --socket)", named()))?;
        }
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                bail!("{} exists and is not a socket", path.display());
            }
            match UnixStream::connect(path).await {
                Ok(_) => bail!("{} is in use: another daemon listens on it", named()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    tracing::info!(path = %path.display(), "replacing a socket that nobody listens on");
                    fs::remove_file(path).with_context(named)?;
                }
                Err(e) => return Err(e).with_context(|| format!("cannot tell whether {} is in use", named())),
            }
        }
        let opening = || format!("cannot open {}", named());
        let socket = UnixSocket::new_stream().with_context(opening)?;
        // Its file gets this mode less the umask, so that it never is there for everybody. A socket that is renamed
        // afterwards would be the simpler way, but clients see the name that it was bound to, in their errors.
        fchmod(&socket, Mode::from_raw_mode(0o660)).with_context(named)?;
        socket.bind(path).with_context(opening)?;
        fs::set_permissions(path, Permissions::from_mode(0o660)).with_context(named)?;
        let listener = socket.listen(BACKLOG).with_context(opening)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers requests until `stop`; those under way then get [`DRAIN_TIMEOUT`].
    pub(crate) async fn serve(self, api: Api, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let mut reminder = Reminder::new(PERIOD);
        let users = Arc::new(Users::default());
        let from: Arc<str> = self.path.to_string_lossy().into();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        if let Some(others) = reminder.happened() {
                            tracing::warn!(others, "cannot accept a connection to the API: {e}");
                        }
                        tokio::time::sleep(ACCEPT_RETRY).await;
                        continue;
                    }
                },
            };
            let (api, stop, users, from) = (api.clone(), stop.clone(), users.clone(), from.clone());
            connections.spawn(async move {
                match stream.peer_cred() {
                    Ok(peer) => {
                        let client = Client { principal: users.principal(peer.uid()).await, from: (*from).to_owned() };
                        serve_connection(stream, api, client, stop).await;
                    }
                    // Without a name nobody is served.
                    Err(e) => tracing::warn!("a connection to the API was closed: who made it is not known: {e}"),
                }
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn serve_connection(stream: UnixStream, api: Api, client: Client, stop: CancellationToken) {
    let client = Arc::new(client);
    let service = hyper::service::service_fn(move |request| {
        let (api, client) = (api.clone(), client.clone());
        async move { Ok::<_, std::convert::Infallible>(api.answer(request, &client).await) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a connection to the API ended: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/api.sock");
        let first = ApiSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let client = UnixStream::connect(&path).await.unwrap();
        assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(path.as_path()), "clients name it in their errors");
        let text = format!("{:#}", ApiSocket::bind(&path).await.unwrap_err());
        assert!(text.contains("in use") && text.contains("api.sock"), "{text}");

        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        ApiSocket::bind(&path).await.unwrap();

        fs::write(&path, "text").unwrap();
        let text = format!("{:#}", ApiSocket::bind(&path).await.unwrap_err());
        assert!(text.contains("not a socket"), "{text}");
    }
}
