//! Clients: they write and read registers through any manager, and tell the oracle what they were told.

use std::sync::Arc;

use swarm_consensus::{Committed, ProposeError, Role};
use swarm_core::{Op, Tx};
use swarm_model::{Availability, NodeId, NodeRole, Timestamp};

use super::{
    managers::looks_away,
    world::{World, hold},
};

/// See the module.
pub(crate) struct Client {
    world: Arc<World>,
    number: u64,
    written: u64,
    /// Its register. Nobody else writes to it, so that of the writes that share an entry hardly ever one hides another.
    register: NodeId,
}

/// A client at work.
pub(crate) async fn run(world: Arc<World>, number: u64) {
    let mut client = Client::new(Arc::clone(&world), number);
    while !world.healed() {
        world.pause(20, 700).await;
        let running: Vec<u64> = world.running().keys().copied().collect();
        let Some(id) = world.pick(&running) else { continue };
        if world.per_mille(600) {
            client.write(id).await;
        } else {
            client.read(id).await;
        }
    }
}

impl Client {
    pub(crate) fn new(world: Arc<World>, number: u64) -> Self {
        Self { world, number, written: 0, register: NodeId(u128::from(number) + 1) }
    }

    /// Writes through this manager. Says whether that was acknowledged.
    pub(crate) async fn write(&mut self, id: u64) -> bool {
        let world = &self.world;
        let Some((life, consensus)) = world.running().remove(&id) else { return false };
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        let floor = hold(&world.oracle).begin_write(&value);
        world.event(&format!("client {} writes {value} through {id}", self.number));
        let term = match *consensus.role().borrow() {
            Role::Leader { term } => Some(term),
            _ => None,
        };
        // As the API of a leader does.
        let in_term = term.filter(|_| world.per_mille(500));
        let txs = vec![Tx::new(vec![Op::AdmitNode {
            node: self.register,
            role: NodeRole::Worker,
            cert_expires_at: Timestamp::ZERO,
            manager_addr: Some(value.clone()),
            availability: Availability::Active,
        }])];
        let write = async move {
            match in_term {
                Some(term) => consensus.propose_in_term(term, txs).await,
                None => consensus.write(txs).await,
            }
        };
        let answer = life.spawn(write).await;
        // A manager that ended takes its answer with it.
        let answer = answer.unwrap_or(Err(ProposeError::Unknown));
        world.event(&format!("client {} hears of {value}: {answer:?}", self.number));
        let (acknowledged, checked) = match answer {
            Ok(Committed { index, outcomes }) => {
                world.operation(match (term, in_term) {
                    (None, _) => "write by way of a follower",
                    (Some(_), None) => "write by the leader",
                    (Some(_), Some(_)) => "write for a leader's term",
                });
                let checked = hold(&world.oracle).wrote(&value, self.register, floor, index);
                let done = outcomes.iter().all(Result::is_ok);
                (true, checked.and(if done { Ok(()) } else { Err(format!("{value} came to {outcomes:?}")) }))
            }
            Err(
                ProposeError::Unknown
                | ProposeError::Stopped(_)
                | ProposeError::NoMajority { unknown: true, .. }
                | ProposeError::CutOff { unknown: true, .. },
            ) => {
                world.other("writes that may or may not have happened");
                (false, Ok(()))
            }
            Err(_) => {
                world.other("writes refused");
                (false, hold(&world.oracle).refused(&value))
            }
        };
        if let Err(complaint) = checked {
            world.complain(complaint);
        }
        acknowledged
    }

    /// Reads through this manager. Says whether that was answered.
    pub(crate) async fn read(&mut self, id: u64) -> bool {
        let world = &self.world;
        let Some((life, consensus)) = world.running().remove(&id) else { return false };
        let floor = hold(&world.oracle).begin_read();
        let answer = life.spawn(async move { consensus.read_barrier().await }).await;
        let Ok(Ok(state)) = answer else {
            world.other("reads refused");
            return false;
        };
        world.operation("linearizable read");
        if looks_away(id) {
            return true;
        }
        world.event(&format!("client {} reads revision {} through {id}", self.number, state.revision()));
        let checked = hold(&world.oracle).read(floor, &state);
        if let Err(complaint) = checked {
            world.complain(format!("through manager {id}, {complaint}"));
        }
        true
    }
}
