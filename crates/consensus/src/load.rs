//! Reading and checking everything on the disk before Raft starts.

use std::sync::Arc;

use crate::{
    Error, Observer, SealKey,
    disk::{Change, Disk, Name},
    history::History,
    machine::Machine,
    records::{self, Identity},
    seal::{Kind, RandomId, Seal, random_id},
    snapshot::Snapshots,
    store::LogStore,
    writer::Fault,
};

/// What a new store begins with: that of the manager which founds a cluster, or of one that joins.
pub(crate) fn first_values(key: &SealKey, raft_id: u64, founder: bool) -> Result<[Change; 2], Error> {
    let failed = |_| Error::Stopped("the system gave no random bytes".into());
    let store = random_id().map_err(failed)?;
    let identity = records::encode(&Identity { raft_id, founder }).map_err(Error::Stopped)?;
    let sealed = Seal::new(key, store).seal(Kind::Identity, 0, &identity).map_err(failed)?;
    Ok([Change::Value(Name::Store, store.to_vec()), Change::Value(Name::Identity, sealed)])
}

/// What was read from the disk.
pub(crate) struct Loaded {
    /// The log.
    pub log: LogStore,
    /// The state, as the snapshot has it.
    pub machine: Machine,
    /// The snapshot's file.
    pub snapshots: Arc<Snapshots>,
    /// Whether this manager founds its cluster.
    pub founder: bool,
}

/// What opens the values of a store, and whose it is. Blocks.
pub(crate) fn seal_of(disk: &dyn Disk, key: &SealKey, raft_id: u64) -> Result<(Seal, Identity), Error> {
    let file = disk.log_file();
    let value = |name: Name| {
        let value = disk.value(name).map_err(|error| Error::io(&file, error))?;
        value.ok_or_else(|| Error::corrupt(&file, format!("value {name:?} is missing")))
    };
    let store: RandomId =
        value(Name::Store)?.try_into().map_err(|_| Error::corrupt(&file, "value Store has a wrong length"))?;
    let seal = Seal::new(key, store);
    let identity =
        seal.open(Kind::Identity, 0, &value(Name::Identity)?).map_err(|_| Error::WrongKey { file: file.clone() })?;
    let identity: Identity = records::decode(&identity).map_err(|error| Error::corrupt(&file, error))?;
    if identity.raft_id != raft_id {
        let detail = format!("it is the log of manager {}, this is manager {raft_id}", identity.raft_id);
        return Err(Error::Foreign { file, detail });
    }
    Ok((seal, identity))
}

/// Reads it all. Blocks.
pub(crate) fn load(
    disk: Arc<dyn Disk>,
    key: &SealKey,
    raft_id: u64,
    feature_level: u16,
    observer: Arc<dyn Observer>,
    fault: Fault,
) -> Result<Loaded, Error> {
    let (seal, identity) = seal_of(&*disk, key, raft_id)?;
    let history = History::default();
    let log = LogStore::open(Arc::clone(&disk), seal.clone(), history.clone(), fault.clone())?;
    let snapshots = Snapshots::new(Arc::clone(&disk), seal, feature_level);
    let machine = Machine::open(Arc::clone(&snapshots), raft_id, feature_level, history, observer, fault)?;
    if let Some(purged) = log.purged()
        && machine.applied() < Some(purged)
    {
        let file = disk.snapshot_file();
        let detail = format!("the log begins after entry {}, what came before is only in the snapshot", purged.index);
        return Err(match machine.applied() {
            None => Error::Missing { file, detail },
            Some(applied) => Error::corrupt(file, format!("{detail}; this one ends at entry {}", applied.index)),
        });
    }
    Ok(Loaded { log, machine, snapshots, founder: identity.founder })
}
