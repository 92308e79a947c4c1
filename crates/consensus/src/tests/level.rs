//! The feature level of the swarm, with managers that know more than this program does, or less than the swarm uses.

use swarm_core::Op;

use super::*;
use crate::{Error, ProposeError};

/// Restarts a sole manager as a program that knows this level.
async fn reopened(folder: &Path, feature_level: u16) -> Result<Consensus, Error> {
    Consensus::open(Options { feature_level, ..options(folder) }, Watcher::new()).await
}

#[tokio::test]
async fn what_needs_a_higher_level_waits_until_it_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let older = Options { feature_level: 1, ..options(folder.path()) };
    let consensus = Consensus::create(older, Watcher::new()).await.unwrap();
    consensus.read_barrier().await.unwrap();
    consensus.raise_feature_level().await.unwrap();
    assert_eq!((consensus.state().feature_level(), consensus.state().revision()), (1, 0), "there is nothing to raise");
    let refused = consensus.check_feature_level(2).await.unwrap_err();
    assert_eq!(refused, ProposeError::FeatureLevel { needed: 2, level: 1, behind: vec!["127.0.0.1:2377".into()] });
    let text = refused.to_string();
    assert!(text.contains("feature level 2") && text.contains("upgrade swarmd on, or bring back, 127.0.0.1"), "{text}");
    consensus.shutdown().await;

    let upgraded = reopened(folder.path(), 2).await.unwrap();
    assert_eq!(upgraded.read_barrier().await.unwrap().feature_level(), 1, "nobody has raised it");
    let refused = upgraded.check_feature_level(2).await.unwrap_err().to_string();
    assert!(refused.contains("try again"), "{refused}");
    upgraded.raise_feature_level().await.unwrap();
    assert_eq!(upgraded.state().feature_level(), 2);
    upgraded.check_feature_level(2).await.unwrap();
    upgraded.propose(vec![Tx::new(vec![Op::RaiseFeatureLevel { level: 1 }])]).await.unwrap();
    assert_eq!(upgraded.state().feature_level(), 2, "it never sinks");
    upgraded.shutdown().await;
}

#[tokio::test]
async fn a_folder_of_a_higher_level_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let newer = Options { feature_level: 2, ..options(folder.path()) };
    let newer = Consensus::create(newer, Watcher::new()).await.unwrap();
    newer.read_barrier().await.unwrap();
    newer.raise_feature_level().await.unwrap();
    newer.shutdown().await;
    // Only the log tells of it: the program stops where it would have to go on with what it does not know.
    let reason = match reopened(folder.path(), 1).await {
        Err(error) => error.to_string(),
        // It was not that far when it began.
        Ok(older) => {
            let role = wait_for_role(&older, |role| matches!(role, Role::Stopped { .. })).await;
            older.shutdown().await;
            format!("{role:?}")
        }
    };
    assert!(reason.contains("uses feature level 2, this swarmd knows levels up to 1; upgrade it"), "{reason}");

    let newer = reopened(folder.path(), 2).await.unwrap();
    newer.read_barrier().await.unwrap();
    newer.snapshot().await.unwrap();
    newer.shutdown().await;
    let refused = reopened(folder.path(), 1).await.err().expect("it does not start").to_string();
    assert!(refused.contains("needs a newer swarmd: the swarm uses feature level 2"), "{refused}");
    let newer = reopened(folder.path(), 2).await.expect("nothing was changed");
    newer.shutdown().await;
}
