//! A whole manager on a real log, with a scripted agent.

use std::{path::Path, sync::Arc, time::Duration};

use swarm_core::{Op, State, Tx};
use swarm_model::{
    Availability, ClusterSpec, Id, NodeDescription, NodeRole, NodeState, ServiceId, ServiceMode, TaskState, TaskStatus,
    Timestamp,
};
use swarm_wire::{
    IdentityHolder, NodeIdentity,
    agent::{AGENT_PROTOCOL, AssignedTask, Hello, NodeReport, TaskReport, ToAgent, ToManager},
    channel,
};
use tokio::{io::duplex, time::timeout};

use crate::{
    Init, Manager, ManagerError, ManagerOptions, Start,
    api::Plane,
    feed::Topic,
    testing::{description, service_spec},
};

const ADDR: &str = "127.0.0.1:2377";

/// Far beyond what any machine needs: a test that hangs ends, and says where.
const LONG: Duration = Duration::from_secs(60);

async fn start(dir: &Path, identity: NodeIdentity, create: Option<Init>) -> Result<Manager, ManagerError> {
    let identity = Arc::new(IdentityHolder::new(identity).unwrap());
    let start = create.map_or(Start::Open { raft_id: None }, |init| Start::Create(Box::new(init)));
    let options = ManagerOptions {
        state_dir: dir.to_owned(),
        advertise_addr: ADDR.to_owned(),
        identity,
        source: None,
        start,
        seal_key: None,
    };
    timeout(LONG, Manager::start(options)).await.expect("a manager starts")
}

/// Waits until the state is as it should be.
async fn wait(manager: &Manager, topic: Topic, ready: impl Fn(&State) -> bool) {
    let watch = manager.inner.feed.watch(topic);
    let wait = async {
        while !ready(&manager.state()) {
            watch.changed().await;
        }
    };
    timeout(LONG, wait).await.expect("the state gets there");
}

/// An agent that runs whatever it is given, until its stream ends.
fn agent(manager: &Manager, identity: &NodeIdentity) -> tokio::task::JoinHandle<()> {
    let (ours, theirs) = duplex(64 << 10);
    let (serving, peer) = (manager.clone(), identity.as_peer().clone());
    tokio::spawn(async move { serving.serve_agent(peer, "127.0.0.1:9".parse().unwrap(), theirs).await });
    tokio::spawn(async move {
        let (mut sender, mut receiver) = channel::<_, ToManager, ToAgent>(ours);
        let description = NodeDescription { ..description("alpha") };
        let node = NodeReport { description, engine_reachable: true };
        let hello = Hello {
            protocol: AGENT_PROTOCOL,
            program: "test".into(),
            node,
            resume: None,
            run: None,
            newest: None,
            table: None,
            takes_networks: false,
            takes_questions: false,
        };
        sender.send(&ToManager::Hello(hello.into())).await.unwrap();
        let mut batch = 0;
        while let Ok(Some(message)) = receiver.recv().await {
            let ToAgent::Assignments(assignments) = message else { continue };
            let run = |task: &AssignedTask| {
                let state = if task.desired.is_live() { TaskState::Running } else { TaskState::Shutdown };
                TaskReport { task: task.id, status: TaskStatus::new(state, Timestamp(1)) }
            };
            batch += 1;
            let reports = assignments.tasks.iter().map(run).collect();
            if sender.send(&ToManager::Status { batch, reports }).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test]
async fn a_cluster_is_made_runs_a_service_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (init, identity) = Init::new(ClusterSpec::default(), Default::default(), Availability::Active).unwrap();
    let manager = start(dir.path(), identity.clone(), Some(init.clone())).await.unwrap();

    let state = manager.read().await.unwrap();
    let cluster = state.cluster().unwrap().clone();
    let node = state.node(identity.node()).unwrap().clone();
    assert_eq!(cluster.id, identity.cluster());
    assert_eq!((node.role, node.manager_addr.as_deref()), (NodeRole::Manager, Some(ADDR)));
    assert_eq!(node.cert_expires_at, identity.as_peer().cert_expires_at);
    let tls = manager.tls_info();
    assert_eq!(tls.trust_root, identity.root_pem());
    assert!(!tls.cert_issuer_subject.is_empty() && !tls.cert_issuer_public_key.is_empty());
    let rotated = manager.rotate_join_token(&cluster.join_tokens.worker).unwrap();
    assert_ne!(rotated, cluster.join_tokens.worker);

    // A second cluster does not overwrite the first.
    manager.shutdown().await;
    let again = start(dir.path(), identity.clone(), Some(init)).await;
    assert!(matches!(again, Err(ManagerError::Log(_))));

    let manager = start(dir.path(), identity.clone(), None).await.unwrap();
    let _agent = agent(&manager, &identity);
    let service = ServiceId::make(manager.now(), manager.random());
    let mut spec = service_spec("web");
    spec.mode = ServiceMode::Replicated { replicas: 4 };
    let create = Op::CreateService { service, spec: Arc::new(spec), registry_auth: None };
    assert_eq!(manager.propose(vec![Tx::new(vec![create])]).await.unwrap().outcomes, [Ok(())]);
    let running =
        |state: &State| state.tasks_of_service(service).filter(|t| t.status.state == TaskState::Running).count() == 4;
    wait(&manager, Topic::Service(service), running).await;
    assert!(manager.managers().await.leads() && manager.is_voter());
    manager.shutdown().await;

    let manager = start(dir.path(), identity.clone(), None).await.unwrap();
    let state = manager.read().await.unwrap();
    assert!(running(&state));
    assert_eq!(state.node(identity.node()).unwrap().status.state, NodeState::Ready);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_log_without_a_cluster_and_a_log_without_its_key_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (init, identity) = Init::new(ClusterSpec::default(), Default::default(), Availability::Active).unwrap();
    let error = start(dir.path(), identity.clone(), None).await.err().unwrap();
    assert!(error.to_string().contains("raft.key is missing"), "{error}");
    assert!(!dir.path().join("raft.key").exists(), "nothing is made where something is missing");

    start(dir.path(), identity.clone(), Some(init)).await.unwrap().shutdown().await;
    std::fs::remove_file(dir.path().join("raft.key")).unwrap();
    let error = start(dir.path(), identity, None).await.err().unwrap();
    assert!(error.to_string().contains("raft.key is missing"), "{error}");
}

#[test]
fn settings_that_are_not_possible_make_no_cluster() {
    let mut spec = ClusterSpec::default();
    spec.dispatcher.heartbeat_period_ns = 1;
    let error = Init::new(spec, Default::default(), Availability::Active).err().unwrap();
    assert!(error.to_string().contains("heartbeat period"), "{error}");
    assert!(
        !format!("{:?}", Init::new(ClusterSpec::default(), Default::default(), Availability::Active).unwrap().0)
            .contains("PRIVATE")
    );
}
