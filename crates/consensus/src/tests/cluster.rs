//! Several managers over streams in memory: elections, forwarding, membership, snapshots, the loss of a leader.

mod campaign;
mod cut_off;
mod digests;
mod level;
mod majority;
mod old_copy;
mod term;
mod twin;
mod vouch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, select_all};
use openraft::async_runtime::watch::WatchReceiver;
use swarm_core::{ENTRY_VERSION, State};
use swarm_wire::{BoxedStream, channel};
use tempfile::TempDir;
use tokio::{io::duplex, task::JoinSet, time::timeout};

use super::{PATIENCE, Watcher, admit, key, large, options, wait_for_role, wait_until, write_entries};
use crate::{
    Consensus, Dialer, ENTRY_BYTES_MAX, LOG_KEEP_ENTRIES, Options, ProposeError, Role, Steering, Timers,
    message::{Answer, Hello, RAFT_PROTOCOL, Request},
};

/// Slower than the defaults: a busy machine that builds and tests at once shall not hold elections for nothing.
const TIMERS: Timers = Timers { heartbeat_ms: 100, election_min_ms: 600, election_max_ms: 900 };

/// Who can be reached under which address, and what is cut.
#[derive(Default)]
struct Net {
    running: BTreeMap<String, Consensus>,
    cut: BTreeSet<String>,
    /// From whom to whom nothing goes.
    cut_links: BTreeSet<(String, String)>,
    /// Dropped with a manager that is killed, by who accepted them.
    streams: BTreeMap<String, JoinSet<()>>,
}

#[derive(Clone)]
struct Wire {
    from: String,
    net: Arc<Mutex<Net>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.from)
    }
}

impl Dialer for Wire {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let mut net = self.net.lock().unwrap_or_else(PoisonError::into_inner);
            let server = net.running.get(addr).cloned().filter(|_| !net.cut.contains(addr));
            let is_cut = net.cut.contains(&self.from) || net.cut_links.contains(&(self.from.clone(), addr.to_owned()));
            let Some(server) = server.filter(|_| !is_cut) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (here, there) = duplex(1 << 20);
            let from = self.from.clone();
            let serve = async move { drop(server.serve(Box::new(there), &from, Arc::new(|| Ok(()))).await) };
            // A stream ends with either end.
            net.streams.entry(addr.to_owned()).or_default().spawn(serve);
            Ok(Box::new(here) as BoxedStream)
        })
    }
}

struct Managers {
    /// What the programs of those that start now know.
    feature_level: u16,
    folder: TempDir,
    net: Arc<Mutex<Net>>,
    all: BTreeMap<u64, Consensus>,
}

fn addr(id: u64) -> String {
    format!("manager-{id}")
}

impl Managers {
    fn options(&self, id: u64) -> Options {
        let dialer = Arc::new(Wire { from: addr(id), net: Arc::clone(&self.net) });
        let dir = self.folder.path().join(id.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let feature_level = self.feature_level;
        Options { feature_level, raft_id: id, addr: addr(id), timers: TIMERS, dialer, key: key(), ..options(&dir) }
    }

    fn net(&self) -> std::sync::MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&mut self, id: u64, consensus: Consensus) {
        self.net().running.insert(addr(id), consensus.clone());
        self.all.insert(id, consensus);
    }

    /// So many managers, all of them voters.
    async fn start(count: u64) -> Self {
        Self::start_at(count, ENTRY_VERSION).await
    }

    /// The same with programs that know this feature level.
    async fn start_at(count: u64, feature_level: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut managers = Self { feature_level, folder, net: Arc::default(), all: BTreeMap::new() };
        let founder = Consensus::create(managers.options(1), Watcher::new()).await.unwrap();
        managers.add(1, founder);
        for id in 2..=count {
            managers.join(id).await;
        }
        managers.steer(&(1..=count).collect::<Vec<_>>()).await;
        managers
    }

    async fn join(&mut self, id: u64) {
        let consensus = Consensus::join(self.options(id), Watcher::new()).await.unwrap();
        self.add(id, consensus);
    }

