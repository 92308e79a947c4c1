//! The process that makes devices, tables and sockets of networks (`swarmd net`), and the way to it.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use futures_util::{FutureExt, future::BoxFuture};
use swarm_agent::{ByteStream, Side};
use swarm_net::{
    Options,
    protocol::{Caller, Configuration, FromNet, NET_PROTOCOL, ToNet},
};
use swarm_wire::NodeIdentity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    notify::{READY, notify},
    side::{self, Place},
};

/// Ends the process of a node that leaves its cluster, with all that it made.
pub(crate) async fn stop(place: &Place) {
    let hello = ToNet::Hello { protocol: NET_PROTOCOL, caller: Caller::Swarmd };
    place.stop::<ToNet, FromNet>(&[hello, ToNet::Stop { remove: true }]).await;
}

/// The way to a node's `swarmd net`.
pub(crate) struct NodeNet {
    place: Place,
    settings: watch::Receiver<Arc<[ToNet]>>,
}

impl NodeNet {
    /// The way of a node to its process. Other nodes send packets to `data_addr`, and the engine shows the network namespaces of
    /// its containers in the folder `sandboxes`.
    pub(crate) fn new(place: Place, identity: &NodeIdentity, data_addr: IpAddr, sandboxes: PathBuf) -> Self {
        let configuration =
            Configuration { node: identity.node(), cluster: identity.cluster().to_string(), data_addr, sandboxes };
        // They stay as they are: a receiver without a sender sees no change.
        let (_, settings) = watch::channel([ToNet::Configure(configuration)].into());
        Self { place, settings }
    }
}

impl Side<ToNet> for NodeNet {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        self.place.connect().boxed()
    }

    fn settings(&self) -> watch::Receiver<Arc<[ToNet]>> {
        self.settings.clone()
    }
}

/// Runs this process as `swarmd net`.
///
/// # Errors
/// Its socket cannot be opened.
pub(crate) async fn run(socket: PathBuf) -> Result<()> {
    side::leave_session();
    let (stop, leave) = (CancellationToken::new(), CancellationToken::new());
    let options = Options {
        socket: socket.clone(),
        cancel: stop.clone(),
        leave: leave.clone(),
        on_ready: Box::new(|| notify(&format!("MAINPID={}\n{READY}", std::process::id()))),
    };
    side::until_told(&socket, stop, leave, swarm_net::run(options)).await.context("swarmd net")
}
