//! One manager and the leader do not reach each other, while both reach the third.

use super::*;

/// Less than a proposal waits for a leader; two or three seconds on a machine that has nothing else to do.
const REFUSED_WITHIN: Duration = Duration::from_secs(8);

/// Breaks the links with these ends, and says what the third manager sees of it.
async fn refused(cut: impl Fn(&Managers, u64, u64)) {
    let managers = Managers::start(3).await;
    let leader = managers.leader().await;
    let alone = managers.follower(leader);
    let third = (1..=3).find(|id| ![leader, alone].contains(id)).unwrap();
    managers.all[&alone].write(admit(1)).await.unwrap();
    let term = managers.all[&leader].status().term;
    cut(&managers, leader, alone);
    let manager = &managers.all[&alone];
    let both = async { tokio::join!(manager.read_barrier(), manager.write(admit(2))) };
    let (read, write) = timeout(REFUSED_WITHIN, both).await.expect("it takes no longer");
    for error in [read.map(drop).unwrap_err(), write.map(drop).unwrap_err()] {
        match &error {
            ProposeError::CutOff { leader: named, ask, .. } => {
                assert_eq!((named, ask), (&addr(leader), &vec![addr(third)]));
            }
            // Its connection broke with the write on it.
            ProposeError::Unknown => {}
            other => panic!("{other}"),
        }
    }
    let error = manager.read_barrier().await.unwrap_err().to_string();
    assert!(error.contains(&format!("the leader at {} do not reach each other", addr(leader))), "{error}");
    assert!(error.contains(&format!("the managers at {} hear it", addr(third))), "{error}");
    let error = timeout(REFUSED_WITHIN, manager.hand_over(None)).await.expect("it takes no longer").unwrap_err();
    assert!(error.to_string().contains(&addr(leader)), "{error}");
    // The others go on under the same leader: who asks for votes gets none while they hear it.
    managers.all[&third].write(admit(3)).await.unwrap();
    assert_eq!((managers.all[&leader].status().term, managers.leader().await), (term, leader));
    managers.heal_links();
    timeout(PATIENCE, async { while manager.read_barrier().await.is_err() {} }).await.expect("it is back");
    manager.write(admit(4)).await.unwrap();
    assert!(numbers(manager).is_superset(&BTreeSet::from([1, 3, 4])));
    assert_eq!(managers.all[&leader].status().term, term);
    managers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_cut_off_from_the_leader_alone_refuses_soon_and_names_others() {
    refused(|managers, leader, alone| {
        managers.cut_link(leader, alone);
        managers.cut_link(alone, leader);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_does_not_reach_the_leader_refuses_soon() {
    refused(|managers, leader, alone| managers.cut_link(alone, leader)).await;
}