    /// Steers until these are the managers.
    async fn steer(&self, ids: &[u64]) {
        let wanted: BTreeMap<u64, String> = ids.iter().map(|id| (*id, addr(*id))).collect();
        timeout(PATIENCE, async {
            loop {
                let leader = &self.all[&self.leader().await];
                // Taken before the step, so that nothing that comes of it is missed.
                let mut metrics = leader.raft().metrics();
                drop(metrics.borrow_and_update());
                if let Ok(Steering::Settled) = leader.steer_members(&wanted).await {
                    return;
                }
                // One that has stopped tells no more: the next leader does.
                let _ = metrics.changed().await;
            }
        })
        .await
        .expect("the managers become what is wanted");
    }

    /// The ready leader.
    async fn leader(&self) -> u64 {
        timeout(PATIENCE, async {
            loop {
                // Taken before the look, so that no change between the two is missed.
                let mut roles: Vec<_> = self.all.values().map(Consensus::role).collect();
                roles.iter_mut().for_each(|role| role.mark_unchanged());
                let ready =
                    |(id, c): (&u64, &Consensus)| matches!(*c.role().borrow(), Role::Leader { .. }).then_some(*id);
                // A leader that is cut off does not know yet.
                if let Some(id) =
                    self.all.iter().filter(|(id, _)| !self.net().cut.contains(&addr(**id))).find_map(ready)
                {
                    return id;
                }
                let changes = roles.iter_mut().map(|role| {
                    Box::pin(async {
                        if role.changed().await.is_err() {
                            // One that has stopped tells no more: the others are waited for.
                            std::future::pending::<()>().await;
                        }
                    })
                });
                select_all(changes).await;
            }
        })
        .await
        .expect("there is a leader")
    }

    /// Waits until this one is the ready leader; whoever led before may not know yet.
    async fn leads(&self, id: u64) {
        wait_for_role(&self.all[&id], |role| matches!(role, Role::Leader { .. })).await;
    }

    fn others(&self, id: u64) -> Vec<String> {
        self.all.keys().filter(|other| **other != id).map(|other| addr(*other)).collect()
    }

    fn follower(&self, leader: u64) -> u64 {
        *self.all.keys().find(|id| **id != leader).unwrap()
    }

    /// Ends a manager without a word.
    async fn kill(&mut self, id: u64) {
        {
            let mut net = self.net();
            net.running.remove(&addr(id));
            net.streams.remove(&addr(id));
        }
        self.all.remove(&id).unwrap().shutdown().await;
    }

    async fn restart(&mut self, id: u64) {
        let consensus = Consensus::open(self.options(id), Watcher::new()).await.unwrap();
        self.add(id, consensus);
    }

    /// Cuts a manager off from all others, connections that stand included.
    fn cut(&self, id: u64) {
        let mut net = self.net();
        net.cut.insert(addr(id));
        net.streams.clear();
    }

    /// Cuts what one manager opens to another one. Connections break; all others are opened anew.
    fn cut_link(&self, from: u64, to: u64) {
        let mut net = self.net();
        net.cut_links.insert((addr(from), addr(to)));
        net.streams.clear();
    }

    fn heal_links(&self) {
        self.net().cut_links.clear();
    }

    fn heal(&self, id: u64) {
        self.net().cut.remove(&addr(id));
    }

    async fn shutdown(self) {
        for consensus in self.all.values() {
            consensus.shutdown().await;
        }
    }
}

fn numbers(consensus: &Consensus) -> BTreeSet<u128> {
    numbers_of(&consensus.state())
}

fn numbers_of(state: &State) -> BTreeSet<u128> {
    state.nodes().map(|node| node.id.0).collect()
}

