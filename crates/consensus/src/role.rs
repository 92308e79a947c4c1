//! What this manager is in the cluster.

use openraft::{
    RaftMetrics, ServerState,
    async_runtime::watch::WatchReceiver,
    metrics::{RaftDataMetrics, RaftServerMetrics},
    type_config::alias::WatchReceiverOf,
};
use tokio::sync::watch;

use crate::{types::Types, words, writer::Fault};

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
pub(crate) const SHUT_DOWN: &str =
    "it was shut down, as swarmd stops or this node is no manager any more; ask another manager";

/// What a manager gives as its reason whose Raft ended without saying why, as only a panic does.
pub(crate) const PANICKED: &str =
    "Raft has ended by a fault of swarmd, which its log shows; restart swarmd, and report the fault";

/// What Raft tells of itself.
pub(crate) struct Told {
    /// Who leads, and what this manager is: changes rarely. Told after `data`.
    pub server: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
    /// Where its log is: changes with every write.
    pub data: WatchReceiverOf<Types, RaftDataMetrics<Types>>,
    /// All, and at the end why it ended.
    pub all: WatchReceiverOf<Types, RaftMetrics<Types>>,
}

/// Keeps the role up to date until Raft ends. No write wakes it, but for those at the beginning of a leadership.
pub(crate) async fn follow(mut told: Told, role: watch::Sender<Role>, fault: Fault) {
    loop {
        let (now, unready) = told.role();
        set(&role, now);
        let changed = tokio::select! {
            biased;
            changed = told.server.changed() => changed,
            changed = told.data.changed(), if unready => changed,
            // Raft itself may be idle, and notice only at the next write.
            () = fault.wait() => return set(&role, stopped(&fault, PANICKED)),
        };
        if changed.is_err() {
            let last = match &told.all.borrow_watched().running_state {
                Ok(()) => stopped(&fault, PANICKED),
                Err(fatal) => stopped(&fault, &words::fatal(fatal)),
            };
            set(&role, last);
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

impl Told {
    /// The role, and whether it is that of a leader who is not ready yet.
    fn role(&self) -> (Role, bool) {
        // The guards would keep Raft waiting: the value is computed at once and they are let go.
        let server = self.server.borrow_watched();
        // Having applied an entry of its own leadership means having applied everything before it. Leader ids are
        // compared, not terms: there may be several leaders in one term.
        let mine = server.vote.leader_id;
        let leads = server.state == ServerState::Leader && server.vote.committed && mine.node_id == server.id;
        if leads && self.data.borrow_watched().last_applied.is_some_and(|applied| applied.leader_id == mine) {
            return (Role::Leader { term: mine.term }, false);
        }
        let leader = server.current_leader.filter(|leader| *leader != server.id);
        let addr = leader.and_then(|id| server.membership_config.get_node(&id).map(|node| node.addr.clone()));
        (Role::Follower { leader: addr }, leads)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openraft::{AsyncRuntime, async_runtime::watch::Watch};

    use super::*;
    use crate::{rt::Runtime, types::Vote};

    #[tokio::test]
    async fn a_raft_that_ends_without_a_word_was_not_shut_down() {
        let (server, told_server) = <Runtime as AsyncRuntime>::Watch::channel(RaftServerMetrics {
            id: 1,
            vote: Vote::new(0, 1),
            state: ServerState::Learner,
            current_leader: None,
            membership_config: Arc::default(),
            committed_membership_config: Arc::default(),
        });
        let (data, told_data) = <Runtime as AsyncRuntime>::Watch::channel(RaftDataMetrics::default());
        let (all, told_all) = <Runtime as AsyncRuntime>::Watch::channel(RaftMetrics::new_initial(1));
        let (role, seen) = watch::channel(Role::Follower { leader: None });
        drop((server, data, all));
        follow(Told { server: told_server, data: told_data, all: told_all }, role, Fault::default()).await;
        assert_eq!(*seen.borrow(), Role::Stopped { reason: PANICKED.into() });
    }
}
