//! Managers that have applied different things, as their digests tell.

use super::*;
use crate::digest::Sum;

/// So much of a digest as two managers compare: the index, and what it is there.
fn newest(consensus: &Consensus) -> Option<(u64, u128)> {
    let ring = consensus.digests().get();
    let (_, index) = ring.newest()?;
    Some((index, ring.at(index).unwrap()))
}

/// From now on this manager has another digest, as one that applied an entry in another way.
fn falsify(consensus: &Consensus) {
    let index = newest(consensus).unwrap().0;
    consensus.digests().begin(index, Some(Sum { level: ENTRY_VERSION, value: 0x0bad }));
}

/// Waits until all managers have applied the same, and returns how far that is.
async fn settle(managers: &Managers) -> u64 {
    for manager in managers.all.values() {
        manager.read_barrier().await.unwrap();
    }
    let all = || managers.all.values().map(newest).collect::<BTreeSet<_>>();
    wait_until(|| all().len() == 1).await;
    all().first().unwrap().unwrap().0
}

async fn undecided(consensus: &Consensus) -> String {
    let mut undecided = consensus.undecided();
    let text = timeout(PATIENCE, undecided.wait_for(Option::is_some)).await.expect("it notices").unwrap().clone();
    text.unwrap()
}

async fn decided(consensus: &Consensus) {
    let mut undecided = consensus.undecided();
    drop(timeout(PATIENCE, undecided.wait_for(Option::is_none)).await.expect("it goes on").unwrap());
}

async fn stops(consensus: &Consensus) -> String {
    let Role::Stopped { reason } = wait_for_role(consensus, |role| matches!(role, Role::Stopped { .. })).await else {
        panic!("it has stopped")
    };
    assert!(consensus.differs());
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_are_the_same_everywhere_also_after_restarts_and_snapshots() {
    let mut managers = Managers::start(3).await;
    assert!(managers.all.values().all(|manager| newest(manager).is_none()), "the first level has none");
    managers.raise().await;
    write_entries(&managers.all[&managers.leader().await], 20).await;
    let first = settle(&managers).await;
    let leader = managers.leader().await;
    let away = managers.follower(leader);
    managers.kill(away).await;
    write_entries(&managers.all[&leader], 2 * LOG_KEEP_ENTRIES).await;
    managers.all[&leader].snapshot().await.unwrap();
    let status = || managers.all[&leader].status();
    wait_until(|| status().purged_index.is_some_and(|purged| purged >= first)).await;
    managers.restart(away).await;
    managers.join(4).await;
    managers.steer(&[1, 2, 3, 4]).await;
    write_surely(&managers, 9).await;
    settle(&managers).await;
    for id in 1..=4 {
        managers.kill(id).await;
        managers.restart(id).await;
    }
    managers.leader().await;
    write_surely(&managers, 10).await;
    assert!(settle(&managers).await > first);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_differs_from_the_others_stops_also_when_it_leads() {
    let managers = Managers::start(3).await;
    managers.raise().await;
    let index = settle(&managers).await;
    let leader = managers.leader().await;
    falsify(&managers.all[&leader]);
    let reason = stops(&managers.all[&leader]).await;
    assert!(
        reason.contains(&format!("{:032x} here", 0x0bad)) && reason.contains(&format!("at entry {index}")),
        "{reason}"
    );
    let (one, other) = (&managers.others(leader)[0], &managers.others(leader)[1]);
    assert!(reason.contains(&format!("{one} and {other}")), "{reason}");
    assert!(managers.all[&leader].read_barrier().await.is_err());
    managers.net().cut.insert(addr(leader));
    managers.leader().await;
    for id in [1, 2, 3].into_iter().filter(|id| *id != leader) {
        managers.all[&id].write(admit(5)).await.unwrap();
        managers.all[&id].read_barrier().await.unwrap();
        assert_eq!(*managers.all[&id].undecided().borrow(), None);
    }
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_majority_agrees_nobody_stops_until_one_does() {
    let mut managers = Managers::start(3).await;
    managers.raise().await;
    settle(&managers).await;
    let leader = managers.leader().await;
    let [odd, away] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!() };
    managers.kill(away).await;
    falsify(&managers.all[&odd]);
    for id in [leader, odd] {
        let text = undecided(&managers.all[&id]).await;
        assert!(text.contains("no majority of the 3 agrees") && text.contains("Nothing more is decided"), "{text}");
        assert_eq!(managers.all[&id].problem(), Some(text));
    }
    // Reads and what people change go on.
    managers.all[&leader].write(admit(77)).await.unwrap();
    assert!(numbers_of(&managers.all[&odd].read_barrier().await.unwrap()).contains(&77));
    managers.restart(away).await;
    let reason = stops(&managers.all[&odd]).await;
    assert!(reason.contains("something else than most managers"), "{reason}");
    decided(&managers.all[&leader]).await;
    decided(&managers.all[&away]).await;
    assert_eq!(managers.all[&leader].problem(), None);
    managers.shutdown().await;
}
