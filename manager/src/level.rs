//! The swarm's feature level follows its managers' programs, as long as this manager leads.

use std::time::Duration;

use swarm_consensus::Consensus;
use swarm_core::ENTRY_VERSION;
use tokio::time::sleep;

/// Pause between two looks while managers of an older version take part: an upgrade takes minutes.
const LOOK: Duration = Duration::from_secs(5);

/// Raises the level when all managers know a higher one, until that is this program's own.
pub(crate) async fn keep(consensus: &Consensus) {
    while consensus.state().feature_level() < ENTRY_VERSION {
        // The digests begin anew with the level: what they show must be settled before.
        if consensus.undecided().borrow().is_none()
            && let Err(error) = consensus.raise_feature_level().await
        {
            tracing::warn!(%error, "the feature level of the swarm is not raised");
        }
        sleep(LOOK).await;
    }
}
