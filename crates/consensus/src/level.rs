//! The feature level: what the programs of all managers understand. During an upgrade it stays that of the oldest one, so
//! that managers of two versions run side by side; when the last is upgraded the leader raises it, and it never sinks.

use swarm_core::{Op, Tx};

use crate::{Consensus, ProposeError};

/// Checks that a program which knows feature levels up to `known` can use a state of this level. The error is a text for
/// people.
pub(crate) fn check(level: u16, known: u16) -> Result<(), String> {
    if level <= known {
        return Ok(());
    }
    Err(format!("the swarm uses feature level {level}, this swarmd knows levels up to {known}; upgrade it"))
}

impl Consensus {
    /// Raises the level of the swarm to what all managers know by now. Only the leader can; with managers that are away
    /// it stays as it is.
    ///
    /// # Errors
    /// As [`Consensus::propose`].
    pub async fn raise_feature_level(&self) -> Result<(), ProposeError> {
        let level = self.state().feature_level();
        if level >= self.feature_level() {
            return Ok(());
        }
        let survey = self.survey().await;
        let levels = survey.status.members.iter().map(|member| survey.feature_level(member.raft_id));
        // Learners as well: they have to apply what they learn. None, who is away, is less than any.
        let Some(lowest) = levels.min().flatten() else { return Ok(()) };
        if lowest <= level {
            return Ok(());
        }
        self.propose(vec![Tx::new(vec![Op::RaiseFeatureLevel { level: lowest }])]).await?;
        tracing::info!(level = lowest, "all managers know this feature level: the swarm uses it from now on");
        Ok(())
    }

    /// Whether the swarm takes what needs this level.
    ///
    /// # Errors
    /// [`ProposeError::FeatureLevel`]: the managers that hold it back.
    pub(crate) async fn check_feature_level(&self, needed: u16) -> Result<(), ProposeError> {
        let level = self.current_feature_level();
        if needed <= level {
            return Ok(());
        }
        let survey = Box::pin(self.survey()).await;
        let members = survey.status.members.iter();
        let behind = members.filter(|member| survey.feature_level(member.raft_id).is_none_or(|knows| knows < needed));
        Err(ProposeError::FeatureLevel { needed, level, behind: behind.map(|member| member.addr.clone()).collect() })
    }
}
