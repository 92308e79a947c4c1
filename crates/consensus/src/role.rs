//! What this manager is in the cluster.

use openraft::{RaftMetrics, ServerState, async_runtime::watch::WatchReceiver, type_config::alias::WatchReceiverOf};
use tokio::sync::watch;

use crate::{types::Types, writer::Fault};

/// What this manager is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, has applied everything that its predecessors committed, and has had an entry of its own committed.
    Leader {
        /// Its term.
        term: u64,
    },
    /// It follows, or leads but is not ready yet.
    Follower {
        /// `host:port` of the leader, if another manager is known to lead.
        leader: Option<String>,
    },
    /// It takes no part any more.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// What a manager that was shut down gives as its reason.
pub(crate) const SHUT_DOWN: &str = "it was shut down";

/// What a manager gives as its reason whose Raft ended without saying why, as only a panic does.
const PANICKED: &str = "Raft has ended by a fault of swarmd, which its log shows; restart swarmd, and report the fault";

/// Keeps the role up to date until Raft ends.
pub(crate) async fn follow(
    mut metrics: WatchReceiverOf<Types, RaftMetrics<Types>>,
    role: watch::Sender<Role>,
    fault: Fault,
) {
    loop {
        // The guard would keep Raft waiting: the value is computed at once and the guard let go.
        let now = read(&metrics.borrow_watched(), &fault);
        let over = matches!(now, Role::Stopped { .. });
        set(&role, now);
        if over {
            return;
        }
        if metrics.changed().await.is_err() {
            set(&role, stopped(&fault, PANICKED));
            return;
        }
    }
}

fn set(role: &watch::Sender<Role>, now: Role) {
    role.send_if_modified(|role| {
        let changed = *role != now;
        *role = now;
        changed
    });
}

fn stopped(fault: &Fault, otherwise: &str) -> Role {
    Role::Stopped { reason: fault.get().unwrap_or_else(|| otherwise.into()) }
}

fn read(metrics: &RaftMetrics<Types>, fault: &Fault) -> Role {
    match &metrics.running_state {
        Ok(()) => {}
        Err(openraft::errors::Fatal::Stopped) => return stopped(fault, SHUT_DOWN),
        Err(fatal) => return stopped(fault, &fatal.to_string()),
    }
    // Having applied an entry of its own leadership means having applied everything before it. Leader ids are compared,
    // not terms: there may be several leaders in one term.
    let mine = metrics.vote.leader_id;
    let ready = metrics.last_applied.is_some_and(|applied| applied.leader_id == mine);
    if metrics.state == ServerState::Leader && metrics.vote.committed && mine.node_id == metrics.id && ready {
        return Role::Leader { term: mine.term };
    }
    let leader = metrics.current_leader.filter(|leader| *leader != metrics.id);
    Role::Follower {
        leader: leader.and_then(|id| metrics.membership_config.get_node(&id).map(|node| node.addr.clone())),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{AsyncRuntime, async_runtime::watch::Watch};

    use super::*;
    use crate::rt::Runtime;

    #[tokio::test]
    async fn a_raft_that_ends_without_a_word_was_not_shut_down() {
        let (sender, metrics) = <Runtime as AsyncRuntime>::Watch::channel(RaftMetrics::new_initial(1));
        let (role, seen) = watch::channel(Role::Follower { leader: None });
        drop(sender);
        follow(metrics, role, Fault::default()).await;
        assert_eq!(*seen.borrow(), Role::Stopped { reason: PANICKED.into() });
    }
}