/// Writes through any of the managers until it is acknowledged.
async fn write_surely(managers: &Managers, number: u128) {
    timeout(PATIENCE, async {
        for id in managers.all.keys().cycle() {
            match managers.all[id].write(admit(number)).await {
                Ok(_) => return,
                Err(
                    ProposeError::Unknown
                    | ProposeError::NotLeader { .. }
                    | ProposeError::NoMajority { .. }
                    | ProposeError::CutOff { .. },
                ) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
    .expect("the write is acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_manager_writes_and_reads() {
    let managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let follower = &managers.all[&managers.follower(leader)];
    for number in 0..20 {
        let committed = follower.write(admit(number)).await.unwrap();
        assert_eq!(committed.outcomes, [Ok(())]);
        assert!(numbers(follower).contains(&number), "a write is visible where it was made");
        for manager in managers.all.values() {
            let state = manager.read_barrier().await.unwrap();
            assert!(state.revision() >= committed.index, "a read sees every acknowledged write");
        }
    }
    // Many readers share rounds.
    let reads: Vec<_> = (0..200)
        .map(|_| {
            let follower = follower.clone();
            tokio::spawn(async move { follower.read_barrier().await.unwrap().revision() })
        })
        .collect();
    for read in reads {
        assert!(read.await.unwrap() >= 20);
    }
    let status = follower.cluster_status().await;
    assert_eq!(status.leader, Some(leader));
    assert!(status.members.iter().all(|member| member.voter && !member.is_silent()), "{status:?}");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_outlive_leaders() {
    let mut managers = Managers::start(3).await;
    let mut last = 0;
    for _ in 0..3 {
        let leader = managers.leader().await;
        let follower = managers.all[&managers.follower(leader)].clone();
        for _ in 0..10 {
            follower.write(admit(last)).await.unwrap();
            last += 1;
        }
        managers.kill(leader).await;
        write_surely(&managers, last).await;
        last += 1;
        managers.restart(leader).await;
    }
    let expected: BTreeSet<u128> = (0..last).collect();
    for manager in managers.all.values() {
        manager.read_barrier().await.unwrap();
        assert_eq!(numbers(manager), expected);
    }
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing() {
    let managers = Managers::start(3).await;
    let old = managers.leader().await;
    managers.cut(old);
    let lonely = managers.all[&old].clone();
    let write = tokio::spawn(async move { lonely.write(admit(1)).await });
    let new = managers.leader().await;
    assert_ne!(new, old);
    managers.all[&new].write(admit(2)).await.unwrap();
    let write = write.await.unwrap();
    let failed = ProposeError::NoMajority { silent: managers.others(old), voters: 3, unknown: true };
    assert_eq!(write, Err(failed));
    assert!(!numbers(&managers.all[&old]).contains(&2));
    managers.heal(old);
    let state = managers.all[&old].read_barrier().await.unwrap();
    assert!(state.nodes().any(|node| node.id.0 == 2));
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_was_away_for_long_gets_a_snapshot() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let away = managers.follower(leader);
    managers.kill(away).await;
    let writer = managers.all[&leader].clone();
    let count = 2 * LOG_KEEP_ENTRIES;
    write_entries(&writer, count).await;
    writer.snapshot().await.unwrap();
    wait_until(|| writer.status().purged_index.is_some_and(|purged| purged >= count / 2)).await;
    managers.restart(away).await;
    assert_eq!(managers.all[&away].read_barrier().await.unwrap().nodes().count() as u64, count);
    assert!(managers.all[&away].status().snapshot_index.is_some(), "it was not filled from the log");
    // A new manager begins with it as well.
    managers.join(4).await;
    managers.steer(&[1, 2, 3, 4]).await;
    assert_eq!(managers.all[&4].read_barrier().await.unwrap().nodes().count() as u64, count);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_entries_reach_a_manager_that_was_away() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let away = managers.follower(leader);
    managers.kill(away).await;
    let follower = managers.all[&managers.follower(leader)].clone();
    for _ in 0..6 {
        // By way of a follower: the largest ones fit into what it forwards as well.
        follower.write(large(ENTRY_BYTES_MAX - 4096)).await.unwrap();
    }
    managers.restart(away).await;
    let state = managers.all[&away].read_barrier().await.unwrap();
    assert_eq!(state.revision(), follower.state().revision());
    let error = follower.write(large(ENTRY_BYTES_MAX)).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { .. }), "{error}");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_grows_shrinks_and_hands_over() {
    let mut managers = Managers::start(1).await;
    for id in 2..=5 {
        managers.join(id).await;
    }
    managers.steer(&[1, 2, 3, 4, 5]).await;
    managers.all[&5].write(admit(1)).await.unwrap();
    managers.all[&2].hand_over(Some(3)).await.unwrap();
    managers.leads(3).await;
    let error = managers.all[&2].hand_over(Some(9)).await.unwrap_err().to_string();
    assert!(error.contains("no voting manager"), "{error}");
    // The leader is among those that go.
    managers.steer(&[2]).await;
    managers.leads(2).await;
    managers.all[&2].write(admit(2)).await.unwrap();
    let members = managers.all[&2].status().members;
    assert_eq!(members.iter().map(|m| m.raft_id).collect::<Vec<_>>(), [2]);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_voter_that_makes_the_majority_stays() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let down = managers.follower(leader);
    managers.kill(down).await;
    let leaving = managers.follower(leader);
    let wanted = BTreeMap::from([(leader, addr(leader)), (down, addr(down))]);
    let consensus = &managers.all[&leader];
    wait_until(|| consensus.status().members.iter().any(|m| m.raft_id == down && m.is_silent())).await;
    let Steering::Underway(Some(reason)) = consensus.steer_members(&wanted).await.unwrap() else {
        panic!("it was removed")
    };
    assert!(reason.contains("of the 2 managers that would be left, 2 have to answer"), "{reason}");
    assert!(consensus.status().members.iter().any(|m| m.raft_id == leaving && m.voter));
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_manager_goes_on_when_the_majority_is_lost() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    for number in 0..10 {
        managers.all[&leader].write(admit(number)).await.unwrap();
    }
    let left = managers.follower(leader);
    managers.all[&left].read_barrier().await.unwrap();
    for id in (1..=3).filter(|id| *id != left) {
        managers.kill(id).await;
    }
    managers.kill(left).await;
    let alone = Consensus::recover(managers.options(left), Watcher::new()).await.unwrap();
    alone.write(admit(10)).await.unwrap();
    assert_eq!(numbers(&alone), (0..=10).collect());
    assert_eq!(alone.status().members.iter().map(|m| m.raft_id).collect::<Vec<_>>(), [left]);
    managers.add(left, alone);
    // It stays so, and grows again.
    managers.kill(left).await;
    managers.restart(left).await;
    managers.join(7).await;
    managers.steer(&[left, 7]).await;
    managers.all[&7].write(admit(11)).await.unwrap();
    assert_eq!(numbers(&managers.all[&7]), (0..=11).collect());
    // One that never had anything cannot save anything.
    let empty = Consensus::join(managers.options(8), Watcher::new()).await.unwrap();
    empty.shutdown().await;
    let error = Consensus::recover(managers.options(8), Watcher::new()).await.err().unwrap().to_string();
    assert!(error.contains("the log is empty"), "{error}");
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_for_it_is_refused() {
    let managers = Managers::start(1).await;
    let refused = |first: Request| {
        let consensus = managers.all[&1].clone();
        async move {
            let (here, there) = duplex(1 << 16);
            let served = tokio::spawn(async move {
                consensus.serve(Box::new(there), "here", Arc::new(|| Err("go away".into()))).await
            });
            let (mut sender, mut receiver) = channel::<_, Request, Answer>(here);
            sender.send(&first).await.unwrap();
            let answer = receiver.recv().await.unwrap();
            assert!(served.await.unwrap().is_err());
            match answer {
                Some(Answer::Refused(reason)) => reason,
                other => panic!("{other:?}"),
            }
        }
    };
    let hello = |protocol, to| Request::Hello(Hello { protocol, to, by: None, from: None });
    assert!(refused(hello(RAFT_PROTOCOL + 1, 1)).await.contains("version"));
    assert!(refused(hello(RAFT_PROTOCOL, 2)).await.contains("not manager 2"));
    assert!(refused(hello(RAFT_PROTOCOL, 1)).await.contains("go away"));
    assert!(refused(Request::ReadIndex).await.contains("no hello"));
    wait_for_role(&managers.all[&1], |role| matches!(role, Role::Leader { .. })).await;
    managers.shutdown().await;
}
