//! What must hold: see the checks.
//!
//! Every write sets one register to a value that is never used again, and says at which index of the log it happened; a
//! read says at which revision of the state it happened. The indexes are the order that all operations seem to happen
//! in; writes that share an entry happen at the same time. So the history is linearizable if every state is what the log
//! makes of it, the same on every manager, and no operation comes before one that had ended when it began.

use std::collections::BTreeMap;

use swarm_consensus::sim::{Durable, Logged};
use swarm_core::State;
use swarm_model::NodeId;

use crate::rng::mix;

/// What became of a write, as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is under way, or nobody knows.
    Open,
    /// It was refused: it must never happen.
    Refused,
    /// It happened at this index.
    Done(u64),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Digest of the state at each revision that a manager has reached.
    states: BTreeMap<u64, u64>,
    /// What became of each value.
    fates: BTreeMap<String, Fate>,
    /// The registers at the last revision that a manager has reached.
    registers: BTreeMap<NodeId, String>,
    /// The index at which each value was written.
    written: BTreeMap<String, u64>,
    /// What was in a register after an entry that wrote to it.
    values: BTreeMap<(NodeId, u64), String>,
    /// Committed entries: leader and digest.
    log: BTreeMap<u64, ((u64, u64), u64)>,
    /// What each manager took for durable when it last ended.
    durable: BTreeMap<u64, Durable>,
    /// The last index of an operation that has ended.
    floor: u64,
    /// Entries that may come and write nothing: they raise the feature level.
    raises: usize,
}

/// The registers of a state and their values, and a digest of all of it.
fn look_at(state: &State) -> (Vec<(NodeId, String)>, u64) {
    let registers = state.nodes().filter_map(|node| Some((node.id, node.manager_addr.clone()?))).collect();
    let mut bytes = Vec::new();
    for object in state.export() {
        // Writing into memory does not fail; what cannot be encoded would differ from all else.
        if rmp_serde::encode::write_named(&mut bytes, &object).is_err() {
            bytes.push(0xc1);
        }
    }
    (registers, digest(&bytes))
}

fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    })
}

impl Oracle {
    /// A manager has this state. States at equal revisions are equal byte for byte, and what one manager has applied no
    /// other skips. Returns a digest of it, and how many writes are seen in it for the first time.
    pub(crate) fn state(&mut self, state: &State) -> Result<(u64, usize), String> {
        let revision = state.revision();
        let (registers, digest) = look_at(state);
        if let Some(known) = self.states.get(&revision) {
            return if *known == digest {
                Ok((digest, 0))
            } else {
                Err(format!("the state at revision {revision} is not what another manager has, or had"))
            };
        }
        if let Some((last, _)) = self.states.last_key_value()
            && revision < *last
        {
            return Err(format!("there is an entry {revision}, which another manager that is at {last} does not have"));
        }
        self.states.insert(revision, digest);
        let mut writes = 0;
        for (register, value) in registers {
            if self.registers.get(&register) == Some(&value) {
                continue;
            }
            if let Some(at) = self.written.get(&value) {
                return Err(format!("{value} was written at {at}, and is a second time at {revision}"));
            }
            if self.fates.get(&value) == Some(&Fate::Refused) {
                return Err(format!("{value} was refused, and is written at {revision} nevertheless"));
            }
            self.written.insert(value.clone(), revision);
            self.values.insert((register, revision), value.clone());
            self.registers.insert(register, value);
            writes += 1;
        }
        if writes == 0 && revision > 0 && self.raises > 0 {
            self.raises -= 1;
        } else if writes == 0 && revision > 0 {
            return Err(format!("the entry {revision} writes nothing, or makes a write a second time"));
        }
        Ok((digest, writes))
    }

    /// A leader is about to raise the feature level.
    pub(crate) fn raise(&mut self) {
        self.raises += 1;
    }

    /// A manager ends, whatever the way.
    pub(crate) fn ended(&mut self, id: u64, durable: Durable) {
        self.durable.insert(id, durable);
    }

