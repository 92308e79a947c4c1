//! `swarm restore`: a node outside any swarm becomes the only manager of the one in a backup.

use std::{io, sync::Arc};

use axum::body::Body;
use futures_util::TryStreamExt;
use swarm_consensus::{Backup, BackupError};
use swarm_docker_api::ApiError;
use swarm_manager::{Restore, Start};
use swarm_model::Redacted;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{JOIN_WAIT, bad_request, bound_port, internal};
use crate::{
    node::{Member, Node, listen},
    state_dir::Membership,
};

impl Node {
    /// Takes up the swarm in a backup and returns the node's new id. `places` are the addresses to listen on and to
    /// tell others; empty ones are chosen as by `swarm init`.
    ///
    /// # Errors
    /// 503 when the node is in a swarm already, 400 when the backup cannot be read; nothing has changed then.
    pub(crate) async fn restore(
        self: Arc<Self>,
        body: Body,
        passphrase: Redacted,
        places: (String, String),
    ) -> Result<String, ApiError> {
        let _changing = self.change().await;
        self.must_be_out()?;
        let body = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        let source = SyncIoBridge::new(Box::pin(body));
        // All of it is read and checked before anything changes.
        let read = tokio::task::spawn_blocking(move || Backup::read(source, &passphrase)).await;
        let backup = read.map_err(|e| ApiError::internal(e.to_string()))?.map_err(refused)?;

        let (listen_addr, advertise_addr) = self.addresses(&places.0, &places.1)?;
        let port = listen(&listen_addr.to_string()).await.map_err(bad_request)?;
        let membership = Membership {
            listen_addr: listen_addr.to_string(),
            advertise_addr: advertise_addr.to_string(),
            ..Membership::default()
        };
        let membership = membership.at_port(bound_port(&port)?);
        let (restore, identity) = Restore::new(backup, &membership.advertise_addr).map_err(|e| internal(e.into()))?;
        let managers = vec![membership.advertise_addr.clone()];
        let membership = Membership { managers, raft_id: Some(restore.raft_id()), ..membership };
        let node = identity.node();
        self.state().wipe().map_err(internal)?;
        self.state().save_identity(&identity).map_err(internal)?;
        let begin = Some((port, Start::Restore(Box::new(restore))));
        let started = Member::start(&self, membership.clone(), identity, begin, false).await;
        let member = self.settle(started, &membership).await?;
        tracing::warn!("this node goes on from a backup as the only manager of its swarm");
        member.wait_accepted(JOIN_WAIT).await;
        Ok(node.to_string())
    }
}

fn refused(error: BackupError) -> ApiError {
    ApiError::bad_request(match error {
        BackupError::Io(e) => format!("the backup was not received: {e}"),
        other => other.to_string(),
    })
}
