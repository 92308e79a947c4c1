//! A node's role changes while swarmd runs: promoted, it begins a manager with an empty log; demoted, it ends the one
//! that it has and forgets its log. Its tasks go on.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use swarm_manager::Start;
use swarm_model::NodeRole;
use swarm_wire::NodeIdentity;

use crate::{
    certificate,
    node::{Member, Node, Swarm, listen_as_before},
    reminder::{PERIOD, Reminder},
    state_dir::Membership,
};

/// Pause before a change that did not succeed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Changes the node's role when the managers want that, until the member stops. A box, since the member that it starts
/// is followed as well.
pub(crate) fn follow(node: Weak<Node>, member: Arc<Member>) -> BoxFuture<'static, ()> {
    Box::pin(follow_member(node, member))
}

async fn follow_member(node: Weak<Node>, member: Arc<Member>) {
    let (mut wanted, stop) = (member.wanted_role(), member.stopped());
    let own = member.identity().role();
    let mut reminder = Reminder::new(PERIOD);
    loop {
        let change = wanted.wait_for(|role| role.is_some_and(|role| role != own));
        let Some(Ok(role)) = stop.run_until_cancelled(change).await.map(|role| role.map(|role| role.unwrap_or(own)))
        else {
            return;
        };
        let Some(node) = node.upgrade() else { return };
        // Not cancelled by the end of the member, which it brings about itself.
        match node.change_role(&member, role).await {
            Ok(()) => return,
            Err(e) => {
                if let Some(others) = reminder.happened() {
                    tracing::warn!(others, "this node is to be a {role}, which did not succeed yet: {e:#}");
                }
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return;
        }
    }
}

impl Node {
    /// Gets a certificate for the other role and goes on with it.
    async fn change_role(self: &Arc<Self>, member: &Arc<Member>, role: NodeRole) -> Result<()> {
        let _changing = self.change().await;
        if !matches!(&*self.swarm(), Swarm::In(now) if Arc::ptr_eq(now, member)) {
            // It left meanwhile.
            return Ok(());
        }
        let membership = member.membership();
        let (membership, port) = match role {
            NodeRole::Worker => (membership, None),
            NodeRole::Manager => {
                let port = listen_as_before(&membership).await?;
                (membership.at_port(port.local_addr()?.port()), Some(port))
            }
        };
        let renewed = certificate::renewed(&member.identity(), member.connector(), &membership.advertise_addr).await?;
        if renewed.identity.role() != role {
            bail!("the managers gave it the certificate of a {}", renewed.identity.role());
        }
        let raft_id = renewed.raft_id.filter(|_| role == NodeRole::Manager);
        let membership = Membership { raft_id, joining: role == NodeRole::Manager, ..membership };
        let begin = match port {
            None => None,
            Some(port) => {
                let raft_id = raft_id.context("the certificate of a manager came without its Raft id")?;
                Some((port, Start::Join { raft_id }))
            }
        };
        self.keep(&membership, &renewed.identity)?;
        member.shutdown().await;
        match Member::start(self, membership.clone(), renewed.identity, begin, true).await {
            Ok(member) => {
                self.set(Swarm::In(member));
                self.joined(&membership)?;
                tracing::info!(%role, "this node changed its role");
            }
            // There is no way back; the next start goes on from what was kept.
            Err(e) => drop(self.failure().send_replace(Some(format!("this node is to be a {role}: {e:#}")))),
        }
        Ok(())
    }

    /// Keeps both so that a crash between them leaves a node that can go on: a manager without a log knows that it has
    /// yet to begin one, and a worker has none.
    fn keep(&self, membership: &Membership, identity: &NodeIdentity) -> Result<()> {
        match identity.role() {
            NodeRole::Manager => {
                self.state().save_membership(membership)?;
                self.state().save_identity(identity)
            }
            NodeRole::Worker => {
                self.state().save_identity(identity)?;
                self.state().save_membership(membership)
            }
        }
    }
}
