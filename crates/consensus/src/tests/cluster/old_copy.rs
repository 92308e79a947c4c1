//! A manager that starts with an older copy of its folder, and those that meet it.

use std::{fs, path::Path};

use super::*;
use crate::{Status, history::History, tests::key};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &to.join(file.file_name()));
        } else {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

impl Managers {
    fn folder(&self, id: u64) -> std::path::PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// Raises the swarm to the level of its programs.
    pub(super) async fn raise(&self) {
        let leader = &self.all[&self.leader().await];
        while leader.state().feature_level() < self.feature_level {
            leader.raise_feature_level().await.unwrap();
        }
        for manager in self.all.values() {
            manager.read_barrier().await.unwrap();
        }
    }

    async fn own_word(&self, of: u64, asked: u64) -> Status {
        self.all[&asked].survey().await.answers[&of].status.clone()
    }
}

/// The managers of the scene: A leads and has 20 writes that C never heard of; B has forgotten them, and B and C go on
/// without A. Ends before A comes back.
async fn scene(level: u16) -> (Managers, [u64; 3]) {
    let mut managers = Managers::start_at(3, level).await;
    managers.raise().await;
    let a = managers.leader().await;
    let [b, c] = [1, 2, 3].into_iter().filter(|id| *id != a).collect::<Vec<_>>()[..] else { panic!("three") };
    for number in 0..10 {
        managers.all[&a].write(admit(number)).await.unwrap();
    }
    managers.kill(b).await;
    let kept = managers.folder.path().join("kept");
    copy(&managers.folder(b), &kept);
    managers.restart(b).await;
    managers.all[&b].read_barrier().await.unwrap();
    managers.all[&c].read_barrier().await.unwrap();
    managers.kill(c).await;
    for number in 100..120 {
        managers.all[&a].write(admit(number)).await.unwrap();
    }
    managers.all[&b].read_barrier().await.unwrap();
    managers.kill(b).await;
    managers.kill(a).await;
    fs::remove_dir_all(managers.folder(b)).unwrap();
    copy(&kept, &managers.folder(b));
    managers.restart(b).await;
    managers.restart(c).await;
    for number in 200..205 {
        write_surely(&managers, number).await;
    }
    (managers, [a, b, c])
}

/// A comes back: it is never a leader, and what it reads is what the others have, until it stops.
async fn comes_back(managers: &mut Managers, a: u64) {
    let expected: BTreeSet<u128> = (0..10).chain(200..205).collect();
    // It may hear of the leader's history before it has started, and is refused then.
    let opened = async {
        loop {
            match Consensus::open(managers.options(a), Watcher::new()).await {
                Ok(manager) => break manager,
                Err(error) => assert!(error.to_string().contains("different histories"), "{error}"),
            }
        }
    };
    let manager = timeout(PATIENCE, opened).await.expect("it starts");
    managers.add(a, manager.clone());
    let mut role = manager.role();
    let reads = async {
        loop {
            if let Ok(state) = manager.read_barrier().await {
                let found: BTreeSet<u128> = state.nodes().map(|node| node.id.0).collect();
                assert_eq!(found, expected, "a read that claims to be linearizable");
            }
            tokio::task::yield_now().await;
        }
    };
    let end = async {
        let stopped = role.wait_for(|role| {
            assert!(!matches!(role, Role::Leader { .. }), "it leads");
            matches!(role, Role::Stopped { .. })
        });
        stopped.await.unwrap().clone()
    };
    let end = tokio::select! {
        () = reads => unreachable!("it reads for ever"),
        end = timeout(PATIENCE, end) => end.expect("it stops"),
    };
    let Role::Stopped { reason } = end else { panic!("{end:?}") };
    // The manager may stop before the leader has told its history. It then counts from its own beginning.
    assert!(reason.contains("of them are applied"), "{reason}");
    assert!(reason.contains("which one is right cannot be told here"), "{reason}");
    assert!(manager.differs());
    let error = manager.read_barrier().await.unwrap_err();
    assert_eq!(error, ProposeError::Stopped(reason.clone()));
    assert_eq!(manager.write(admit(7)).await.unwrap_err(), ProposeError::Stopped(reason));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_what_the_leader_has_forgotten_stops_and_says_so() {
    let (mut managers, [a, b, c]) = scene(ENTRY_VERSION).await;
    comes_back(&mut managers, a).await;
    // Anybody who asks it is told.
    let word = managers.own_word(a, b).await;
    assert!(word.stopped.is_some_and(|reason| reason.contains("different histories")) && word.leader.is_none());
    // So it is after a restart: nothing was changed.
    managers.kill(a).await;
    comes_back(&mut managers, a).await;
    // The others go on.
    managers.all[&c].write(admit(300)).await.unwrap();
    assert!(numbers(&managers.all[&c]).contains(&300));
    // What it has can be kept as well.
    for id in [a, b, c] {
        managers.kill(id).await;
    }
    let alone = Consensus::recover(managers.options(a), Watcher::new()).await.unwrap();
    alone.write(admit(8)).await.unwrap();
    assert_eq!(numbers(&alone), (0..10).chain(100..120).collect());
    managers.add(a, alone);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_where_leaders_do_not_say_in_which_term_to_read() {
    let (mut managers, [a, ..]) = scene(1).await;
    comes_back(&mut managers, a).await;
    managers.shutdown().await;
}

#[tokio::test]
async fn what_is_committed_is_never_truncated() {
    use crate::{disk::memory::MemoryDisk, seal::Seal, store::LogStore, types::LogId, writer::Fault};
    use openraft::storage::RaftLogStorage;

    let id = |index| LogId { leader_id: crate::types::LeaderId { term: 1, node_id: 1 }, index };
    let (history, fault) = (History::default(), Fault::default());
    let disk = Arc::<MemoryDisk>::default();
    let mut log = LogStore::open(disk, Seal::new(&key(), [1; 16]), history.clone(), fault.clone()).unwrap();
    log.begin().await.unwrap();
    log.save_committed(Some(id(5))).await.unwrap();
    log.truncate_after(Some(id(5))).await.unwrap();
    history.get().push(id(7));
    log.truncate_after(Some(id(7))).await.unwrap();
    assert_eq!(fault.get(), None);
    let error = log.truncate_after(Some(id(6))).await.unwrap_err().to_string();
    assert!(error.contains("up to entry 7 of term 1") && error.contains("1 entries from entry 7 on"), "{error}");
    assert!(fault.differs() && fault.get() == Some(error));
    // What is committed counts before it is applied.
    let fault = Fault::default();
    let disk = Arc::<MemoryDisk>::default();
    let mut log = LogStore::open(disk, Seal::new(&key(), [1; 16]), History::default(), fault.clone()).unwrap();
    log.begin().await.unwrap();
    log.save_committed(Some(id(5))).await.unwrap();
    log.truncate_after(Some(id(4))).await.unwrap_err();
    assert!(fault.differs());
}
