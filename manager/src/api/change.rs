//! Changes that users ask for: made from a state, then proposed.

use swarm_core::{Refusal, State, Tx};

use super::{
    Plane, PlaneError,
    caller::{self, Caller},
    reply::{self, Failure},
};

/// How often a change is made again because others took the port, the address or the subnet that was chosen for it. Of changes
/// that choose at the same moment one succeeds with each entry.
const OVERTAKEN_MAX: usize = 256;

/// Makes a transaction from a state and commits it; returns what was made beside it. `make` may be called again: what it
/// draws at random, ids above all, is drawn before.
///
/// A change rests on everything that was acknowledged before it was asked for. The leader has that in its own state
/// without asking anybody ([`Plane::leading`]), so it proposes at once, for the term that the state was read in: should
/// another manager lead by now, the proposal comes to nothing. When it does, or `make` finds something wrong, or the
/// transaction falls, nothing has happened yet and all is done again on a state that other managers vouch for: so
/// nothing is refused for what this manager alone believes. A proposal whose end is unknown is never repeated.
///
/// A transaction that sets the spec of a service names the ports and the virtual addresses that the cluster chooses for it. When
/// somebody else has taken one of them meanwhile, another one is chosen. Each transaction names the
/// caller, and the caller is told what was changed, and with which entry.
pub(super) async fn change<P: Plane, T>(
    plane: &P,
    caller: &Caller,
    make: impl Fn(&State) -> Result<(Tx, T), Failure>,
) -> Result<T, Failure> {
    let stamp = plane.random() as u64;
    let make = |state: &State| {
        let (tx, made) = make(state)?;
        if let Some(object) = caller::object(state, &tx) {
            caller.concerns(object);
        }
        let tx = tx.with_ports(state)?.with_virtual_addrs(state)?;
        Ok::<_, Failure>((tx.by(caller.author().clone()).stamped(state, stamp), made))
    };
    if let Some((term, state)) = plane.leading()
        && let Ok((tx, made)) = make(&state)
    {
        // Nobody else needs it once a newer one is published, and this waits until one is.
        drop(state);
        match plane.propose_in_term(term, vec![tx]).await {
            Ok(committed) if reply::outcome(committed.outcomes.clone()).is_ok() => {
                caller.changed(committed.index);
                return Ok(made);
            }
            Ok(_) | Err(PlaneError::NotLeader { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // In a box: on a leader hardly any change comes so far, and each would carry the room for it.
    Box::pin(async {
        let mut overtaken = 0;
        loop {
            let (tx, made) = make(&plane.read().await?)?;
            let committed = plane.propose(vec![tx]).await?;
            if overtaken < OVERTAKEN_MAX && matches!(committed.outcomes.first(), Some(Err(Refusal::Stale(_)))) {
                overtaken += 1;
                continue;
            }
            reply::outcome(committed.outcomes)?;
            caller.changed(committed.index);
            return Ok(made);
        }
    })
    .await
}
