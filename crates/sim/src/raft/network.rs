//! The network between managers: streams that keep their order, as TCP does, and lose it between each other.
//!
//! Messages are lost and doubled only where losing or doubling one means no more than a connection that broke and was
//! opened again: Raft's own requests and all answers, but no write that is forwarded twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::pending,
    io,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use swarm_consensus::{Consensus, Dialer, sim::Life};
use swarm_wire::BoxedStream;
use tokio::time::{Instant, sleep};

use super::{
    pipe::{Frame, Pipe, Stream},
    world::{World, hold},
};

/// Bytes before a frame's message.
const FRAME_HEAD: usize = 8;
/// Messages that may be lost.
const LOSABLE: [&[u8]; 9] =
    [b"Append", b"Appended", b"Vote", b"PreVote", b"Voted", b"Write", b"Written", b"ReadIndex", b"TakenOver"];
/// Messages that may arrive twice.
const DOUBLED: [&[u8]; 6] = [b"Append", b"Appended", b"Vote", b"PreVote", b"Voted", b"ReadIndex"];

/// See the module.
#[derive(Default)]
pub(crate) struct Network {
    /// Who answers.
    running: BTreeMap<u64, (Arc<Life>, Consensus)>,
    /// Directions in which nothing passes.
    cuts: BTreeSet<(u64, u64)>,
    /// Longest usual delay on top of the usual one, in milliseconds.
    pub(crate) slow_ms: u64,
    /// Messages in a thousand that are lost.
    pub(crate) loss: u64,
    /// How often something kept, or may have kept, managers from each other for a moment.
    disturbances: u64,
    /// Managers that reach one other and no more.
    only: BTreeMap<u64, u64>,
    pipes: Vec<Weak<Mutex<Pipe>>>,
    /// By direction: the last number that was given, and the last that has arrived.
    numbers: BTreeMap<(u64, u64), (u64, u64)>,
}

pub(crate) fn addr(id: u64) -> String {
    format!("manager-{id}:2377")
}

fn id_of(addr: &str) -> Option<u64> {
    addr.strip_prefix("manager-")?.strip_suffix(":2377")?.parse().ok()
}

/// The kind of a frame's message: the name of its variant.
fn kind(frame: &[u8]) -> &[u8] {
    let message = frame.get(FRAME_HEAD..).unwrap_or_default();
    // A variant with fields is a map with one entry; names are short strings.
    let message = message.strip_prefix(&[0x81]).unwrap_or(message);
    let Some((head, rest)) = message.split_first() else { return &[] };
    rest.get(..usize::from(head & 0x1f)).unwrap_or_default()
}

impl Network {
    pub(crate) fn starts(&mut self, id: u64, life: Arc<Life>, consensus: Consensus) {
        self.running.insert(id, (life, consensus));
    }

    /// A manager answers no more. If it is to end silently, the others are not told of it.
    pub(crate) fn ends(&mut self, id: u64, silently: bool) -> Option<(Arc<Life>, Consensus)> {
        self.disturbances += 1;
        self.pipes.retain(|pipe| pipe.strong_count() > 0);
        for pipe in self.pipes.iter().filter_map(Weak::upgrade) {
            let mut pipe = hold(&pipe);
            if silently && (pipe.from == id || pipe.to == id) {
                pipe.die();
            }
        }
        self.running.remove(&id)
    }

    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.disturbances += 1;
        self.cuts.insert((from, to));
    }

    /// Where these two can reach each other as on a good day: the number of disturbances until now.
    pub(crate) fn calm_between(&self, one: u64, other: u64) -> Option<u64> {
        let calm = !self.is_cut(one, other) && !self.is_cut(other, one) && self.slow_ms == 0 && self.loss == 0;
        calm.then_some(self.disturbances)
    }

    pub(crate) fn is_cut(&self, from: u64, to: u64) -> bool {
        let is_kept_from = |one: u64, other: u64| self.only.get(&one).is_some_and(|only| *only != other);
        self.cuts.contains(&(from, to)) || is_kept_from(from, to) || is_kept_from(to, from)
    }

    /// From now on a manager and one other reach each other, and nobody else the first; with none, all reach it again.
    pub(crate) fn keep_to(&mut self, id: u64, other: Option<u64>) {
        match other {
            Some(other) => drop(self.only.insert(id, other)),
            None => drop(self.only.remove(&id)),
        }
    }

    /// All that was cut is whole again; what was held back arrives soon. Returns how much that is.
    pub(crate) fn heal(&mut self, cuts: &[(u64, u64)], at: Instant) -> u64 {
        self.disturbances += 1;
        for cut in cuts {
            self.cuts.remove(cut);
        }
        let pipes = self.pipes.iter().filter_map(Weak::upgrade);
        pipes
            .map(|pipe| {
                let mut pipe = hold(&pipe);
                if self.cuts.contains(&(pipe.from, pipe.to)) { 0 } else { pipe.release(at) }
            })
            .sum()
    }

    pub(crate) fn all_cuts(&self) -> Vec<(u64, u64)> {
        self.cuts.iter().copied().collect()
    }

    /// Breaks the connections between two managers.
    pub(crate) fn reset(&mut self, one: u64, other: u64) {
        self.disturbances += 1;
        for pipe in self.pipes.iter().filter_map(Weak::upgrade) {
            let mut pipe = hold(&pipe);
            if (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one) {
                pipe.reset();
            }
        }
    }

    fn number(&mut self, from: u64, to: u64) -> u64 {
        let (given, _) = self.numbers.entry((from, to)).or_default();
        *given += 1;
        *given
    }

    /// A message has arrived. Says whether one that was sent later came before it.
    pub(crate) fn arrived(&mut self, from: u64, to: u64, number: u64) -> bool {
        let (_, arrived) = self.numbers.entry((from, to)).or_default();
        let overtaken = *arrived > number;
        *arrived = number.max(*arrived);
        overtaken
    }

    pub(crate) fn clear(&mut self) {
        self.running.clear();
    }
}

