//! Damage to the files of managers that have ended: what has to come of it, and what their operator does then.
//!
//! A manager that lost what it had taken for durable must not start where its witness or a leader in reach can tell. What
//! nobody can tell, the operator knows: such a manager takes no part either, so that the run stays within what Raft can
//! bear. Another one takes its place.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use swarm_consensus::{
    Consensus,
    sim::{Name, witnessed},
};
use tokio::time::sleep;

use super::{
    disk::{Damage, Handle},
    managers::{End, key},
    world::{World, hold},
};

/// Time until a leader has spoken to a manager that starts. It may wait for a second for an answer on a connection from
/// before, notices that a moment later, and comes again; then the manager asks it.
const HEARD_MS: u64 = 2_000;
/// Between two looks whether it still leads: less than an election takes.
const LOOK_MS: u64 = 50;

/// See the module.
#[derive(Default)]
pub(crate) struct Damages {
    /// The manager whose files are damaged, if there is one.
    now: Option<Damaged>,
    /// Managers that have lost something, and never start again.
    given_up: BTreeSet<u64>,
}

struct Damaged {
    id: u64,
    damage: Damage,
    /// Index of the last entry that the witness knew of before.
    witnessed: Option<u64>,
    /// The log says that there is a witness.
    noted: bool,
    /// The loss with which the manager has started since; none as long as it has not.
    loss: Option<String>,
}

/// A leader that a manager can ask when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InReach {
    /// Its term and Raft id.
    leader: (u64, u64),
    /// The last entry that the manager has acknowledged to it.
    matched: Option<u64>,
    /// What had happened on the network.
    disturbances: u64,
}

impl Damage {
    fn name(self) -> &'static str {
        match self {
            Self::OldFolder => "older copy of a folder",
            Self::OldLog => "older copy of a log",
            Self::OldWitness => "older copy of a witness",
            Self::LostTail => "lost end of a log",
            Self::NoWitness => "missing witness",
        }
    }
}

impl World {
    /// Keeps a copy of one disk.
    pub(crate) fn copy_a_disk(&self) {
        let made: Vec<u64> = {
            let disks = hold(&self.disks);
            disks.iter().filter(|(_, platter)| platter.has(Name::Witness)).map(|(id, _)| *id).collect()
        };
        if let Some(id) = self.pick(&made) {
            hold(&self.disks).entry(id).or_default().copy();
        }
    }

    /// Ends a manager and damages its files. One at a time, and none while another one is replaced: the majority stays.
    pub(crate) fn damage_files(self: &Arc<Self>, id: u64) {
        {
            let (damages, members) = (hold(&self.damages), hold(&self.members));
            let is_one_lost = damages.given_up.iter().any(|id| members.is_known(*id));
            if damages.now.is_some() || is_one_lost || !members.is_settled() {
                return;
            }
        }
        let (end, damage) = (
            if self.per_mille(500) { End::Kill } else { End::Power },
            match self.below(10) {
                0..4 => Damage::OldFolder,
                4..6 => Damage::OldLog,
                6..9 => Damage::LostTail,
                _ if self.per_mille(500) => Damage::OldWitness,
                _ => Damage::NoWitness,
            },
        );
        if !self.end(id, end) {
            return;
        }
        let witnessed = witnessed(&*Handle::new(self, id), &key(), id);
        let witnessed = witnessed.unwrap_or_else(|error| {
            self.complain(format!("manager {id} ended with a witness that cannot be read: {error}"));
            None
        });
        let done = {
            let mut disks = hold(&self.disks);
            let platter = disks.entry(id).or_default();
            let noted = platter.has(Name::Witness);
            platter.damage(damage, witnessed, |bound| self.below(bound)).then_some(noted)
        };
        if let Some(noted) = done {
            self.fault(damage.name());
            self.event(&format!("{id}: {}", damage.name()));
            hold(&self.damages).now = Some(Damaged { id, damage, witnessed, noted, loss: None });
        }
        self.start_later(id, 1_000);
    }

    /// Whether a manager has lost something for good.
    pub(crate) fn is_given_up(&self, id: u64) -> bool {
        hold(&self.damages).given_up.contains(&id)
    }

    fn is_damaged(&self, id: u64) -> bool {
        hold(&self.damages).now.as_ref().is_some_and(|damaged| damaged.id == id)
    }

    /// A manager is none any more.
    pub(crate) fn forget_damage(&self, id: u64) {
        hold(&self.damages).now.take_if(|damaged| damaged.id == id);
    }

