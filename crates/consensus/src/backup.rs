//! A backup of the state, and the way from it to a swarm again.
//!
//! Layout: magic, a random salt, then a snapshot (see `snapshot`) that is sealed with a key made of the passphrase and
//! the salt. So a backup is whole, unaltered and in order, or it is refused; nothing in it can be read without the
//! passphrase. It holds the state, the swarm's certificate authority included, and where the log stood; it holds no
//! manager's own key.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    sync::Arc,
};

use argon2::{Algorithm, Argon2, Params, Version};
use openraft::BasicNode;
use swarm_core::{ENTRY_VERSION, Entry, State, Tx};
use swarm_model::Redacted;
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use crate::{
    Consensus, Error, Observer, Options, ProposeError, SealKey,
    consensus::blocking,
    digest::Sum,
    disk::{Change, Disk, FolderDisk, Name},
    history::Past,
    load::{first_values, seal_of},
    options::config,
    records::{self, Ballot, Head, Place},
    seal::{Kind, RandomId, Seal, SealError, random_id},
    snapshot::{self, ReadError, Reader},
    types::{LeaderId, LogId, Membership, SnapshotMeta, StoredMembership, Vote},
};

/// Start of every backup; the digit is the version of the layout, which also says what the key is made with.
const MAGIC: [u8; 8] = *b"swrback1";
/// What all versions of the magic begin with.
const MAGIC_STEM: &[u8] = b"swrback";
/// What one guess of a passphrase costs: 64 MiB of memory, three times over, some tenths of a second.
const GUESS_MEMORY_KIB: u32 = 64 * 1024;
/// See [`GUESS_MEMORY_KIB`].
const GUESS_PASSES: u32 = 3;
/// How far the revision of a restored swarm is ahead of the backup's: the old one cannot have come so far since, so
/// that no Raft id and no revision that an agent has seen comes a second time. Numbers stay exact in JSON.
pub const REVISION_GAP: u64 = 1_000_000_000_000;
/// The same for the term: a manager of the old swarm that is still up never has a log that counts for more.
const TERM_GAP: u64 = 1_000_000;

/// Why a backup cannot be read. Nothing was changed.
#[derive(Debug, ThisError)]
pub enum BackupError {
    /// It is something else.
    #[error("this is no backup of a swarm: it does not begin as one")]
    Foreign,
    /// Of a later layout, or of a swarm with a higher feature level.
    #[error("the backup was written by a newer swarmd: restore it with that version")]
    Newer,
    /// Its first part cannot be opened.
    #[error("the passphrase is wrong, or the beginning of the backup was altered")]
    Passphrase,
    /// The end is missing.
    #[error("the backup is cut short: copy it again, or take another one")]
    Short,
    /// Something in it is not what was written.
    #[error("the backup is damaged: {0}; take another one")]
    Damaged(String),
    /// It holds no swarm.
    #[error("the backup holds no swarm")]
    Empty,
    /// The change that begins the restored swarm fell.
    #[error("the swarm in the backup cannot be taken up: {0}")]
    Refused(String),
    /// It cannot be read or written.
    #[error("{0}")]
    Io(io::Error),
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Short => Self::Short,
            ReadError::Damaged(detail) | ReadError::Unknown(detail) => Self::Damaged(detail),
            ReadError::Newer(_) => Self::Newer,
            ReadError::Io(error) => Self::Io(error),
        }
    }
}

/// A state with its place in the log. A clone costs nothing.
#[derive(Clone, Debug)]
pub struct Backup {
    pub(crate) last: LogId,
    pub(crate) state: State,
}

impl Backup {
    /// The state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Writes it, sealed with a passphrase. Blocks, for the passphrase alone some tenths of a second.
    ///
    /// # Errors
    /// What `out` says, or that the system has no randomness or memory.
    pub fn write(&self, out: &mut dyn Write, passphrase: &Redacted) -> io::Result<()> {
        let salt = random_id().map_err(no_randomness)?;
        out.write_all(&MAGIC)?;
        out.write_all(&salt)?;
        // Who the managers were is of no use: whoever restores it is the only one.
        let meta = SnapshotMeta { last_log_id: Some(self.last), last_membership: StoredMembership::default() };
        snapshot::write(out, &seal(passphrase, salt)?, &Head::new(&meta, &Past::default()), &self.state)
    }

