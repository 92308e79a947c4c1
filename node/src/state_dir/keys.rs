//! The keys on this node's disk, and autolock, which wraps them (swarm-behaviour §8.4).
//!
//! The key of the log is wrapped with autolock's key, the node's private key with one that follows from the key of the
//! log. So one file alone changes with autolock's key, and whatever moment a crash chooses, what lies there opens:
//! switching on wraps the private key first, switching off unwraps it last.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use swarm_consensus::{KeyFile, SealKey};
use swarm_manager::SEAL_KEY_FILE;
use swarm_model::NodeRole;
use swarm_wire::{IDENTITY_FILES, NodeIdentity, PeerIdentity, UnlockKey, WrapKey};

use super::{MANAGER_FOLDER, MEMBERSHIP_FILE, StateDir};

/// The keys in memory while autolock is on; both are there, or none.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The key of the log.
    seal: Option<SealKey>,
    /// What its file is wrapped with.
    lock: Option<UnlockKey>,
}

impl Keys {
    fn wrap(&self) -> Option<WrapKey> {
        self.seal.as_ref().map(SealKey::node_wrap_key)
    }
}

impl StateDir {
    fn seal_key_file(&self) -> PathBuf {
        self.path.join(MANAGER_FOLDER).join(SEAL_KEY_FILE)
    }

    /// Whose keys are wrapped and have not been opened since swarmd started, if this node is such a manager.
    pub(crate) fn locked(&self) -> Result<Option<PeerIdentity>> {
        let keys = self.keys();
        if keys.lock.is_some() || !self.path.join(MEMBERSHIP_FILE).exists() {
            return Ok(None);
        }
        let folder = self.certificates();
        let peer = NodeIdentity::peek(&folder)
            .with_context(|| format!("{}/{} is damaged", folder.display(), IDENTITY_FILES[0]))?
            .filter(|peer| peer.role == NodeRole::Manager);
        let file = SealKey::read(&self.seal_key_file())?;
        Ok(peer.filter(|_| matches!(file, Some(KeyFile::Wrapped(_)))))
    }

    /// Opens the keys; false if this is not the key that wrapped them.
    pub(crate) fn unlock(&self, unlock: &UnlockKey) -> Result<bool> {
        let mut keys = self.keys();
        let Some(KeyFile::Wrapped(wrapped)) = SealKey::read(&self.seal_key_file())? else { return Ok(true) };
        let Some(seal) = wrapped.open(unlock) else { return Ok(false) };
        *keys = Keys { seal: Some(seal), lock: Some(unlock.clone()) };
        Ok(true)
    }

    /// Forgets what [`StateDir::unlock`] opened.
    pub(crate) fn forget_keys(&self) {
        *self.keys() = Keys::default();
    }

    /// The key of the log, if its file is wrapped.
    pub(crate) fn seal_key(&self) -> Option<SealKey> {
        self.keys().seal.clone()
    }

    /// Wraps the keys with this key of autolock, or unwraps them. Says whether that changed anything.
    pub(crate) fn set_lock(&self, unlock: Option<&UnlockKey>) -> Result<bool> {
        let mut keys = self.keys();
        if keys.lock.as_ref() == unlock {
            return Ok(false);
        }
        let file = self.seal_key_file();
        let seal = match (keys.seal.clone(), SealKey::read(&file)?) {
            (Some(seal), _) | (None, Some(KeyFile::Open(seal))) => seal,
            (None, _) => bail!("{} holds no key that is open", file.display()),
        };
        if keys.lock.is_none() {
            self.rewrite_identity(&seal, true)?;
        }
        seal.write(&file, unlock)?;
        // From here on a new certificate's key is written as the next start expects it.
        *keys = match unlock {
            Some(unlock) => Keys { seal: Some(seal.clone()), lock: Some(unlock.clone()) },
            None => Keys::default(),
        };
        if unlock.is_none() {
            self.rewrite_identity(&seal, false)?;
        }
        Ok(true)
    }

    /// Writes the identity that there is with its private key wrapped or not.
    fn rewrite_identity(&self, seal: &SealKey, wrapped: bool) -> Result<()> {
        let (folder, wrap) = (self.certificates(), seal.node_wrap_key());
        let identity = NodeIdentity::load(&folder, Some(&wrap)).context("cannot read this node's identity")?;
        match identity {
            Some(identity) => {
                identity.save(&folder, wrapped.then_some(&wrap)).context("cannot keep this node's identity")
            }
            None => Ok(()),
        }
    }

    /// The identity that there is; its keys must not be [locked](StateDir::locked).
    pub(super) fn load_identity(&self) -> Result<Option<NodeIdentity>> {
        let keys = self.keys();
        // Switching off may have been cut off between the two files.
        let wrap = match (keys.wrap(), SealKey::read(&self.seal_key_file())?) {
            (None, Some(KeyFile::Open(seal))) => Some(seal.node_wrap_key()),
            (wrap, _) => wrap,
        };
        let folder = self.certificates();
        NodeIdentity::load(&folder, wrap.as_ref()).with_context(|| {
            let [certificate, key, root] = IDENTITY_FILES.map(|file| folder.join(file).display().to_string());
            format!("{certificate}, {key} and {root} do not make this node's identity")
        })
    }

    /// Keeps the identity: a new one, or a renewed one.
    pub(crate) fn save_identity(&self, identity: &NodeIdentity) -> Result<()> {
        let keys = self.keys();
        // A worker's keys are not wrapped: it starts without a person.
        let wrap = keys.wrap().filter(|_| identity.role() == NodeRole::Manager);
        identity.save(&self.certificates(), wrap.as_ref()).context("cannot keep this node's identity")
    }
}

#[cfg(test)]
mod tests;
