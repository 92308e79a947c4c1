//! Getting a certificate: the first one with a join token, later ones with the old one.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use hyper::Method;
use swarm_core::ENTRY_VERSION;
use swarm_docker_api::{ApiError, view::Time};
use swarm_manager::Manager;
use swarm_model::{Availability, Redacted, Timestamp};
use swarm_wire::{
    Alpn, BoxedStream, IdentityHolder, JoinToken, NodeIdentity, TokenError, Trust,
    agent::Authority,
    clock,
    join::{CA_PATH, CERTIFICATE_PATH, CertificateRequest, CertificateResponse},
    new_key_and_csr, tls,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{connector::ManagerConnector, http, state_dir::StateDir};

/// A certificate is renewed at a random point between these hundredths of its life (swarm-behaviour §9).
const RENEW_PERCENT: (u64, u64) = (50, 80);
/// Pause after a failed renewal; it grows by as much each time.
const RETRY_STEP: Duration = Duration::from_secs(5);
/// Longest pause between renewals that fail.
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// All nodes are told of a new root CA at once; they ask for their certificates within this time.
const ROTATION_SPREAD_MS: u64 = 1_000;
/// Longest sleep at once: a clock that is set to another time is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two renewals that succeed, also where clocks differ by more than a certificate's life.
const RENEW_PAUSE_NS: i64 = 60_000_000_000;

/// What a manager gave out.
pub(crate) struct Issued {
    /// The certificate with its key.
    pub(crate) identity: NodeIdentity,
    /// A manager's id in Raft.
    pub(crate) raft_id: Option<u64>,
}

/// Becomes a node of the cluster that the manager at `addr` and the token belong to: fetches the root CA, compares it
/// with the token, and asks for a certificate.
///
/// # Errors
/// 503 when nobody answers, 400 for a token of another cluster, or what the manager says.
pub(crate) async fn first(
    addr: &str,
    token: &JoinToken,
    availability: Availability,
    advertise_addr: &str,
) -> Result<Issued, ApiError> {
    let gone = |e: tls::TlsError| ApiError::unavailable(e.to_string());
    let stream = tls::connect_bootstrap(addr, Trust::Unverified, Alpn::Http1).await.map_err(gone)?;
    let root = http::request(stream, addr, Method::GET, CA_PATH, Vec::new()).await?;
    let root = String::from_utf8(root.to_vec()).map_err(|_| {
        ApiError::unavailable(format!("the manager at {addr} answers with something that is no root CA"))
    })?;
    token.check_root(&root).map_err(|e| match e {
        TokenError::OtherCluster => ApiError::bad_request(e.to_string()),
        other => ApiError::unavailable(format!("the manager at {addr}: {other}")),
    })?;
    let stream = tls::connect_bootstrap(addr, Trust::Root(&root), Alpn::Http1).await.map_err(gone)?;
    ask(stream, addr, &root, Some(token.format()), availability, advertise_addr).await
}

/// Asks for a certificate over a stream to a manager that is trusted.
async fn ask(
    stream: BoxedStream,
    addr: &str,
    root: &str,
    token: Option<Redacted>,
    availability: Availability,
    advertise_addr: &str,
) -> Result<Issued, ApiError> {
    let internal = |e: &dyn std::fmt::Display| ApiError::internal(e.to_string());
    let (key, csr) = new_key_and_csr().map_err(|e| internal(&e))?;
    let manager_addr = Some(advertise_addr.to_owned());
    let request = CertificateRequest { csr, token, availability, feature_level: ENTRY_VERSION, manager_addr };
    let body = serde_json::to_vec(&request).map_err(|e| internal(&e))?;
    let answer = http::request(stream, addr, Method::POST, CERTIFICATE_PATH, body).await?;
    let answer: CertificateResponse = serde_json::from_slice(&answer)
        .map_err(|e| ApiError::unavailable(format!("the manager at {addr} answers with no certificate: {e}")))?;
    NodeIdentity::new(answer.certificate, key, answer.trusted.as_deref().unwrap_or(root))
        .map(|identity| Issued { identity, raft_id: answer.raft_id })
        .map_err(|e| ApiError::unavailable(format!("the certificate from the manager at {addr}: {e}")))
}

/// Renews the certificate whenever it is time, for ever.
pub(crate) async fn keep_renewed(
    identity: Arc<IdentityHolder>,
    connector: Arc<ManagerConnector>,
    state: Arc<StateDir>,
    advertise_addr: String,
    manager: Option<Manager>,
) {
    let mut failures: u32 = 0;
    // A certificate that this manager gave itself is not known to the others, who get to give it another one.
    let mut is_own = false;
    let mut wanted = connector.wanted_authority();
    // When the certificate was received, if this run did that.
    let mut received = None;
    loop {
        let own = identity.identity();
        let random = crate::random::below(RENEW_PERCENT.1 - RENEW_PERCENT.0 + 1);
        let due = if is_own { Timestamp::ZERO } else { renewal_due(&own, received, random) };
        let begin = own.as_peer().cert_valid_from;
        // One that was not valid yet when it came: another one would not be either.
        let begin_seen = begin.min(received.unwrap_or(begin));
        let changed = async {
            tokio::select! {
                () = wait_until(due, begin_seen) => renew(&identity, &connector, &state, &advertise_addr).await,
                authority = other_authority(&mut wanted, &identity) => {
                    follow(&authority, &identity, &connector, &state, &advertise_addr).await
                }
            }
        };
        match changed.await {
            Ok(()) => {
                (failures, is_own) = (0, false);
                received = Some(clock::now());
                warn_if_early(&identity.identity());
            }
            Err(e) => {
                failures = failures.saturating_add(1);
                let pause = RETRY_STEP.saturating_mul(failures).min(RETRY_MAX);
                let expired = identity.identity().as_peer().cert_expires_at <= clock::now();
                tracing::warn!(expired, retry_s = pause.as_secs(), "the node's certificate was not renewed: {e:#}");
                let early = identity.identity().as_peer().cert_valid_from > clock::now();
                if let Some(manager) = manager.as_ref().filter(|_| expired || early) {
                    match renew_own(manager, &identity, &connector, &state) {
                        Ok(()) => (is_own, received) = (true, Some(clock::now())),
                        Err(e) => tracing::warn!("nor could this manager renew it itself: {e:#}"),
                    }
                }
                sleep(pause).await;
            }
        }
    }
}

/// Gives this manager a new certificate itself.
fn renew_own(
    manager: &Manager,
    identity: &IdentityHolder,
    connector: &ManagerConnector,
    state: &StateDir,
) -> Result<()> {
    let (key, csr) = new_key_and_csr()?;
    let answer = manager.issue_own(&csr).map_err(anyhow::Error::msg)?;
    let root = answer.trusted.unwrap_or_else(|| identity.identity().root_pem().to_owned());
    let new = NodeIdentity::new(answer.certificate, key, root)?;
    state.save_identity(&new)?;
    identity.replace(new).context("the new certificate")?;
    connector.identity_replaced();
    tracing::warn!("this manager's certificate was not valid at this time; it has made a new one for itself");
    Ok(())
}

/// Waits until the managers want another authority than the one that the identity has.
async fn other_authority(wanted: &mut watch::Receiver<Option<Authority>>, identity: &IdentityHolder) -> Authority {
    let is_other = |wanted: &Option<Authority>| {
        let own = identity.identity();
        wanted.as_ref().is_some_and(|wanted| !comes_from(&own, wanted) || own.root_pem() != wanted.trusted)
    };
    match wanted.wait_for(is_other).await.map(|wanted| wanted.clone()) {
        Ok(Some(authority)) => authority,
        // The connector is gone, and the node with it.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Whether a certificate comes from the authority that it should come from. A manager of before there were several
/// names none.
fn comes_from(own: &NodeIdentity, wanted: &Authority) -> bool {
    wanted.issuer.is_empty() || own.as_peer().issuer == wanted.issuer
}

/// Gets a certificate of the authority that the managers want, or trusts whom they trust.
async fn follow(
    wanted: &Authority,
    identity: &IdentityHolder,
    connector: &ManagerConnector,
    state: &StateDir,
    advertise_addr: &str,
) -> Result<()> {
    let own = identity.identity();
    if !comes_from(&own, wanted) {
        sleep(Duration::from_millis(crate::random::below(ROTATION_SPREAD_MS))).await;
        return renew(identity, connector, state, advertise_addr).await;
    }
    let trusting = own.trusting(&wanted.trusted)?;
    state.save_identity(&trusting)?;
    identity.replace(trusting).context("the new root CA")?;
    connector.identity_replaced();
    tracing::info!("this node trusts the root CA that the managers have now");
    Ok(())
}

/// Gets a new certificate and keeps it. One for another role is not taken: that takes more than a certificate.
pub(crate) async fn renew(
    identity: &IdentityHolder,
    connector: &ManagerConnector,
    state: &StateDir,
    advertise_addr: &str,
) -> Result<()> {
    let old = identity.identity();
    let new = renewed(&old, connector, advertise_addr).await?.identity;
    if new.role() != old.role() {
        connector.want_role(new.role());
        bail!("the node is to be a {}", new.role());
    }
    state.save_identity(&new)?;
    let expires_at = new.as_peer().cert_expires_at;
    identity.replace(new).context("the new certificate")?;
    connector.identity_replaced();
    let days = expires_at.since_ns(clock::now()) / 86_400_000_000_000;
    tracing::info!(days, "this node has a new certificate");
    Ok(())
}

/// Gets a new certificate for the node that has this one.
pub(crate) async fn renewed(old: &NodeIdentity, connector: &ManagerConnector, advertise_addr: &str) -> Result<Issued> {
    let (addr, connected) = connector.connect_to_ask().await?;
    let issued = ask(connected.stream, &addr, old.root_pem(), None, Availability::default(), advertise_addr).await?;
    let new = &issued.identity;
    if (new.node(), new.cluster()) != (old.node(), old.cluster()) {
        bail!("the new certificate names another node ({}, {})", new.node(), new.cluster());
    }
    Ok(issued)
}

/// When a certificate is to be renewed, counted from its end: it may begin long before it was made, where a clock was
/// wrong or the swarm was off. `received` is when it came, if that is known; `random` is at most the width of
/// [`RENEW_PERCENT`].
fn renewal_due(identity: &NodeIdentity, received: Option<Timestamp>, random: u64) -> Timestamp {
    let peer = identity.as_peer();
    let life_ns = peer.cert_expires_at.since_ns(received.unwrap_or(peer.cert_valid_from)).max(0);
    let due = peer.cert_expires_at.plus_ns(-(life_ns / 100 * (100 - RENEW_PERCENT.0 - random) as i64));
    due.max(received.map_or(Timestamp::ZERO, |at| at.plus_ns(RENEW_PAUSE_NS)))
}

/// Says that this machine's clock is behind that of the managers.
fn warn_if_early(identity: &NodeIdentity) {
    let (begin, now) = (identity.as_peer().cert_valid_from, clock::now());
    if begin > now {
        tracing::warn!(
            clock = %Time(now), certificate_begins = %Time(begin),
            "the managers' certificate begins after this machine's time, so that this clock is behind theirs: synchronise \
             them (NTP)"
        );
    }
}

/// Waits until a certificate is to be renewed: at this time, or when the clock turns out to be before its beginning.
async fn wait_until(due: Timestamp, begin: Timestamp) {
    loop {
        let now = clock::now();
        if now < begin {
            tracing::warn!(
                clock = %Time(now), certificate_begins = %Time(begin),
                "this node's certificate is not valid yet, so that this clock is behind, or the managers' was ahead: the \
                 certificate is renewed now"
            );
            return;
        }
        let left_ns = due.since_ns(now);
        if left_ns <= 0 {
            return;
        }
        sleep_until(Instant::now() + Duration::from_nanos(left_ns as u64).min(SLEEP_MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use swarm_model::NodeRole;

    use super::*;
    use crate::testing::TestCluster;

    #[test]
    fn certificates_are_renewed_between_half_and_four_fifths_of_their_life() {
        const HOUR_NS: i64 = 3_600_000_000_000;
        // Nine hours from now and one hour back: ten in all.
        let identity = TestCluster::new().identity(NodeRole::Worker, 9 * HOUR_NS);
        let from = identity.as_peer().cert_valid_from;
        assert_eq!(renewal_due(&identity, None, 0), from.plus_ns(5 * HOUR_NS));
        assert_eq!(renewal_due(&identity, None, 30), from.plus_ns(8 * HOUR_NS));
        // What came later than it begins, as after a long pause of the swarm, lives from then on.
        let received = from.plus_ns(8 * HOUR_NS);
        assert_eq!(renewal_due(&identity, Some(received), 0), from.plus_ns(9 * HOUR_NS));
        assert_eq!(renewal_due(&identity, Some(received), 30), from.plus_ns(9 * HOUR_NS + 36 * HOUR_NS / 60));
        // What has expired when it comes is not asked for again and again.
        let late = from.plus_ns(11 * HOUR_NS);
        assert_eq!(renewal_due(&identity, Some(late), 0), late.plus_ns(RENEW_PAUSE_NS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_is_not_valid_yet_is_renewed_at_once() {
        let (past, future) = (clock::now().plus_ns(-1), clock::now().plus_ns(1 << 60));
        wait_until(future, future).await;
        wait_until(past, past).await;
        let waits = wait_until(future, past);
        assert!(tokio::time::timeout(SLEEP_MAX * 3, waits).await.is_err(), "it is valid, and not due");
    }
}
