//! Most managers are gone: who asks is told soon, and told who is missing.

use super::*;

/// What a person waits for a refusal at most: far less than a proposal waits for a leader.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_reads_and_writes_are_refused_soon() {
    let mut managers = Managers::start(3).await;
    let left = managers.follower(managers.leader().await);
    let missing = managers.others(left);
    for id in (1..=3).filter(|id| *id != left) {
        managers.kill(id).await;
    }
    let left = managers.all[&left].clone();
    let both = async { tokio::join!(left.read_barrier(), left.write(admit(1))) };
    let (read, write) = timeout(REFUSED_WITHIN, both).await.expect("it takes no longer");
    let refused = ProposeError::NoMajority { silent: missing, voters: 3, unknown: false };
    assert_eq!(read.unwrap_err(), refused);
    let text = refused.to_string();
    assert!(text.starts_with("2 of the 3 managers that vote do not answer: manager-"), "{text}");
    // The leader may have had it on the way when it was lost, or it was just tried to reach the leader.
    assert!(matches!(write, Err(ProposeError::NoMajority { .. } | ProposeError::Unknown)), "{write:?}");
    let again = left.write(admit(2)).await;
    assert!(matches!(again, Err(ProposeError::NoMajority { .. })), "{again:?}");
    managers.shutdown().await;
}
