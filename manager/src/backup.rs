//! Backups: what a manager gives out, and how another one begins with it.

use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use swarm_consensus::{Backup, BackupError};
use swarm_core::{Op, Tx};
use swarm_model::{Availability, Id, NodeId, NodeRole, Redacted};
use swarm_wire::{Ca, CaError, IdentityError, NodeIdentity, SigningTime, clock, new_key_and_csr};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{clock::random, members};

/// Bytes that are written at once: a frame of a snapshot.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for a client that reads slowly.
const CHUNKS_MAX: usize = 4;

/// A swarm that is to go on from a backup, with this node as its only manager.
#[derive(Debug)]
pub struct Restore {
    pub(crate) backup: Backup,
    pub(crate) raft_id: u64,
}

/// Why a swarm cannot go on from a backup.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The backup itself.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The certificate authority in it.
    #[error("the backup's certificate authority: {0}")]
    Ca(#[from] CaError),
    /// The new manager's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No id.
    #[error("{0}")]
    Random(String),
}

impl Restore {
    /// Makes a new node the only manager of the swarm in a backup, reachable at `manager_addr` (`host:port`). All
    /// managers that it had are removed from it. The identity is to be kept before a manager is started with the rest.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn new(backup: Backup, manager_addr: &str) -> Result<(Self, NodeIdentity), RestoreError> {
        let now = clock::now();
        let cluster = backup.state().cluster().cloned().ok_or(BackupError::Empty)?;
        let time = SigningTime { clock: now, log: backup.state().time() };
        let node = NodeId::make(now, random().map_err(RestoreError::Random)?);
        let ca = Ca::load(&cluster.root_ca.cert_pem, &cluster.root_ca.key_pem)?;
        let (key, csr) = new_key_and_csr()?;
        let validity_ns = cluster.spec.ca_config.node_cert_expiry_ns;
        let issued = ca.issue(&csr, node, NodeRole::Manager, cluster.id, validity_ns, time)?;
        let identity = NodeIdentity::new(issued.cert_pem, key, ca.cert_pem())?;
        let admit = Op::AdmitNode {
            node,
            role: NodeRole::Manager,
            cert_expires_at: issued.expires_at,
            manager_addr: Some(manager_addr.to_owned()),
            availability: Availability::Active,
        };
        // First the new one: it gets a Raft id that none of the others ever had.
        let ops = std::iter::once(admit).chain(members::remove_others(backup.state(), node).ops).collect();
        let backup = backup.successor(vec![Tx::new(ops)])?;
        let raft_id = backup.state().node(node).and_then(|node| node.raft_id);
        let raft_id = raft_id.ok_or_else(|| BackupError::Refused("its new manager got no Raft id".into()))?;
        Ok((Self { backup, raft_id }, identity))
    }

    /// The Raft id of the new manager.
    pub fn raft_id(&self) -> u64 {
        self.raft_id
    }
}

/// The sealed bytes of a backup, made while they are read. An error ends them.
pub(crate) fn sealed(backup: Backup, passphrase: Redacted) -> BoxStream<'static, io::Result<Bytes>> {
    let (chunks, read) = mpsc::channel(CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(CHUNK_BYTES, Chunks(chunks.clone()));
        let written = backup.write(&mut out, &passphrase).and_then(|()| out.flush());
        if let Err(error) = written {
            tracing::warn!(%error, "a backup broke off");
            // Whoever read it may be gone.
            drop(chunks.blocking_send(Err(error)));
        }
    });
    unfold(read, |mut read| async move { read.recv().await.map(|chunk| (chunk, read)) }).boxed()
}

struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
