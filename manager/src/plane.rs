//! The manager, as its API sees it.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, future::join_all, stream::BoxStream};
use swarm_consensus::{Committed, ProposeError, Role, Status, Survey};
use swarm_core::{State, Tx};
use swarm_docker_api::view::TlsInfo;
use swarm_model::{Node, NodeCertificate, NodeId, Redacted, RootCa, RootRotation, Timestamp};
use swarm_wire::{
    JoinToken, RootInfo, SigningTime, UnlockKey,
    agent::{LogMessage, Question},
    clock, root_digest,
};

use crate::{
    Manager,
    api::{Answers, LogSelector, Plane, PlaneError, SealedBackup},
    backup,
    clock::random,
    rotation,
};

impl Plane for Manager {
    async fn propose(&self, txs: Vec<Tx>) -> Result<Committed, PlaneError> {
        self.inner.consensus.write(txs).await.map_err(plane_error)
    }

    fn leading(&self) -> Option<(u64, Arc<State>)> {
        // The role first: the state may only be newer.
        let Role::Leader { term } = *self.inner.consensus.role().borrow() else { return None };
        Some((term, self.inner.feed.state()))
    }

    async fn propose_in_term(&self, term: u64, txs: Vec<Tx>) -> Result<Committed, PlaneError> {
        self.inner.consensus.propose_in_term(term, txs).await.map_err(plane_error)
    }

    async fn read(&self) -> Result<State, PlaneError> {
        self.inner.consensus.read_barrier().await.map_err(plane_error)
    }

    fn state(&self) -> State {
        State::clone(&self.inner.feed.state())
    }

    fn now(&self) -> Timestamp {
        clock::steady()
    }

    fn random(&self) -> u128 {
        // Without randomness no key and no connection could be made either: this process would not have come so far.
        random().expect("the system has randomness")
    }

    fn rotate_join_token(&self, token: &Redacted) -> Result<Redacted, PlaneError> {
        let rotated = JoinToken::parse(token.expose()).and_then(|token| token.rotate());
        rotated.map(|token| token.format()).map_err(|error| PlaneError::Stopped(error.to_string()))
    }

    fn new_unlock_key(&self) -> Result<Redacted, PlaneError> {
        UnlockKey::generate().map(|key| key.format()).map_err(|error| PlaneError::Stopped(error.to_string()))
    }

    fn begin_root_rotation(&self, old: &RootCa, new: Option<&RootCa>) -> Result<RootRotation, PlaneError> {
        let time = SigningTime { clock: clock::now(), log: self.inner.feed.state().time() };
        rotation::begin(old, new, time).map_err(|error| PlaneError::Stopped(error.to_string()))
    }

    async fn managers(&self) -> Status {
        self.inner.consensus.cluster_status().await
    }

    async fn survey(&self) -> Survey {
        self.inner.consensus.survey().await
    }

    fn problem(&self) -> Option<String> {
        self.inner.consensus.problem()
    }

    fn leader_contact(&self) -> Option<Duration> {
        self.inner.consensus.leader_contact()
    }

    async fn hand_over(&self, to: Option<u64>) -> Result<(), PlaneError> {
        self.inner.consensus.hand_over(to).await.map_err(|error| PlaneError::NotNow(error.to_string()))
    }

    async fn backup(&self, passphrase: Redacted) -> Result<(u64, SealedBackup), PlaneError> {
        let taken = self.inner.consensus.backup().await.map_err(plane_error)?;
        Ok((taken.state().revision(), backup::sealed(taken, passphrase)))
    }

    fn tls_info(&self) -> TlsInfo {
        let state = self.state();
        state.cluster().map_or_else(TlsInfo::default, |cluster| {
            // As in Swarm: the certificates that are issued now, and the root that is in force until the change ends.
            TlsInfo { trust_root: cluster.root_ca.cert_pem.clone(), ..issuer_info(cluster.issuing_root()) }
        })
    }

    fn node_tls_info(&self, node: &Node) -> TlsInfo {
        let state = self.state();
        let (Some(cluster), Some(description)) = (state.cluster(), &node.description) else {
            return TlsInfo::default();
        };
        let NodeCertificate { issuer, trusted } = &description.certificate;
        let roots = [&*cluster.root_ca, cluster.issuing_root()];
        let issuer = roots.into_iter().find(|root| root.key_id == *issuer).map(issuer_info).unwrap_or_default();
        let is_up_to_date =
            [&cluster.root_ca.cert_pem, &cluster.trusted_pem()].map(|pem| root_digest(pem)).contains(trusted);
        let trust_root = if is_up_to_date { cluster.root_ca.cert_pem.clone() } else { String::new() };
        TlsInfo { trust_root, ..issuer }
    }

    async fn logs(&self, selector: LogSelector) -> Result<BoxStream<'static, LogMessage>, PlaneError> {
        if let Role::Follower { leader } = &*self.inner.consensus.role().borrow() {
            // Only the leader has the agents' sessions.
            return Err(PlaneError::NotLeader { leader: leader.clone() });
        }
        let dispatcher = self.inner.dispatcher.clone();
        let order = Arc::new(move |node, request| dispatcher.order(node, request));
        let lines = self.inner.logs.subscribe(selector, order);
        let stream = futures_util::stream::unfold(lines, |mut lines| async move {
            let message = lines.recv().await?;
            Some((message, lines))
        });
        Ok(stream.boxed())
    }

    async fn ask(&self, questions: Vec<(NodeId, Question)>) -> Answers {
        let ask = |(node, question)| async move { (node, self.inner.dispatcher.ask(node, question).await) };
        join_all(questions.into_iter().map(ask)).await.into_iter().collect()
    }
}

/// Subject and key of an authority.
fn issuer_info(root: &RootCa) -> TlsInfo {
    let Ok(info) = RootInfo::read(&root.cert_pem) else { return TlsInfo::default() };
    TlsInfo {
        trust_root: String::new(),
        cert_issuer_subject: BASE64_STANDARD.encode(info.subject_der),
        cert_issuer_public_key: BASE64_STANDARD.encode(info.public_key_der),
    }
}

fn plane_error(error: ProposeError) -> PlaneError {
    match error {
        ProposeError::NotLeader { leader } => PlaneError::NotLeader { leader },
        ProposeError::NoMajority { silent, voters, unknown } => PlaneError::NoMajority { silent, voters, unknown },
        ProposeError::CutOff { leader, ask, unknown } => PlaneError::CutOff { leader, ask, unknown },
        ProposeError::Unknown => PlaneError::Unknown,
        ProposeError::TooLarge { bytes, limit } => PlaneError::TooLarge { bytes, limit },
        error @ ProposeError::FeatureLevel { .. } => PlaneError::NotNow(error.to_string()),
        ProposeError::TooMany { .. } | ProposeError::Stopped(_) => PlaneError::Stopped(error.to_string()),
    }
}
