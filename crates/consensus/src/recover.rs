//! The way out when the majority of the managers is lost for good: one of them goes on alone.
//!
//! An entry at the end of its log makes it the only member. What its log holds counts as committed from then on, also
//! what the others had not confirmed; what only the others had is lost. They must never come back as they were: they
//! would still be a majority of the old members.

use std::{collections::BTreeMap, sync::Arc};

use openraft::{BasicNode, EntryPayload};

use crate::{
    Error, SealKey,
    disk::{Change, Disk, Name},
    history::History,
    load::seal_of,
    records::{self, Ballot},
    seal::Kind,
    store::LogStore,
    types::{LeaderId, LogEntry, LogId, Membership, Vote},
    writer::Fault,
};

/// Makes the manager of a stopped store the only one. Blocks.
pub(crate) fn make_alone(disk: &Arc<dyn Disk>, key: &SealKey, raft_id: u64, addr: &str) -> Result<(), Error> {
    let (seal, _) = seal_of(&**disk, key, raft_id)?;
    // Read and checked as at every start; nothing is sent to its writer, whose thread ends here.
    let log = LogStore::open(Arc::clone(disk), seal.clone(), History::default(), Fault::default())?;
    let (vote, last) = log.ends();
    let file = disk.log_file();
    let last = last.ok_or_else(|| Error::Missing {
        file: file.clone(),
        detail: "the log is empty: this manager never caught up with its swarm, so that it cannot go on alone".into(),
    })?;
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
    let leader_id = LeaderId { term, node_id: raft_id };
    let index = last.index + 1;
    let alone = BTreeMap::from([(raft_id, BasicNode::new(addr))]);
    let members = Membership::new(vec![[raft_id].into()], alone)
        .map_err(|_| Error::Members("no manager would be left".into()))?;
    let entry = LogEntry { log_id: LogId { leader_id, index }, payload: EntryPayload::Membership(members) };
    let row = records::encode_row(&entry).map_err(Error::Members)?;
    let vote = Vote { leader_id, committed: false };
    let ballot = records::encode(&Ballot::from(vote)).map_err(Error::Members)?;
    let failed = |_| Error::Stopped("the system gave no random bytes".into());
    let changes = [
        Change::Row { index, bytes: seal.seal(Kind::Row, index, &row).map_err(failed)? },
        Change::Value(Name::Vote, seal.seal(Kind::Vote, 0, &ballot).map_err(failed)?),
    ];
    log.foretell(vote)?;
    disk.commit(&changes).map_err(|error| Error::io(file, error))?;
    tracing::warn!(index, term, "this manager is the only one of its swarm from now on");
    Ok(())
}
