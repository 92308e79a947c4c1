//! Proposals for one term.

use swarm_model::NodeId;

use super::*;

fn term(consensus: &Consensus) -> u64 {
    match *consensus.role().borrow() {
        Role::Leader { term } => term,
        ref other => panic!("it is {other:?}"),
    }
}

fn has(consensus: &Consensus, node: u128) -> bool {
    consensus.state().node(NodeId(node)).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_for_a_term_that_is_over_does_nothing() {
    let managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let other = managers.follower(leader);
    let first = term(&managers.all[&leader]);
    managers.all[&leader].propose_in_term(first, admit(11)).await.unwrap();
    managers.all[&leader].hand_over(Some(other)).await.unwrap();
    managers.leads(other).await;
    let error = managers.all[&leader].propose_in_term(first, admit(12)).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}");
    // It leads again, but not as the one that it was.
    managers.all[&other].hand_over(Some(leader)).await.unwrap();
    managers.leads(leader).await;
    let error = managers.all[&leader].propose_in_term(first, admit(12)).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}");
    let state = managers.all[&leader].read_barrier().await.unwrap();
    assert_eq!([11, 12].map(|node| state.node(NodeId(node)).is_some()), [true, false]);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing() {
    let managers = Managers::start(3).await;
    let old = managers.leader().await;
    let first = term(&managers.all[&old]);
    managers.cut(old);
    let cut_off = managers.all[&old].clone();
    let (proposed, written) =
        tokio::join!(cut_off.propose_in_term(first, admit(11)), managers.all[&managers.follower(old)].write(admit(12)));
    written.unwrap();
    assert!(proposed.is_err(), "{proposed:?}");
    managers.heal(old);
    managers.all[&old].write(admit(13)).await.unwrap();
    assert_eq!([11, 12, 13].map(|node| has(&managers.all[&old], node)), [false, true, true]);
    managers.shutdown().await;
}
