//! The change to another certificate authority (swarm-behaviour §9.3).
//!
//! It begins with a change of the cluster. From then on nodes are told to get certificates of the new authority, which
//! come with what the old one says of it, and to trust both. A node says what it has in its description. When all have a
//! new one, the old authority is forgotten, and with it every certificate that came from it.

use std::{sync::Arc, time::Duration};

use swarm_consensus::Consensus;
use swarm_core::{Op, State, Tx};
use swarm_model::{JoinTokens, RootCa, RootRotation};
use swarm_wire::{Ca, CaError, JoinToken, SigningTime, TokenError};
use tokio::time::sleep;

use crate::feed::{Feed, Topic};

/// Pause before the end of a change is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A change from this authority to another one, or to a new one.
///
/// # Errors
/// One of them cannot be used, or the system has no randomness.
pub(crate) fn begin(old: &RootCa, new: Option<&RootCa>, time: SigningTime) -> Result<RootRotation, CaError> {
    let old = Ca::load(&old.cert_pem, &old.key_pem)?;
    let new = new.map_or_else(|| Ca::create_at(time), |new| Ca::load(&new.cert_pem, &new.key_pem))?;
    Ok(RootRotation { root: new.to_root()?, cross_signed_pem: old.cross_sign(&new, time)? })
}

/// Ends changes when all nodes have followed, as long as this manager leads.
pub(crate) async fn finish(consensus: &Consensus, feed: &Arc<Feed>) {
    let watch = feed.watch(Topic::Nodes);
    loop {
        let outcome = match end(&feed.state()) {
            None => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(tx)) => match consensus.propose(vec![tx]).await {
                Ok(committed) => {
                    if committed.outcomes.iter().all(Result::is_ok) {
                        tracing::info!("all nodes have certificates of the new root CA; the old ones no longer count");
                    }
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
        };
        match outcome {
            Ok(()) => watch.changed().await,
            Err(error) => {
                tracing::warn!(error, "the change of the root CA does not end");
                sleep(RETRY).await;
            }
        }
    }
}

/// The end of a change, if it is time.
fn end(state: &State) -> Option<Result<Tx, TokenError>> {
    let root = &state.cluster()?.root_rotation.as_ref()?.root;
    if state.nodes().any(|node| node.cert_issuer() != root.key_id) {
        return None;
    }
    let token = || JoinToken::generate(&root.cert_pem).map(|token| token.format());
    let tokens = token().and_then(|worker| Ok(JoinTokens { worker, manager: token()? }));
    Some(tokens.map(|tokens| {
        let (key_id, join_tokens) = (root.key_id.clone(), Arc::new(tokens));
        Tx::new(vec![Op::FinishRootRotation { key_id, join_tokens }])
    }))
}
