//! Two managers with one state folder.

use super::*;

/// A copy of a manager that is stopped, on another machine.
fn clone_of(managers: &Managers, id: u64) -> Options {
    let options = managers.options(id);
    let dir = managers.folder.path().join("clone");
    vouch::copy(&options.dir, &dir);
    let dialer = Arc::new(Wire { from: "clone".into(), net: Arc::clone(&managers.net) });
    Options { dir, addr: "clone".into(), dialer, ..options }
}

async fn stop_reason(consensus: &Consensus) -> String {
    match wait_for_role(consensus, |role| matches!(role, Role::Stopped { .. })).await {
        Role::Stopped { reason } => reason,
        role => unreachable!("{role:?}"),
    }
}

async fn words(managers: &Managers) -> BTreeSet<String> {
    let leader = &managers.all[&managers.leader().await];
    let survey = leader.survey().await;
    survey.answers.values().flat_map(|asked| asked.status.local.clone().unwrap_or_default().twins).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_that_the_others_do_not_reach_stops_and_both_are_named() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let id = managers.follower(leader);
    managers.kill(id).await;
    let options = clone_of(&managers, id);
    managers.restart(id).await;
    let term = managers.all[&leader].status().term;

    let clone = Consensus::open(options, Watcher::new()).await.unwrap();
    let reason = stop_reason(&clone).await;
    assert!(reason.contains(&format!("answers at {}", addr(id))) && reason.contains("swarm leave --force"), "{reason}");
    assert!(clone.differs(), "to start it again changes nothing");
    let told = words(&managers).await;
    let told = told.first().expect("a word for people");
    assert!(told.contains(&format!("{}, as after", addr(id))) && told.contains("one at clone"), "{told}");
    managers.all[&id].write(admit(1)).await.unwrap();
    assert_eq!(managers.all[&leader].status().term, term, "it has not disturbed anybody");
    clone.shutdown().await;
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_took_the_place_of_a_manager_that_was_off_leaves_it_when_that_comes_back() {
    let mut managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let id = managers.follower(leader);
    managers.kill(id).await;
    let clone = Consensus::open(clone_of(&managers, id), Watcher::new()).await.unwrap();
    // No other run answers, so it writes; but the leader does not know where it is, and tells it nothing.
    drop(clone.write(admit(1)).await);
    assert!(numbers(&managers.all[&managers.leader().await]).contains(&1));
    assert!(words(&managers).await.is_empty());
    managers.restart(id).await;
    managers.all[&id].write(admit(2)).await.unwrap();
    let late = clone.write(admit(3)).await;
    assert!(late.is_err(), "{late:?}");
    assert!(stop_reason(&clone).await.contains("cloned"));
    assert!(managers.all.values().all(|manager| !numbers(manager).contains(&3)));
    clone.shutdown().await;
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_starts_anew_is_never_taken_for_two() {
    let mut managers = Managers::start(3).await;
    for round in 0..3 {
        let leader = managers.leader().await;
        for id in [managers.follower(leader), leader] {
            managers.kill(id).await;
            managers.restart(id).await;
            managers.all[&id].write(admit(round)).await.ok();
        }
    }
    managers.leader().await;
    assert_eq!(words(&managers).await, BTreeSet::new());
    managers.shutdown().await;
}
