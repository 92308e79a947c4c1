//! Autolock: a manager's keys are wrapped on its disk, and after a restart it waits for a person with the key
//! (swarm-behaviour §8.4).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt, stream};
use swarm_docker_api::{ApiError, LOCKED, NO_SWARM, NOT_A_MANAGER, view::UnlockKeyView};
use swarm_manager::Manager;
use swarm_model::Redacted;
use swarm_wire::{PeerIdentity, UnlockKey};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    node::{Node, Swarm},
    state_dir::StateDir,
};

/// Longest time that a change of autolock waits for this node's own keys to follow: two small files.
const KEPT_WAIT: Duration = Duration::from_secs(5);
/// How long a new key may go unseen before this manager's keys are wrapped with it. `docker swarm` and `swarmctl` ask
/// for it at once.
const SHOWN_WAIT: Duration = Duration::from_secs(5);
/// Largest answer with a key.
const KEY_ANSWER_BYTES_MAX: usize = 1 << 10;
/// Pause before files that could not be written are tried again: a full disk.
const RETRY: Duration = Duration::from_secs(1);
/// Grace of containers that go with a locked node: nobody can read their specs.
const STOP_GRACE_SECS: u32 = 10;

impl Node {
    /// Opens the keys of a locked manager and takes up its place in its cluster.
    ///
    /// # Errors
    /// 400 for a text that is no key, 401 for another key, 409 when it is not locked, 503 when it is no manager.
    pub(crate) async fn unlock(self: Arc<Self>, request: UnlockKeyView) -> Result<(), ApiError> {
        let _changing = self.change().await;
        match &*self.swarm() {
            Swarm::Locked(_) => {}
            Swarm::Out => return Err(ApiError::unavailable(NO_SWARM)),
            Swarm::In(member) if member.is_manager() => return Err(ApiError::conflict("swarm is not locked")),
            Swarm::In(_) => return Err(ApiError::unavailable(NOT_A_MANAGER)),
        }
        let internal = |e: anyhow::Error| ApiError::internal(format!("{e:#}"));
        let key =
            UnlockKey::parse(request.unlock_key.expose()).map_err(|error| ApiError::bad_request(error.to_string()))?;
        if !self.state().unlock(&key).map_err(internal)? {
            return Err(ApiError::unauthorized("swarm could not be unlocked: invalid key provided"));
        }
        match self.take_up().await {
            Ok(()) => Ok(()),
            Err(e) => {
                self.state().forget_keys();
                Err(internal(e.context("the key is right, but the manager does not start")))
            }
        }
    }

    /// Leaves the cluster without its keys: removes this node's containers and forgets everything. The others are not
    /// told.
    pub(crate) async fn leave_locked(&self, peer: &PeerIdentity, force: bool) -> Result<(), ApiError> {
        if !force {
            return Err(ApiError::unavailable(format!("{LOCKED} Use `--force` to leave all the same.")));
        }
        let executor = self.executor();
        let containers = executor.list(peer.node).await.map_err(|e| ApiError::unavailable(e.to_string()));
        let removed = async {
            for id in containers?.iter().filter_map(|listed| listed.state.container_id()) {
                let removed = executor.remove(id.to_owned(), STOP_GRACE_SECS).await;
                removed.map_err(|e| ApiError::unavailable(e.to_string()))?;
            }
            Ok::<_, ApiError>(())
        };
        if let Err(e) = removed.await {
            tracing::warn!("containers of this node are left: {}", e.message);
        }
        if let Err(e) = executor.keep_networks(Vec::new()).await {
            tracing::warn!("networks of this node are left at the engine: {e}");
        }
        self.stop_sides().await;
        self.state().wipe().map_err(|e| ApiError::internal(format!("{e:#}")))?;
        self.set(Swarm::Out);
        tracing::info!("this node left the swarm");
        Ok(())
    }
}

/// What autolock's key is for this manager; none while that is not known, else the key or that there is none.
type Known = watch::Sender<Option<Option<Redacted>>>;

/// How far this manager is with autolock.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    /// What its keys are wrapped with.
    kept: Known,
    /// What a person was told here.
    shown: Known,
}

impl Lock {
    /// Wraps this manager's keys as the cluster wants it, for ever.
    pub(crate) async fn follow(self: Arc<Self>, manager: Manager, state: Arc<StateDir>) {
        let mut last = None;
        loop {
            let mut key = manager.next_unlock_key(last.as_ref()).await;
            if key.is_some() {
                // Until somebody has seen it, a key that is lost with this machine must not be the only way in.
                let mut shown = self.shown.subscribe();
                let _ = timeout(SHOWN_WAIT, shown.wait_for(|shown| shown.as_ref() == Some(&key))).await;
                key = manager.next_unlock_key(last.as_ref()).await;
            }
            let kept = key.as_ref().map(|key| UnlockKey::parse(key.expose())).transpose();
            match kept.map_err(anyhow::Error::from).and_then(|unlock| state.set_lock(unlock.as_ref())) {
                Ok(changed) => {
                    if changed {
                        tracing::info!(on = key.is_some(), "autolock: the keys of this manager are kept accordingly");
                    }
                    self.kept.send_replace(Some(key.clone()));
                    last = Some(key);
                }
                Err(e) => {
                    tracing::error!("autolock: the keys of this manager cannot be kept as they should be: {e:#}");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Waits until this manager's keys are kept as they are to be now: when autolock was switched off, and when the key
    /// was told before.
    pub(crate) async fn settle(&self, manager: &Manager) {
        let settled = async {
            let key = manager.unlock_key().await.ok();
            if key == Some(None) || *self.shown.borrow() == key {
                let _ = self.kept.subscribe().wait_for(|kept| *kept == key).await;
            }
        };
        if timeout(KEPT_WAIT, settled).await.is_err() {
            tracing::warn!("autolock: the keys of this manager do not follow yet");
        }
    }

    /// The answer that tells somebody the key. When it is written the keys follow, and not before: whenever this process
    /// is killed, somebody knows the key that opens them.
    pub(crate) async fn tell(self: Arc<Self>, answer: Body) -> Result<Body, ApiError> {
        let whole = axum::body::to_bytes(answer, KEY_ANSWER_BYTES_MAX).await;
        let whole = whole.map_err(|e| ApiError::internal(e.to_string()))?;
        let told: UnlockKeyView = serde_json::from_slice(&whole).map_err(|e| ApiError::internal(e.to_string()))?;
        let key = Some(told.unlock_key).filter(|key| !key.expose().is_empty());
        let told = Told { lock: self, key };
        Ok(Body::from_stream(stream::iter([whole]).map(move |part| {
            let _until_written = &told;
            Ok::<_, Infallible>(part)
        })))
    }
}

/// An answer that tells a key; it is dropped when it is written.
struct Told {
    lock: Arc<Lock>,
    key: Option<Redacted>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.lock.shown.send_replace(Some(self.key.take()));
    }
}
