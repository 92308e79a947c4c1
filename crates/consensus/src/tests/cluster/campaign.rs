//! Replacing a leader that was lost before the timers of an election run out.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_enough_to_replace_a_leader_that_died() {
    let mut managers = Managers::start(3).await;
    let old = managers.leader().await;
    managers.all[&managers.follower(old)].write(admit(1)).await.unwrap();
    let before = managers.all[&old].status().term;
    // Nobody campaigns because of the time alone.
    let by_time = |managers: &Managers, allowed| {
        managers.all.values().for_each(|manager| manager.raft().runtime_config().elect(allowed));
    };
    by_time(&managers, false);
    managers.kill(old).await;
    wait_until(|| managers.all.values().any(|manager| manager.status().term > before)).await;
    // A vote that fails on a busy machine is repeated.
    by_time(&managers, true);
    assert_ne!(managers.leader().await, old);
    write_surely(&managers, 2).await;
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_only_lost_connections_stays() {
    let managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let before = managers.all[&leader].status().term;
    managers.net().streams.clear();
    let others: Vec<_> = managers.all.iter().filter(|(id, _)| **id != leader).collect();
    // Until they give up.
    futures_util::future::join_all(others.iter().map(|(_, manager)| manager.replace_lost(leader))).await;
    for manager in managers.all.values() {
        manager.read_barrier().await.unwrap();
        assert_eq!((manager.status().term, manager.status().leader), (before, Some(leader)));
    }
    managers.shutdown().await;
}