    /// Reads one and checks all of it. Blocks.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn read(mut source: impl Read, passphrase: &Redacted) -> Result<Self, BackupError> {
        let mut magic = [0; MAGIC.len()];
        let mut salt = RandomId::default();
        source.read_exact(&mut magic).map_err(ReadError::from)?;
        if magic != MAGIC {
            return Err(if magic.starts_with(MAGIC_STEM) { BackupError::Newer } else { BackupError::Foreign });
        }
        source.read_exact(&mut salt).map_err(ReadError::from)?;
        let seal = seal(passphrase, salt).map_err(BackupError::Io)?;
        let (meta, _, mut reader) = Reader::open(source, &seal, ENTRY_VERSION).map_err(|error| match error {
            ReadError::Damaged(_) => BackupError::Passphrase,
            other => other.into(),
        })?;
        let mut failed = None;
        let state = State::import(std::iter::from_fn(|| {
            reader.object().unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        }));
        match (failed, meta.last_log_id) {
            (Some(error), _) => Err(error.into()),
            (None, Some(last)) if state.cluster().is_some() => Ok(Self { last, state }),
            _ => Err(BackupError::Empty),
        }
    }

    /// The swarm that goes on from here: its state after these changes, [`REVISION_GAP`] revisions on.
    ///
    /// # Errors
    /// [`BackupError::Refused`] when one of the changes falls.
    pub fn successor(mut self, txs: Vec<Tx>) -> Result<Self, BackupError> {
        let LogId { leader_id, index } = self.last;
        let index = index.saturating_add(REVISION_GAP);
        let entry = Entry { v: ENTRY_VERSION, at: swarm_wire::clock::steady(), txs };
        let (outcomes, _) = swarm_core::apply(&mut self.state, index, &entry);
        for outcome in outcomes {
            outcome.map_err(|refusal| BackupError::Refused(refusal.to_string()))?;
        }
        let leader_id = LeaderId { term: leader_id.term.saturating_add(TERM_GAP), ..leader_id };
        Ok(Self { last: LogId { leader_id, index }, ..self })
    }
}

impl Consensus {
    /// What a backup holds: the newest state, with everything that was acknowledged before the call.
    ///
    /// # Errors
    /// As [`Consensus::read_barrier`].
    pub async fn backup(&self) -> Result<Backup, ProposeError> {
        let state = self.read_barrier().await?;
        let leader_id = LeaderId { term: self.status().term, node_id: self.raft_id() };
        Ok(Backup { last: LogId { leader_id, index: state.revision() }, state })
    }

    /// Begins a log with the state of a backup, as the only manager of its swarm. Refuses a folder that holds a log.
    /// A crash on the way leaves a folder that [`Consensus::open`] refuses.
    ///
    /// # Errors
    /// [`Error`]: the folder cannot be written, or holds a log.
    pub async fn restore(options: Options, backup: Backup, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let config = config(&options)?;
        let Options { dir, key, raft_id, addr, .. } = options.clone();
        let disk = blocking(move || {
            let disk: Arc<dyn Disk> = Arc::new(FolderDisk::create(&dir, &first_values(&key, raft_id, false)?)?);
            found(&*disk, &key, raft_id, &addr, &backup).inspect_err(|_| disk.close())?;
            Ok(disk)
        })
        .await?;
        Self::start(options, config, disk, observer).await
    }
}

/// Fills a new store: the snapshot is the state, and the log begins behind it.
fn found(disk: &dyn Disk, key: &SealKey, raft_id: u64, addr: &str, backup: &Backup) -> Result<(), Error> {
    let (seal, _) = seal_of(disk, key, raft_id)?;
    disk.accept().map_err(|error| Error::io(disk.log_file(), error))?;
    let leader_id = LeaderId { term: backup.last.leader_id.term, node_id: raft_id };
    let last = LogId { leader_id, index: backup.last.index };
    let alone = BTreeMap::from([(raft_id, BasicNode::new(addr))]);
    let members = Membership::new(vec![[raft_id].into()], alone)
        .map_err(|_| Error::Members("no manager would be left".into()))?;
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), members) };
    // What the managers that join will have applied begins here.
    let past = Past { leaders: Vec::new(), sum: Sum::begin(backup.state.feature_level(), last.index) };
    let head = Head::new(&meta, &past);
    disk.write_snapshot(&mut |out| snapshot::write(out, &seal, &head, &backup.state))
        .map_err(|error| Error::io(disk.snapshot_file(), error))?;
    let sealed = |kind: Kind, plain: Result<Vec<u8>, String>| {
        let plain = plain.map_err(Error::Stopped)?;
        seal.seal(kind, 0, &plain).map_err(|error| Error::io(disk.log_file(), no_randomness(error)))
    };
    let vote = Vote { leader_id, committed: false };
    let changes = [
        Change::Value(Name::Vote, sealed(Kind::Vote, records::encode(&Ballot::from(vote)))?),
        Change::Value(Name::Purged, sealed(Kind::Purged, records::encode(&Place::from(last)))?),
    ];
    disk.commit(&changes).map_err(|error| Error::io(disk.log_file(), error))
}

fn seal(passphrase: &Redacted, salt: RandomId) -> io::Result<Seal> {
    let mut key = Zeroizing::new([0; 32]);
    Params::new(GUESS_MEMORY_KIB, GUESS_PASSES, 1, Some(key.len()))
        .and_then(|params| {
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon.hash_password_into(passphrase.expose().as_bytes(), &salt, &mut *key)
        })
        .map_err(|error| io::Error::other(format!("no key can be made of the passphrase: {error}")))?;
    Ok(Seal::new(&SealKey::from_bytes(*key), salt))
}

fn no_randomness(_: SealError) -> io::Error {
    io::Error::other("the system gave no random bytes")
}