impl World {
    /// How long something is under way.
    fn delay(&self) -> Duration {
        let slow_ms = hold(&self.network).slow_ms;
        if self.per_mille(1) {
            self.fault("message delayed for long");
            hold(&self.network).disturbances += 1;
            return Duration::from_millis(self.between(50, 1_500));
        }
        Duration::from_millis(self.between(0, 2) + self.below(slow_ms + 1))
    }

    /// Puts a frame into a pipe, or loses it, or doubles it.
    pub(crate) fn carry(&self, pipe: &Mutex<Pipe>, bytes: &[u8]) {
        let (from, to) = {
            let pipe = hold(pipe);
            (pipe.from, pipe.to)
        };
        let (number, loss, cut) = {
            let mut network = hold(&self.network);
            (network.number(from, to), network.loss, network.is_cut(from, to))
        };
        let kind = kind(bytes);
        if loss > 0 && LOSABLE.contains(&kind) && self.per_mille(loss) {
            self.fault("message lost");
            return;
        }
        let arrives = Instant::now() + self.delay();
        let doubled = !self.healed() && DOUBLED.contains(&kind) && self.per_mille(2);
        let mut pipe = hold(pipe);
        let at = (!cut).then(|| arrives.max(pipe.last));
        pipe.last = at.unwrap_or(pipe.last);
        if doubled {
            self.fault("message delivered twice");
            pipe.push(Frame { at, bytes: bytes.to_vec(), read: 0, number });
        }
        pipe.push(Frame { at, bytes: bytes.to_vec(), read: 0, number });
    }

    /// What these cuts stopped goes on.
    pub(crate) fn heal(&self, cuts: &[(u64, u64)]) {
        let held = hold(&self.network).heal(cuts, Instant::now() + Duration::from_millis(5));
        for _ in 0..held {
            self.fault("message held back by a cut");
        }
    }
}

/// A manager's way to the others.
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) from: u64,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.from)
    }
}

impl Dialer for Wire {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let (world, from) = (&self.world, self.from);
            let to = id_of(addr).ok_or_else(|| io::Error::other("there is no such address"))?;
            // There and back.
            sleep(world.delay() + world.delay()).await;
            let server = {
                let network = hold(&world.network);
                if network.is_cut(from, to) || network.is_cut(to, from) {
                    None
                } else {
                    let server = network.running.get(&to).cloned();
                    Some(server.ok_or(io::ErrorKind::ConnectionRefused)?)
                }
            };
            let Some((life, consensus)) = server else { return pending().await };
            let (there, back) = (Pipe::new(from, to), Pipe::new(to, from));
            {
                let mut network = hold(&world.network);
                if network.pipes.len() >= 64 && network.pipes.len().is_power_of_two() {
                    network.pipes.retain(|pipe| pipe.strong_count() > 0);
                }
                network.pipes.extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
            }
            let theirs = Stream::new(world, Arc::clone(&there), Arc::clone(&back));
            life.spawn(async move {
                drop(consensus.serve(Box::new(theirs), &format!("machine {from}"), Arc::new(|| Ok(()))).await)
            });
            Ok(Box::new(Stream::new(world, back, there)) as BoxedStream)
        })
    }
}
