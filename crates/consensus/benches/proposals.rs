//! Durable writes without HTTP: proposals to a log of one manager. `cargo xtask bench writes` runs this and reads what
//! it prints: one JSON object a line. The folder of the log is the last argument; it has to be on the disk that counts.
#![expect(clippy::print_stdout, reason = "a program whose output is its figures")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_consensus::{Consensus, Observer, Options, Role, SealKey, Timers, Unconnected};
use swarm_core::{ENTRY_VERSION, Event, Op, State, Tx};
use swarm_model::{Id, ServiceId, ServiceMode, ServiceSpec, Timestamp};

const CLIENTS: [usize; 3] = [1, 16, 256];
/// Services, so that no two clients write the same one.
const SERVICES: u128 = 2048;
const TIME: Duration = Duration::from_secs(5);
const TIME_QUICK: Duration = Duration::from_secs(1);

struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _: &Arc<State>, _: &[Event]) {}
    fn restored(&self, _: &Arc<State>) {}
}

fn main() {
    // `cargo test --all-targets` starts this program too, without the word that `cargo bench` adds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let time = if std::env::args().any(|argument| argument == "--quick") { TIME_QUICK } else { TIME };
    let folder = std::env::args().nth(1).expect("the first argument is a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(folder.as_ref(), time));
}

async fn run(folder: &Path, time: Duration) {
    let options = Options {
        dir: folder.join("raft"),
        raft_id: 1,
        addr: "127.0.0.1:2377".into(),
        key: SealKey::load_or_create(&folder.join("raft.key")).expect("a key"),
        snapshot_interval: 10_000,
        timers: Timers::default(),
        run: 1,
        feature_level: ENTRY_VERSION,
        dialer: Arc::new(Unconnected),
    };
    let consensus = Consensus::create(options, Arc::new(Nobody)).await.expect("a log");
    let mut role = consensus.role();
    role.wait_for(|role| matches!(role, Role::Leader { .. })).await.expect("a leader");
    for number in 0..SERVICES {
        let op = Op::CreateService { service: service(number), spec: Arc::new(spec(number, 0)), registry_auth: None };
        consensus.propose(vec![Tx::new(vec![op])]).await.expect("a write");
    }
    for clients in CLIENTS {
        let start = Instant::now();
        let writers: Vec<_> = (0..clients)
            .map(|client| tokio::spawn(write(consensus.clone(), client as u128, clients as u128, start + time)))
            .collect();
        let mut latencies_ms = Vec::new();
        for writer in writers {
            latencies_ms.extend(writer.await.expect("a writer"));
        }
        let rate = latencies_ms.len() as f64 / start.elapsed().as_secs_f64();
        latencies_ms.sort_by(f64::total_cmp);
        let at = |share: f64| latencies_ms[((latencies_ms.len() - 1) as f64 * share) as usize];
        println!(
            "{{\"name\":\"writes.raft\",\"value\":{rate:.0},\"unit\":\"writes/s\",\"params\":{{\"clients\":{clients}}},\
             \"p50_ms\":{:.2},\"p99_ms\":{:.2}}}",
            at(0.5),
            at(0.99)
        );
    }
    consensus.shutdown().await;
}

/// Writes labels of its own services, one after the other, until the time is up. Returns how long each write took.
async fn write(consensus: Consensus, client: u128, clients: u128, end: Instant) -> Vec<f64> {
    let mut latencies_ms = Vec::new();
    for round in 0.. {
        let number = (client + round * clients) % (SERVICES - SERVICES % clients);
        let spec = Arc::new(spec(number, round + 1));
        let op = Op::UpdateService { service: service(number), spec, registry_auth: None, alike: None };
        let start = Instant::now();
        if start >= end {
            break;
        }
        let committed = consensus.propose(vec![Tx::new(vec![op])]).await.expect("a write");
        assert!(committed.outcomes.iter().all(Result::is_ok), "a write was refused");
        latencies_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    latencies_ms
}

fn service(number: u128) -> ServiceId {
    ServiceId::make(Timestamp::from_millis(1), number)
}

fn spec(number: u128, round: u128) -> ServiceSpec {
    let mut spec = ServiceSpec { name: format!("bench-{number}"), ..ServiceSpec::default() };
    spec.labels.insert("round".into(), round.to_string());
    spec.mode = ServiceMode::Replicated { replicas: 0 };
    spec.task_template.container_spec.image = "hello:1".into();
    spec
}