    /// A manager does not start, or stops: says whether that comes of damage, and is the right answer to it.
    pub(crate) fn refuses_damage(self: &Arc<Self>, id: u64, reason: &str) -> bool {
        if !self.is_damaged(id)
            || !["log", "witness", "snapshot"].iter().any(|file| reason.contains(&format!("{file} of manager {id}")))
        {
            return false;
        }
        self.operation(if reason.contains("had acknowledged to the leader") {
            "refusal by the word of a leader"
        } else {
            "refusal of damaged files"
        });
        self.give_up(id);
        true
    }

    /// The leader that a manager could ask now, and that would answer soon.
    pub(crate) fn leader_in_reach(&self, id: u64) -> Option<InReach> {
        // Beside one that has not heard yet that it was deposed, the next one knows nothing.
        let mut leaders = self.leaders();
        let (leader, _, consensus) = leaders.pop().filter(|_| leaders.is_empty())?;
        // It looks at its disk before it answers.
        if hold(&self.disks).entry(leader).or_default().slow_ms > 0 {
            return None;
        }
        let status = consensus.status();
        let matched = status.members.iter().find(|member| member.raft_id == id)?.matched_index;
        let disturbances = hold(&self.network).calm_between(id, leader)?;
        Some(InReach { leader: (status.term, leader), matched, disturbances })
    }

    /// A manager has read its disk. Says whether it may take part.
    pub(crate) fn has_read(self: &Arc<Self>, id: u64, consensus: &Consensus, asked: Option<InReach>) -> bool {
        let found = consensus.durable();
        let started = hold(&self.oracle).started(id, found);
        let loss = {
            let mut damages = hold(&self.damages);
            let damaged = damages.now.as_mut().filter(|damaged| damaged.id == id);
            match (started, damaged) {
                (Err(loss), None) => Some(loss),
                // The manager may start more than once before a leader speaks to it.
                (started, Some(damaged)) => {
                    damaged.loss = started.err().or(damaged.loss.take());
                    damaged.loss.clone()
                }
                (Ok(()), None) => return true,
            }
        };
        let Some(loss) = loss else {
            self.other("damage that cost nothing");
            self.forget_damage(id);
            return true;
        };
        // Nothing came between the question and the answer.
        let leader = asked
            .filter(|asked| Some(*asked) == self.leader_in_reach(id))
            .filter(|asked| Some(asked.leader) >= found.vote && asked.matched >= Some(found.log_end));
        let noticed_by = {
            let damages = hold(&self.damages);
            let Some(damaged) = damages.now.as_ref().filter(|damaged| damaged.id == id) else {
                drop(damages);
                self.complain(loss);
                return false;
            };
            let witness = match damaged.damage {
                Damage::OldLog | Damage::LostTail => damaged.witnessed >= Some(found.log_end),
                Damage::NoWitness => damaged.noted,
                Damage::OldFolder | Damage::OldWitness => false,
            };
            if witness { Some("its witness") } else { leader.map(|_| "the leader") }
        };
        // Its log does not name the leader: that one has to speak first.
        if noticed_by == Some("the leader")
            && let Some(leader) = leader
            && consensus.status().members.iter().all(|member| member.raft_id != leader.leader.1)
        {
            self.expect_refusal(id, leader, loss);
            return true;
        }
        match noticed_by {
            Some(who) => self.complain(format!("{loss}; {who} could tell, and it starts nevertheless")),
            None => self.other("damage that nobody could tell"),
        }
        self.give_up(id);
        false
    }

    /// A manager that has lost entries meets a leader that it does not know. Until then it reaches nobody else: it could
    /// help another one to lead.
    fn expect_refusal(self: &Arc<Self>, id: u64, leader: InReach, loss: String) {
        let world = Arc::clone(self);
        hold(&self.network).keep_to(id, Some(leader.leader.1));
        tokio::spawn(async move {
            for _ in 0..HEARD_MS / LOOK_MS {
                sleep(Duration::from_millis(LOOK_MS)).await;
                if !world.is_damaged(id) || !hold(&world.managers).contains_key(&id) {
                    return;
                }
                let is_same = |now: InReach| (now.leader, now.disturbances) == (leader.leader, leader.disturbances);
                if !world.leader_in_reach(id).is_some_and(is_same) {
                    world.other("damage that nobody could tell");
                    return world.give_up(id);
                }
            }
            world.complain(format!("{loss}; the leader could tell, and it goes on nevertheless"));
        });
    }

    /// Ends a manager for good; another one takes its place.
    fn give_up(self: &Arc<Self>, id: u64) {
        self.end(id, End::Kill);
        hold(&self.network).keep_to(id, None);
        hold(&self.damages).given_up.insert(id);
        self.forget_damage(id);
        let world = Arc::clone(self);
        tokio::spawn(async move {
            world.pause(100, 3_000).await;
            world.replace(id);
        });
    }
}
