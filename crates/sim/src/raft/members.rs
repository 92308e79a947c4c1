//! Which managers there are to be, and how they become so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_consensus::{
    Steering,
    sim::{Life, Start},
};
use swarm_core::ENTRY_VERSION;

use super::{
    clients,
    managers::End,
    network::addr,
    world::{World, hold},
};

/// Most managers.
pub(crate) const MOST: usize = 5;
/// Fewest managers.
pub(crate) const FEWEST: usize = 3;

/// See the module.
#[derive(Default)]
pub(crate) struct Members {
    /// Those that there are to be.
    pub(crate) wanted: BTreeSet<u64>,
    /// Those that there are to be, or were and may still be needed.
    known: BTreeSet<u64>,
    /// The last id that was given. None is given twice.
    last: u64,
}

impl Members {
    pub(crate) fn is_known(&self, id: u64) -> bool {
        self.known.contains(&id)
    }

    /// Whether no manager is being replaced.
    pub(crate) fn is_settled(&self) -> bool {
        self.known == self.wanted
    }

    fn add(&mut self) -> u64 {
        self.last += 1;
        self.wanted.insert(self.last);
        self.known.insert(self.last);
        self.last
    }
}

impl World {
    /// A cluster of three or five.
    pub(crate) async fn found(self: &Arc<Self>) {
        let count = if self.per_mille(500) { FEWEST } else { MOST };
        for _ in 0..count {
            let id = hold(&self.members).add();
            self.start(id, if id == 1 { Start::Create } else { Start::Join });
        }
        while !self.steer_once().await {
            self.pause(100, 200).await;
        }
    }

    /// Takes steps towards the managers that there are to be, for as long as the run goes.
    pub(crate) async fn steer(self: Arc<Self>) {
        loop {
            self.pause(200, 600).await;
            if self.steer_once().await {
                self.retire();
            }
        }
    }

    /// Says whether the managers are what they are to be.
    async fn steer_once(&self) -> bool {
        let Some((id, life, consensus)) = self.leader() else { return false };
        let wanted: BTreeMap<u64, String> = hold(&self.members).wanted.iter().map(|id| (*id, addr(*id))).collect();
        let raises = consensus.state().feature_level() < ENTRY_VERSION;
        if raises {
            hold(&self.oracle).raise();
        }
        let steered = life
            .spawn(async move {
                if raises {
                    // It is tried again.
                    let _ = consensus.raise_feature_level().await;
                }
                consensus.steer_members(&wanted).await
            })
            .await;
        match steered {
            Ok(Ok(Steering::Settled)) => true,
            Ok(Ok(Steering::Underway(_))) | Err(_) => false,
            Ok(Err(error)) => {
                self.event(&format!("{id} does not change the managers: {error}"));
                false
            }
        }
    }

    /// Managers that all others know to be none any more go for good.
    fn retire(&self) {
        let wanted = hold(&self.members).wanted.clone();
        let running = self.running();
        let agreed = wanted.iter().all(|id| {
            running.get(id).is_some_and(|(_, consensus)| {
                let status = consensus.status();
                !status.joint && status.members.iter().map(|member| member.raft_id).eq(wanted.iter().copied())
            })
        });
        let gone: Vec<u64> = hold(&self.members).known.difference(&wanted).copied().collect();
        for id in gone.into_iter().filter(|_| agreed) {
            self.end(id, End::Kill);
            hold(&self.members).known.remove(&id);
            hold(&self.disks).remove(&id);
            self.forget_damage(id);
            self.event(&format!("{id} is removed"));
        }
    }

    /// One more manager.
    pub(crate) fn add_manager(self: &Arc<Self>) {
        if hold(&self.members).known.len() < MOST {
            let id = hold(&self.members).add();
            self.operation("add manager");
            self.start(id, Start::Join);
        }
    }

    /// One manager less, or another one in its place.
    pub(crate) fn remove_manager(self: &Arc<Self>, replace: bool) {
        let wanted: Vec<u64> = hold(&self.members).wanted.iter().copied().collect();
        if hold(&self.members).known.len() > wanted.len() || (wanted.len() <= FEWEST && !replace) {
            return;
        }
        let Some(id) = self.pick(&wanted) else { return };
        if replace {
            self.operation("replace manager");
            self.replace(id);
        } else {
            self.event(&format!("{id} is to go"));
            hold(&self.members).wanted.remove(&id);
            self.operation("remove manager");
        }
    }

    /// Another manager in the place of this one, unless it is to go anyway.
    pub(crate) fn replace(self: &Arc<Self>, id: u64) {
        if hold(&self.members).wanted.remove(&id) {
            self.event(&format!("{id} is to go"));
            let id = hold(&self.members).add();
            self.start(id, Start::Join);
        }
    }

    /// Waits until all managers are there, agree, and take writes.
    pub(crate) async fn settle(self: &Arc<Self>) {
        while !self.is_whole() {
            self.pause(100, 300).await;
        }
        let wanted = hold(&self.members).wanted.clone();
        for id in wanted {
            let mut client = clients::Client::new(Arc::clone(self), 100 + id);
            while !(client.write(id).await && client.read(id).await) {
                self.pause(100, 300).await;
            }
        }
        loop {
            let running = self.running();
            let revisions: BTreeSet<u64> = running.values().map(|(_, c)| c.state().revision()).collect();
            if let (1, Some(revision)) = (revisions.len(), revisions.first()) {
                let settled = hold(&self.oracle).settled(*revision);
                if let Err(complaint) = settled {
                    self.complain(complaint);
                }
                self.event(&format!("all are at revision {revision}"));
                break;
            }
            self.pause(100, 300).await;
        }
        self.compare_logs().await;
    }

    fn is_whole(&self) -> bool {
        let wanted = hold(&self.members).wanted.clone();
        let all = |(_, (_, consensus)): (u64, (Arc<Life>, swarm_consensus::Consensus))| {
            let status = consensus.status();
            let members = status.members.iter().filter(|member| member.voter).map(|member| member.raft_id);
            !status.joint && status.leader.is_some() && members.eq(wanted.iter().copied())
        };
        let running = self.running();
        running.keys().eq(wanted.iter()) && running.into_iter().all(all)
    }

    /// How the managers are, for people.
    pub(crate) fn describe(&self) -> String {
        let wanted = hold(&self.members).wanted.clone();
        let all: Vec<String> =
            self.running().into_iter().map(|(id, (_, consensus))| format!("{id}: {:?}", consensus.status())).collect();
        format!("wanted {wanted:?}; {}; floor {}", all.join("; "), hold(&self.oracle).floor())
    }
}