    /// A manager has read its disk, and takes no part yet: what it took for durable is there.
    pub(crate) fn started(&self, id: u64, found: Durable) -> Result<(), String> {
        let Some(known) = self.durable.get(&id) else { return Ok(()) };
        if found.vote < known.vote {
            return Err(format!(
                "manager {id} has forgotten its vote: it was {:?}, term and leader, and is {:?}",
                known.vote, found.vote
            ));
        }
        if found.log_end < known.log_end {
            return Err(format!(
                "manager {id} took its log for durable before entry {}, and has lost all from entry {} on",
                known.log_end, found.log_end
            ));
        }
        Ok(())
    }

    /// A write begins. Returns what must come before it.
    pub(crate) fn begin_write(&mut self, value: &str) -> u64 {
        self.fates.insert(value.to_owned(), Fate::Open);
        self.floor
    }

    /// A read begins.
    pub(crate) fn begin_read(&self) -> u64 {
        self.floor
    }

    /// A write was acknowledged.
    pub(crate) fn wrote(&mut self, value: &str, register: NodeId, floor: u64, index: u64) -> Result<(), String> {
        self.fates.insert(value.to_owned(), Fate::Done(index));
        if index <= floor {
            return Err(format!("{value} was written at {index}, but when it began there was all up to {floor}"));
        }
        // One that its client gave up may come late, into the same entry, and hide this one.
        let hidden_by = self.values.get(&(register, index)).and_then(|value| self.fates.get(value));
        if !self.written.contains_key(value) && hidden_by == Some(&Fate::Open) {
            self.written.insert(value.to_owned(), index);
        }
        if self.written.get(value) != Some(&index) {
            let found = self.written.get(value);
            return Err(format!("{value} is said to be written at {index}, and is at {found:?}"));
        }
        self.floor = self.floor.max(index);
        Ok(())
    }

    /// A write was refused, which says that it has not happened and never will.
    pub(crate) fn refused(&mut self, value: &str) -> Result<(), String> {
        self.fates.insert(value.to_owned(), Fate::Refused);
        match self.written.get(value) {
            Some(index) => Err(format!("{value} was refused, and is written at {index} nevertheless")),
            None => Ok(()),
        }
    }

    /// A read has ended with this state.
    pub(crate) fn read(&mut self, floor: u64, state: &State) -> Result<(), String> {
        let revision = state.revision();
        if revision < floor {
            return Err(format!("a read sees revision {revision}, but when it began there was all up to {floor}"));
        }
        self.state(state)?;
        self.floor = self.floor.max(revision);
        Ok(())
    }

    /// A manager's log up to what it has applied: committed entries are the same everywhere and for ever, and leaders
    /// follow each other.
    pub(crate) fn log(&mut self, logged: &[Logged], applied: u64) -> Result<(), String> {
        for entry in logged.iter().filter(|entry| entry.index <= applied) {
            let found = (entry.leader, digest(&entry.row));
            let index = entry.index;
            match self.log.get(&index) {
                Some(known) if *known == found => continue,
                Some(_) => return Err(format!("the committed entry {index} is not what another manager has, or had")),
                None => drop(self.log.insert(index, found)),
            }
            let before = self.log.range(..index).next_back();
            let after = self.log.range(index + 1..).next();
            if before.is_some_and(|(_, (leader, _))| *leader > entry.leader)
                || after.is_some_and(|(_, (leader, _))| *leader < entry.leader)
            {
                return Err(format!("the leaders of the committed entries around {index} are not in order"));
            }
        }
        Ok(())
    }

    /// The last operation that has ended.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The managers have settled at this revision: everything acknowledged is there.
    pub(crate) fn settled(&self, revision: u64) -> Result<(), String> {
        if revision < self.floor {
            return Err(format!("all managers end at revision {revision}, but {} was acknowledged", self.floor));
        }
        for (value, fate) in &self.fates {
            if let Fate::Done(index) = fate
                && self.written.get(value) != Some(index)
            {
                return Err(format!("{value} was acknowledged at {index} and is not there"));
            }
        }
        Ok(())
    }
}
