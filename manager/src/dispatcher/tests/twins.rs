//! Two machines that come with one node id.

use super::*;
use crate::dispatcher::QUIET;

const ONE: &str = "10.0.0.5";
const OTHER: &str = "10.0.0.6";

impl Fixture {
    /// A machine opens a session as node 1.
    async fn machine(&self, ip: &str, run: Option<u64>) -> Agent {
        let (sender, receiver) = channel(self.open_from(N1, &format!("{ip}:40000")));
        let mut agent = Agent { sender, receiver };
        let node = NodeReport { description: description(&format!("host-{ip}")), engine_reachable: true };
        let hello = Hello {
            protocol: AGENT_PROTOCOL,
            program: "test".into(),
            node,
            resume: None,
            run,
            newest: None,
            table: None,
            takes_networks: false,
            takes_questions: false,
        };
        agent.say(ToManager::Hello(hello.into())).await;
        agent
    }

    /// The same, and it gets one.
    async fn welcome(&self, ip: &str, run: Option<u64>) -> Agent {
        let mut agent = self.machine(ip, run).await;
        assert!(matches!(agent.hear().await, ToAgent::Welcome(_)));
        assert!(matches!(agent.hear().await, ToAgent::Assignments(_)));
        agent
    }

    fn message(&self) -> String {
        self.feed.state().node(N1).unwrap().status.message.clone()
    }

    /// Waits until the state says something of the node, or nothing any more.
    async fn wait_for_message(&self, is_there: bool) {
        let watch = self.feed.watch(Topic::Node(N1));
        while self.message().is_empty() == is_there {
            watch.changed().await;
        }
    }
}

impl Agent {
    async fn beat(&mut self) {
        self.say(ToManager::Heartbeat).await;
        assert_eq!(self.hear().await, ToAgent::HeartbeatAck);
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_machines_stays_both_are_named_and_nothing_flaps() {
    for runs in [[Some(1), Some(2)], [None, None]] {
        let fixture = Fixture::new(World::new(1)).await;
        let one = fixture.welcome(ONE, runs[0]).await;
        let other = fixture.welcome(OTHER, runs[1]).await;
        let mut stays = fixture.welcome(ONE, runs[0]).await;
        drop((one, other));

        let mut waits = fixture.machine(OTHER, runs[1]).await;
        fixture.wait_for_message(true).await;
        let word = fixture.message();
        assert!(word.contains(ONE) && word.contains(OTHER) && word.contains("swarm leave --force"), "{word}");
        let proposed = fixture.raft.entries().len();
        for _ in 0..20 {
            let began = tokio::time::Instant::now();
            let ToAgent::Refused { reason, removed, .. } = waits.hear().await else { panic!("it is not welcome") };
            assert_eq!((reason, removed), (word.clone(), false));
            assert!(began.elapsed() >= Duration::from_secs(9), "it is kept waiting");
            stays.beat().await;
            waits = fixture.machine(OTHER, runs[1]).await;
        }
        let state = fixture.feed.state();
        let node = state.node(N1).unwrap();
        assert_eq!((node.status.addr.as_str(), node.hostname()), (ONE, "host-10.0.0.5"));
        assert_eq!(fixture.raft.entries().len(), proposed, "nothing of this enters the log");
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_machine_is_the_node_when_the_first_one_leaves_and_then_it_is_over() {
    let fixture = Fixture::new(World::new(1)).await;
    let _one = fixture.welcome(ONE, Some(1)).await;
    let _other = fixture.welcome(OTHER, Some(2)).await;
    let mut leaves = fixture.welcome(ONE, Some(1)).await;
    let mut waits = fixture.machine(OTHER, Some(2)).await;
    fixture.wait_for_message(true).await;
    let watch = fixture.feed.watch(Topic::Node(N1));
    leaves.say(ToManager::Leaving).await;
    assert!(leaves.closed().await);
    assert!(matches!(waits.hear().await, ToAgent::Welcome(_)));
    assert!(matches!(waits.hear().await, ToAgent::Assignments(_)));
    let status = fixture.feed.state().node(N1).unwrap().status.clone();
    assert_eq!((status.state, status.addr.as_str()), (NodeState::Ready, OTHER), "the node was never down");

    let began = tokio::time::Instant::now();
    while !fixture.message().is_empty() {
        waits.beat().await;
        let _ = timeout(Duration::from_secs(2), watch.changed()).await;
    }
    let took = began.elapsed();
    assert!((QUIET - Duration::from_secs(1)..QUIET + Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_other_machine_is_the_node_as_soon_as_the_first_one_is_silent_for_too_long() {
    let fixture = Fixture::new(World::new(1)).await;
    let _one = fixture.welcome(ONE, Some(1)).await;
    let _other = fixture.welcome(OTHER, Some(2)).await;
    let mut silent = fixture.welcome(ONE, Some(1)).await;
    let began = tokio::time::Instant::now();
    // It is told to come again well before the other one is given up, and would be again only after that.
    sleep(Duration::from_secs(3)).await;
    let mut waits = fixture.machine(OTHER, Some(2)).await;
    assert!(matches!(waits.hear().await, ToAgent::Refused { .. }));
    let mut waits = fixture.machine(OTHER, Some(2)).await;
    assert!(matches!(waits.hear().await, ToAgent::Welcome(_)));
    let took = began.elapsed();
    assert!((Duration::from_secs(19)..Duration::from_secs(22)).contains(&took), "{took:?}");
    assert!(silent.closed().await);
    fixture.wait_for_node(N1, NodeState::Ready).await;
    assert_eq!(fixture.feed.state().node(N1).unwrap().status.addr, OTHER);
}
