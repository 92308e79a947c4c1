//! An upgrade, one manager at a time.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_feature_level_rises_when_the_last_manager_is_upgraded() {
    let mut managers = Managers::start_at(3, 1).await;
    managers.feature_level = 2;
    let mut number = 0;
    for id in 1..=3 {
        managers.kill(id).await;
        // Away counts as behind: nobody knows with what it comes back.
        let leader = managers.leader().await;
        managers.all[&leader].raise_feature_level().await.unwrap();
        assert_eq!(managers.all[&leader].state().feature_level(), 1);
        managers.restart(id).await;
        for manager in managers.all.values() {
            number += 1;
            write_surely(&managers, number).await;
            manager.read_barrier().await.unwrap();
        }
        let leader = managers.leader().await;
        let behind: Vec<String> = (id + 1..=3).map(addr).collect();
        if !behind.is_empty() {
            managers.all[&leader].raise_feature_level().await.unwrap();
            let refused = managers.all[&leader].check_feature_level(2).await.unwrap_err();
            assert_eq!(refused, ProposeError::FeatureLevel { needed: 2, level: 1, behind });
        }
    }
    let leader = managers.leader().await;
    wait_until(|| managers.all[&leader].status().members.iter().all(|member| !member.is_silent())).await;
    timeout(PATIENCE, async {
        while managers.all[&leader].state().feature_level() < 2 {
            managers.all[&leader].raise_feature_level().await.unwrap();
        }
    })
    .await
    .expect("all know it");
    for manager in managers.all.values() {
        assert_eq!(manager.read_barrier().await.unwrap().feature_level(), 2);
        manager.check_feature_level(2).await.unwrap();
    }
    managers.shutdown().await;
}
