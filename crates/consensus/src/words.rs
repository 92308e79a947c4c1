//! What openraft's failures mean, in words for people who know nothing of it.

use std::{collections::BTreeMap, error::Error};

use openraft::{
    StorageError,
    errors::{ChangeMembershipError, ClientWriteError, Fatal, InitializeError, RaftError},
};

use crate::{
    role::{PANICKED, SHUT_DOWN},
    types::Types,
};

/// Why Raft ended.
pub(crate) fn fatal(fatal: &Fatal<Types>) -> String {
    match fatal {
        Fatal::StorageError(error) => storage(error),
        Fatal::Panicked => PANICKED.to_owned(),
        Fatal::Stopped => SHUT_DOWN.to_owned(),
    }
}

/// What the disk, or whoever reads it, said.
fn storage(error: &StorageError<Types>) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    format!("its log or its state cannot be used: {cause}")
}

/// Why the managers that take part were not changed. `addrs` are those that are known, by Raft id.
pub(crate) fn change(error: &RaftError<Types, ClientWriteError<Types>>, addrs: &BTreeMap<u64, String>) -> String {
    let addr = |id: &u64| addrs.get(id).cloned().unwrap_or_else(|| "an address that is not known".to_owned());
    match error {
        RaftError::Fatal(error) => fatal(error),
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => match &to.leader_node {
            Some(leader) => format!("this manager leads no more; the leader is at {}", leader.addr),
            None => "this manager leads no more, and no leader is known".to_owned(),
        },
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            "this manager lost its place as the leader meanwhile; whether the change was made is not known".to_owned()
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => {
            "the managers have changed since they were looked at".to_owned()
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => "another change of the managers is not finished".to_owned(),
            ChangeMembershipError::EmptyMembership(_) => "no manager would be left".to_owned(),
            ChangeMembershipError::LearnerNotFound(missing) => {
                format!("the manager at {} has not begun to learn the log", addr(&missing.node_id))
            }
            ChangeMembershipError::UnsupportedMembershipTransition(_) => {
                "it takes more than one step from the managers that there are".to_owned()
            }
            ChangeMembershipError::UncommittedLeaderLog(_) => {
                "this manager has just become the leader and has nothing confirmed yet".to_owned()
            }
            ChangeMembershipError::NodeMetadataChanged(changed) => {
                format!("the manager at {} has another address already", addr(&changed.node_id))
            }
        },
    }
}

/// Why a cluster was not founded.
pub(crate) fn found(error: &RaftError<Types, InitializeError<Types>>) -> String {
    match error {
        RaftError::Fatal(error) => fatal(error),
        RaftError::APIError(InitializeError::NotAllowed(_)) => "its log belongs to a cluster already".to_owned(),
        RaftError::APIError(InitializeError::NotInMembers(_)) => "it would not be one of its own managers".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{
        BasicNode,
        errors::{EmptyMembership, ForwardToLeader, LearnerNotFound},
    };

    use super::*;

    #[test]
    fn nobody_reads_what_openraft_calls_things() {
        let addrs = BTreeMap::from([(7, "10.0.0.7:2377".to_owned())]);
        let change = |error: ClientWriteError<Types>| change(&RaftError::APIError(error), &addrs);
        let leader = ForwardToLeader::new(7, BasicNode::new("10.0.0.7:2377"));
        let missing = ChangeMembershipError::LearnerNotFound(LearnerNotFound { node_id: 7 });
        let disk = std::io::Error::other("log.db: the disk is full");
        let failed = StorageError::from_io_error(openraft::ErrorSubject::Logs, openraft::ErrorVerb::Write, disk);
        let texts = [
            fatal(&Fatal::Stopped),
            fatal(&Fatal::Panicked),
            fatal(&Fatal::StorageError(failed)),
            change(ClientWriteError::ForwardToLeader(leader)),
            change(ClientWriteError::LogEntryDiscarded(ForwardToLeader::empty())),
            change(ClientWriteError::ChangeMembershipError(missing)),
            change(ClientWriteError::ChangeMembershipError(EmptyMembership {}.into())),
            super::change(&RaftError::Fatal(Fatal::Stopped), &addrs),
        ];
        assert!(texts[2].ends_with(": log.db: the disk is full"), "{}", texts[2]);
        assert!(texts[3].ends_with("the leader is at 10.0.0.7:2377"), "{}", texts[3]);
        assert!(texts[5].contains("10.0.0.7:2377"), "{}", texts[5]);
        for text in texts {
            assert!(
                !["raft stopped", "forward", "Some(", "learner", "embership", "when "]
                    .iter()
                    .any(|word| text.contains(word)),
                "{text}"
            );
        }
    }
}
