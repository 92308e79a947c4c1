//! Faults, and what operators do.

use std::sync::Arc;

use super::{
    managers::End,
    world::{World, hold},
};

/// Injects faults until all is to be mended.
pub(crate) async fn run(world: Arc<World>) {
    while !world.healed() {
        world.pause(50, 3_000).await;
        if !world.healed() {
            world.something().await;
        }
    }
}

impl World {
    async fn something(self: &Arc<Self>) {
        let running: Vec<u64> = self.running().keys().copied().collect();
        let Some(id) = self.pick(&running) else { return };
        self.copy_a_disk();
        match self.below(106) {
            0..14 => self.crash(id, "kill", End::Kill),
            14..28 => self.crash(id, "power cut", End::Power),
            28..36 => self.crash(id, "silent death", End::Silent),
            36..39 => {
                self.fault("all managers lose power");
                let all: Vec<u64> = hold(&self.managers).keys().copied().collect();
                for id in all {
                    self.end(id, End::Power);
                    self.start_later(id, 2_000);
                }
            }
            39..43 => {
                if self.shut_down(id).await {
                    self.fault("clean stop");
                    self.start_later(id, 5_000);
                }
            }
            43..57 => self.part(&running, id),
            57..64 => self.cut_one_way(&running, id),
            64..68 => self.reset(&running, id),
            68..72 => self.network_slow(),
            72..76 => self.network_lossy(),
            76..81 => self.disk_slow(id),
            81..84 => self.disk_full(id),
            84..86 => {
                self.fault("fsync fails");
                self.event(&format!("{id}: the next sync fails"));
                hold(&self.disks).entry(id).or_default().failing = true;
            }
            86..91 => self.hand_over(id),
            91..93 => self.snapshot(id),
            93..95 => self.add_manager(),
            95..97 => self.remove_manager(false),
            97..100 => self.remove_manager(true),
            _ => self.damage_files(id),
        }
    }

    /// Does something after a while.
    fn later(self: &Arc<Self>, low_ms: u64, high_ms: u64, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            world.pause(low_ms, high_ms).await;
            work(&world);
        });
    }

    fn crash(self: &Arc<Self>, id: u64, name: &'static str, end: End) {
        if self.end(id, end) {
            self.fault(name);
            self.start_later(id, if self.per_mille(200) { 30_000 } else { 3_000 });
        }
    }

    /// Nothing passes in these directions for a while.
    fn cut(self: &Arc<Self>, name: &'static str, cuts: Vec<(u64, u64)>) {
        if cuts.is_empty() {
            return;
        }
        self.fault(name);
        self.event(&format!("{name}: {cuts:?}"));
        {
            let mut network = hold(&self.network);
            cuts.iter().for_each(|(from, to)| network.cut(*from, *to));
        }
        let most_ms = if self.per_mille(200) { 40_000 } else { 8_000 };
        self.later(100, most_ms, move |world| {
            world.event(&format!("healed: {cuts:?}"));
            world.heal(&cuts);
        });
    }

    /// Two groups that do not hear of each other. Often the leader is the one that is alone.
    fn part(self: &Arc<Self>, running: &[u64], id: u64) {
        let id = self.leader().filter(|_| self.per_mille(600)).map_or(id, |(leader, ..)| leader);
        let alone = self.per_mille(600);
        let (left, right): (Vec<u64>, Vec<u64>) =
            running.iter().partition(|one| **one == id || (!alone && self.per_mille(400)));
        let cuts =
            left.iter().flat_map(|one| right.iter().flat_map(|other| [(*one, *other), (*other, *one)])).collect();
        self.cut("partition", cuts);
    }

    fn cut_one_way(self: &Arc<Self>, running: &[u64], id: u64) {
        let outwards = self.per_mille(500);
        let others: Vec<u64> = running.iter().copied().filter(|other| *other != id && self.per_mille(600)).collect();
        let cuts = others.into_iter().map(|other| if outwards { (id, other) } else { (other, id) }).collect();
        self.cut("one-way cut", cuts);
    }

    fn reset(self: &Arc<Self>, running: &[u64], id: u64) {
        let Some(other) = self.pick(running).filter(|other| *other != id) else { return };
        self.fault("connection reset");
        self.event(&format!("connections between {id} and {other} break"));
        hold(&self.network).reset(id, other);
    }

    fn network_slow(self: &Arc<Self>) {
        let slow_ms = self.between(10, 400);
        self.fault("network slow");
        self.event(&format!("the network takes up to {slow_ms} ms more"));
        hold(&self.network).slow_ms = slow_ms;
        self.later(500, 8_000, |world| hold(&world.network).slow_ms = 0);
    }

    fn network_lossy(self: &Arc<Self>) {
        let loss = self.between(5, 200);
        self.fault("network lossy");
        self.event(&format!("the network loses {loss} messages in a thousand"));
        hold(&self.network).loss = loss;
        self.later(500, 8_000, |world| hold(&world.network).loss = 0);
    }

    fn disk_slow(self: &Arc<Self>, id: u64) {
        let slow_ms = self.between(20, 1_000);
        self.fault("disk slow");
        self.event(&format!("{id}: the disk takes up to {slow_ms} ms more"));
        hold(&self.disks).entry(id).or_default().slow_ms = slow_ms;
        self.later(500, 8_000, move |world| hold(&world.disks).entry(id).or_default().slow_ms = 0);
    }

    fn disk_full(self: &Arc<Self>, id: u64) {
        self.fault("disk full");
        self.event(&format!("{id}: the disk is full"));
        hold(&self.disks).entry(id).or_default().full = true;
        self.later(500, 5_000, move |world| hold(&world.disks).entry(id).or_default().full = false);
    }

    fn hand_over(self: &Arc<Self>, id: u64) {
        let Some((life, consensus)) = self.running().remove(&id) else { return };
        let to = Some(id).filter(|_| self.per_mille(500));
        self.event(&format!("{id} asks the leader to hand over to {to:?}"));
        let world = Arc::clone(self);
        life.spawn(async move {
            if consensus.hand_over(to).await.is_ok() {
                world.operation("hand over");
            }
        });
    }

    fn snapshot(self: &Arc<Self>, id: u64) {
        let Some((life, consensus)) = self.running().remove(&id) else { return };
        let world = Arc::clone(self);
        life.spawn(async move {
            if consensus.snapshot().await.is_ok() {
                world.operation("snapshot");
            }
        });
    }

    /// All faults end, and who is down starts.
    pub(crate) async fn mend(self: &Arc<Self>) {
        {
            let mut network = hold(&self.network);
            (network.slow_ms, network.loss) = (0, 0);
        }
        let cuts = hold(&self.network).all_cuts();
        self.heal(&cuts);
        for platter in hold(&self.disks).values_mut() {
            (platter.full, platter.failing, platter.slow_ms) = (false, false, 0);
        }
    }
}
