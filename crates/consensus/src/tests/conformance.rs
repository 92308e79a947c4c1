//! openraft's own suite for log stores and state machines, on both disks.

use std::sync::Arc;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use swarm_core::ENTRY_VERSION;
use tempfile::TempDir;

use super::{Watcher, key};
use crate::{
    disk::{Disk, FolderDisk, memory::MemoryDisk},
    history::History,
    load::first_values,
    machine::Machine,
    seal::{Seal, random_id},
    snapshot::Snapshots,
    store::LogStore,
    types::Types,
    writer::Fault,
};

struct InFolder;
struct InMemory;

async fn stores(disk: Arc<dyn Disk>) -> (LogStore, Machine) {
    let seal = Seal::new(&key(), random_id().unwrap());
    let log = LogStore::open(Arc::clone(&disk), seal.clone(), History::default(), Fault::default()).unwrap();
    log.begin().await.unwrap();
    let machine = Machine::open(
        Snapshots::new(disk, seal, ENTRY_VERSION),
        1,
        ENTRY_VERSION,
        History::default(),
        Watcher::new(),
        Fault::default(),
    )
    .unwrap();
    (log, machine)
}

impl StoreBuilder<Types, LogStore, Machine, TempDir> for InFolder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let values = first_values(&key(), 1, true).unwrap();
        let disk = FolderDisk::create(&folder.path().join("raft"), &values).unwrap();
        let (log, machine) = stores(Arc::new(disk)).await;
        Ok((folder, log, machine))
    }
}

impl StoreBuilder<Types, LogStore, Machine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<Types>> {
        let (log, machine) = stores(Arc::new(MemoryDisk::default())).await;
        Ok(((), log, machine))
    }
}

#[tokio::test]
async fn the_folder_store_conforms() {
    Suite::test_all(InFolder).await.unwrap();
}

#[tokio::test]
async fn the_memory_store_conforms() {
    Suite::test_all(InMemory).await.unwrap();
}
