//! The process `swarmd net`.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};
use imbl::OrdMap;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::spawn_blocking,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    containers::Containers,
    control::{self, Net},
    finder,
    host::{
        Ends, Kinds,
        tend::{Tended, tend},
    },
    keeper::Common,
    probe,
    reports::{Progress, Reports},
    socket::OwnSocket,
    state::Wanted,
};

/// Namespaces that are changed at a time.
const CHANGES_MAX: usize = 16;
/// Questions that wait for the host.
const QUESTIONS_MAX: usize = 16;

/// How `swarmd net` runs.
pub struct Options {
    /// The socket that swarmd and its data plane connect to. Its folder is there already, is of this user, and nobody
    /// else may enter it.
    pub socket: PathBuf,
    /// Ends the process. Devices and tables stay.
    pub cancel: CancellationToken,
    /// Ends the process, with all devices and tables that it made.
    pub leave: CancellationToken,
    /// Called once it listens.
    pub on_ready: Box<dyn FnOnce() + Send>,
}

/// Runs `swarmd net` in the network namespace of the calling thread, until it is cancelled or swarmd says that it is to
/// end.
///
/// The environment variable `SWARMD_WITHOUT` names parts of the kernel (`vxlan`, `tun`, `nft`, `setns`) that it is not
/// to use.
///
/// # Errors
/// The socket cannot be opened: its folder is open to others, or another process listens there. Netlink cannot be used.
pub async fn run(options: Options) -> Result<()> {
    run_without(options, probe::without_from_environment()).await
}

/// The same without these parts of the kernel.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_without(options: Options, without: BTreeSet<String>) -> Result<()> {
    raise_limit();
    let abilities = spawn_blocking(move || probe::probe(&without)).await?;
    let socket = OwnSocket::bind(options.socket).await?;
    let (reports, progress) = (Arc::new(Reports::default()), Arc::new(Progress::new()));
    let wanted = watch::Sender::new(Wanted::default());
    let ends = watch::Sender::new(Ends::new());
    let (found_sender, found) = watch::channel(OrdMap::new());
    let (host, questions) = mpsc::channel(QUESTIONS_MAX);
    let tended = Tended {
        wanted: wanted.subscribe(),
        ends: ends.subscribe(),
        questions,
        reports: Arc::clone(&reports),
        progress: Arc::clone(&progress),
        kinds: Kinds { vxlan: abilities.vxlan.clone(), tap: abilities.tun.clone() },
    };
    let missing = abilities.setns.as_ref().err().or(abilities.nft.as_ref().err()).cloned();
    let _finding = AbortOnDropHandle::new(tokio::spawn(finder::find(wanted.subscribe(), found_sender)));
    let common = Common {
        wanted: wanted.subscribe(),
        found,
        ends,
        reports: Arc::clone(&reports),
        progress: Arc::clone(&progress),
        changes: Semaphore::new(CHANGES_MAX),
        missing,
    };
    let containers = Mutex::new(Containers::new(common));
    let stop = CancellationToken::new();
    let net = Arc::new(Net { wanted, containers, host, reports, progress, abilities, stop });
    (options.on_ready)();
    tokio::select! {
        () = options.cancel.cancelled() => Ok(()),
        () = leave(&options.leave, &net) => Ok(()),
        () = control::serve(&socket, &net) => Ok(()),
        tended = tend(tended) => tended.context("the links of this host cannot be kept"),
    }
}

async fn leave(told: &CancellationToken, net: &Net) {
    told.cancelled().await;
    net.remove_all().await;
}

/// Raises the limit of open files as far as it may: each container takes two.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("cannot raise the limit of open files: {e}");
    }
}
