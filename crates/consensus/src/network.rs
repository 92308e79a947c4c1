//! Other managers, as openraft calls them.
//!
//! Heartbeats and votes have a connection of their own, entries another one, and a snapshot a third that lasts as long
//! as it takes ([`crate::transfer`]). openraft's defaults of `pre_vote` (granted), `transfer_leader` (not there) and
//! `stream_append` (one after the other) answer wrongly or slowly without a word; all are overridden here.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    storage::Snapshot,
};

use crate::{
    line::{Dialer, Kind, Line},
    message::{Answer, Appended, Request, vote_response},
    snapshot::Content,
    transfer,
    twin::Own,
    types::{LeaderId, LogId, Types, Vote},
};

/// An answer to a heartbeat or a vote that takes longer means a broken connection: it costs the other side one small
/// write at most.
const CONTROL_LIMIT: Duration = Duration::from_secs(1);
/// The same for entries, which the other side has to write to its disk.
const LOG_LIMIT: Duration = Duration::from_secs(5);
/// Requests with entries under way to one manager; each holds at most a read of the log.
const APPENDS_MAX: usize = 8;

/// The lines to other managers.
#[derive(Clone)]
pub(crate) struct Network {
    dialer: Arc<dyn Dialer>,
    own: Arc<Own>,
    lines: Arc<Mutex<Lines>>,
}

/// Lines by manager and kind, each with the address that it goes to.
type Lines = BTreeMap<(u64, Kind), (String, Line)>;

impl Network {
    pub(crate) fn new(dialer: Arc<dyn Dialer>, own: Arc<Own>) -> Self {
        Self { dialer, own, lines: Arc::default() }
    }

    pub(crate) fn dialer(&self) -> Arc<dyn Dialer> {
        Arc::clone(&self.dialer)
    }

    /// The run and the address of this manager, which it says when it opens a connection.
    pub(crate) fn own(&self) -> &Arc<Own> {
        &self.own
    }

    /// The line to a manager.
    pub(crate) fn line(&self, kind: Kind, to: u64, addr: &str) -> Line {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get(&(to, kind)) {
            Some((known, line)) if known == addr => line.clone(),
            _ => {
                let line = Line::new(self.dialer(), Arc::clone(&self.own), kind, to, addr.to_owned());
                lines.insert((to, kind), (addr.to_owned(), line.clone()));
                line
            }
        }
    }

    /// Closes the lines to managers that are none any more.
    pub(crate) fn retain(&self, keep: impl Fn(u64) -> bool) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).retain(|(to, _), _| keep(*to));
    }

    fn peer(&self, to: u64, node: &BasicNode, appends: Kind) -> Peer {
        Peer {
            to,
            addr: node.addr.clone(),
            dialer: self.dialer(),
            own: Arc::clone(&self.own),
            control: self.line(Kind::Control, to, &node.addr),
            appends: self.line(appends, to, &node.addr),
            limit: if appends == Kind::Control { CONTROL_LIMIT } else { LOG_LIMIT },
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Kind::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        self.peer(target, node, Kind::Control)
    }
}

/// One manager.
pub(crate) struct Peer {
    to: u64,
    addr: String,
    dialer: Arc<dyn Dialer>,
    own: Arc<Own>,
    control: Line,
    /// Carries entries, or heartbeats.
    appends: Line,
    limit: Duration,
}

impl Peer {
    fn unreachable(&self, problem: impl std::fmt::Display) -> Unreachable<Types> {
        Unreachable::from_string(format!("manager {}: {problem}", self.addr))
    }

    fn unexpected(&self, answer: Answer) -> RPCError<Types> {
        let problem = match answer {
            Answer::Refused(reason) => reason,
            other => format!("it answers {other:?}"),
        };
        self.unreachable(problem).into()
    }

    /// Sends entries; the answer comes with the log ids that openraft compares.
    fn append(
        &self,
        request: &AppendEntriesRequest<Types>,
    ) -> impl Future<Output = Result<AppendEntriesResponse<Types>, RPCError<Types>>> + Send + use<> {
        let sent = Request::append(request).map(|message| self.appends.send(message, self.limit));
        let (addr, from_start) = (self.addr.clone(), request.prev_log_id.is_none());
        async move {
            let unreachable = |problem: String| Unreachable::from_string(format!("manager {addr}: {problem}")).into();
            match sent.map_err(unreachable)?.await {
                // openraft takes for granted that nothing is in conflict with the start of the log.
                Ok(Answer::Appended(Appended::Conflict)) if from_start => {
                    Err(unreachable("it finds a conflict before the first entry".into()))
                }
                Ok(Answer::Appended(appended)) => Ok(appended.into()),
                Ok(Answer::Refused(reason)) => Err(unreachable(reason)),
                Ok(other) => Err(unreachable(format!("it answers {other:?}"))),
                Err(error) => Err(unreachable(error.to_string())),
            }
        }
    }

    async fn ask_vote(&self, request: Request) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.control.send(request, CONTROL_LIMIT).await {
            Ok(Answer::Voted { vote, last, granted }) => Ok(vote_response(vote, last, granted)),
            Ok(other) => Err(self.unexpected(other)),
            Err(error) => Err(self.unreachable(error).into()),
        }
    }
}

/// Log id of the last entry of a request, or of the one before it.
fn last_of(request: &AppendEntriesRequest<Types>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Content;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(&request).await
    }

    /// Keeps several requests under way. The other side takes them in their order, one connection after all.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> openraft::base::BoxFuture<
        's,
        Result<openraft::base::BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let peer = &*self;
        let answers = input
            .map(move |request| {
                let (prev, last) = (request.prev_log_id, last_of(&request));
                let answer = peer.append(&request);
                async move { answer.await.map(|response| (response, prev, last)) }
            })
            .buffered(APPENDS_MAX);
        // A failure ends the stream: what was sent after it rests on it.
        let answers = answers.scan(false, |over, answer| {
            let item = (!*over).then(|| {
                answer.map(|(response, prev, last)| {
                    *over = !matches!(response, AppendEntriesResponse::Success);
                    response.into_stream_result(prev, last)
                })
            });
            if matches!(item, Some(Err(_))) {
                *over = true;
            }
            std::future::ready(item)
        });
        let stream: BoxStream<'s, _> = Box::pin(answers);
        let future: BoxFuture<'s, _> = Box::pin(std::future::ready(Ok(stream)));
        future
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Request::Vote((&request).into())).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(Request::PreVote((&request).into())).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, BasicNode, Content>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = transfer::send(&*self.dialer, &self.own, self.to, &self.addr, vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(problem) => Err(self.unreachable(problem).into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.control.send(Request::take_over(&request), CONTROL_LIMIT).await {
            Ok(Answer::TakenOver(taken)) => Ok(taken.into()),
            Ok(other) => Err(self.unexpected(other)),
            Err(error) => Err(self.unreachable(error).into()),
        }
    }
}
