//! SIGKILL at random moments: nothing that was acknowledged is lost.
//!
//! The test starts itself again as a child that writes and prints each number once its write is acknowledged. The
//! parent kills it after a random number of lines, opens the log and looks for everything that was printed.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use swarm_consensus::{Consensus, Error, Observer, Options, SealKey, Timers, Unconnected};
use swarm_core::{ENTRY_VERSION, Event, Op, State, Tx};
use swarm_model::{Availability, NodeId, NodeRole, Timestamp};

/// Set for the child: the folder to write in.
const FOLDER: &str = "SWARM_CRASH_TEST_FOLDER";
/// Set for the child: the first number to write.
const FIRST: &str = "SWARM_CRASH_TEST_FIRST";
/// Kills.
const ROUNDS: u64 = 20;
/// Writers in the child.
const WRITERS: u128 = 8;

struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: &Arc<State>, _: &[Event]) {}
    fn restored(&self, _: &Arc<State>) {}
}

async fn start(folder: &Path) -> Result<Consensus, Error> {
    let options = Options {
        dir: folder.join("raft"),
        raft_id: 1,
        addr: "127.0.0.1:2377".into(),
        key: SealKey::load_or_create(&folder.join("raft.key"))?,
        // Snapshots and purges are part of what is killed.
        snapshot_interval: 64,
        timers: Timers::default(),
        run: 1,
        feature_level: ENTRY_VERSION,
        dialer: Arc::new(Unconnected),
    };
    if options.dir.join("log.db").exists() {
        Consensus::open(options, Arc::new(Nobody)).await
    } else {
        Consensus::create(options, Arc::new(Nobody)).await
    }
}

fn admit(number: u128) -> Vec<Tx> {
    vec![Tx::new(vec![Op::AdmitNode {
        node: NodeId(number),
        role: NodeRole::Worker,
        cert_expires_at: Timestamp::ZERO,
        manager_addr: None,
        availability: Availability::Active,
    }])]
}

/// Not a test of its own: what the child runs. Without a folder there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let (Ok(folder), Ok(first)) = (env::var(FOLDER), env::var(FIRST)) else { return };
    let first: u128 = first.parse().unwrap();
    let consensus = start(folder.as_ref()).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let consensus = consensus.clone();
            tokio::spawn(async move {
                for round in 0.. {
                    let number = first + writer + round * WRITERS;
                    let index = consensus.propose(admit(number)).await.unwrap().index;
                    // One write call, so that a line is whole or missing.
                    std::io::stdout().lock().write_all(format!("ack {number} {index}.\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// The number and the index of a line. The test harness prints lines of its own, and parts of lines before ours; the
/// last line may have been cut off by the kill.
fn acknowledgement(line: &str) -> Option<(u128, u64)> {
    let (_, pair) = line.rsplit_once("ack ")?;
    let (number, index) = pair.strip_suffix('.')?.split_once(' ')?;
    Some((number.parse().ok()?, index.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(u128, u64)> = Vec::new();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The kill falls between writes, snapshots and purges; in some rounds before the first acknowledgement.
        let lines = if round % 5 == 4 { 0 } else { (random >> 33) % 120 + 1 };
        let first = acknowledged.iter().map(|(number, _)| number + WRITERS).max().unwrap_or(0) + 1_000;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let before = acknowledged.len() as u64;
        while (acknowledged.len() as u64) < before + lines {
            let line = output.next().unwrap_or_else(|| panic!("the child ended by itself in round {round}"));
            acknowledged.extend(acknowledgement(&line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it acknowledged before the kill but was not read yet counts too.
        acknowledged.extend(output.filter_map(|line| acknowledgement(&line)));

        if acknowledged.is_empty() && !folder.path().join("raft/log.db").exists() {
            continue;
        }
        let consensus = start(folder.path()).await.unwrap();
        let state = consensus.read_barrier().await.unwrap();
        for (number, index) in &acknowledged {
            let node = state.node(NodeId(*number));
            let node = node.unwrap_or_else(|| panic!("round {round}: {number} was acknowledged and is gone"));
            assert_eq!(node.version, *index, "round {round}: {number} is another entry now");
        }
        consensus.shutdown().await;
    }
    assert!(acknowledged.len() > 100);
}
