//! The keepers of all containers.

use std::{collections::BTreeMap, io, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    keeper::{Common, ContainerKeeper, Request, Resolver},
    reports::Keeper,
    state::State,
};

/// Requests that wait for a container's keeper.
const REQUESTS_MAX: usize = 8;

/// The keepers of all containers.
pub(crate) struct Containers {
    common: Arc<Common>,
    keepers: BTreeMap<String, Kept>,
}

struct Kept {
    requests: mpsc::Sender<Request>,
    task: AbortOnDropHandle<()>,
}

impl Containers {
    pub(crate) fn new(common: Common) -> Self {
        Self { common: Arc::new(common), keepers: BTreeMap::new() }
    }

    /// Leaves the containers that are gone. Returns their keepers, whose end has to be waited for before a container of
    /// the same name is kept.
    pub(crate) fn leave(&mut self, state: &State) -> Vec<AbortOnDropHandle<()>> {
        let gone = self.keepers.extract_if(.., |id, _| !state.containers.contains_key(id));
        gone.map(|(_, kept)| kept.task).collect()
    }

    /// Begins to keep the containers that are new. Their records are published already.
    pub(crate) fn begin(&mut self, state: &State) {
        for (id, container) in &state.containers {
            if self.keepers.contains_key(id) {
                continue;
            }
            if container.sandbox.is_some() {
                // The container runs: its tables are waited for.
                self.common.progress.reached(Keeper::Container(id.clone()), 0);
            }
            let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
            let keeper = ContainerKeeper {
                id: id.clone(),
                common: Arc::clone(&self.common),
                wanted: self.common.wanted.clone(),
                found: self.common.found.clone(),
                requests: receiver,
                waiting: Vec::new(),
            };
            let task = AbortOnDropHandle::new(tokio::spawn(keeper.keep()));
            self.keepers.insert(id.clone(), Kept { requests, task });
        }
    }

    /// The way to a container's keeper; none for one that is not known.
    pub(crate) fn requests(&self, id: &str) -> Option<mpsc::Sender<Request>> {
        self.keepers.get(id).map(|kept| kept.requests.clone())
    }

    /// Why no container gets tables on this host, if so.
    pub(crate) fn missing(&self) -> Option<&String> {
        self.common.missing.as_ref()
    }

    /// Begins to remove the tables of all containers. Returns what tells the end of each removal.
    pub(crate) fn remove_all(&self) -> Vec<oneshot::Receiver<()>> {
        let mut removals = Vec::new();
        for kept in self.keepers.values() {
            let (done, removed) = oneshot::channel();
            if kept.requests.try_send(Request::Remove(done)).is_ok() {
                removals.push(removed);
            }
        }
        removals
    }
}

/// Asks a keeper for the sockets of its container's resolver.
///
/// # Errors
/// The kernel's, or the container is gone.
pub(crate) async fn resolver(requests: &mpsc::Sender<Request>) -> io::Result<Resolver> {
    let (answer, resolver) = oneshot::channel();
    let is_gone = || io::Error::new(io::ErrorKind::NotFound, "the container is gone");
    requests.send(Request::Resolver(answer)).await.map_err(|_| is_gone())?;
    resolver.await.map_err(|_| is_gone())?
}
