//! The writing half of a session: what an agent is told, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_core::State;
use swarm_model::{NodeId, ObjectId};
use swarm_wire::{
    Sender,
    agent::{ToAgent, Welcome},
    endpoints::TableVersion,
};
use tokio::{
    io::AsyncWrite,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Term,
    serve::{Answer, Ctx, End, Had, News, REPORT_RETRY},
    session::{Outbox, Session},
};
use crate::{
    feed::{AssignmentKey, Changes, lock},
    networks::Networks,
};

/// Shortest time between two updates of the endpoint table: what changes meanwhile goes together.
const TABLE_INTERVAL: Duration = Duration::from_millis(20);

impl Ctx<'_> {
    /// Tells the agent what it is to know.
    pub(super) async fn write<W>(
        &self,
        had: Had,
        mut welcome: Welcome,
        sender: &mut Sender<W, ToAgent>,
        mut answered: mpsc::UnboundedReceiver<Answer>,
        News { watch, assignments, mut ordered, mut attached }: News,
    ) -> Result<(), End>
    where
        W: AsyncWrite + Unpin,
    {
        let mut session = Session::new(self.peer.node, self.term.encoded.clone());
        let (mut table, mut told_table) =
            (self.dispatcher.feed.watch_endpoints(), had.table.and_then(|held| held.version));
        let (mut table_is_news, mut next_table) = (had.table.is_some(), Instant::now());
        let (mut lowest, mut stops_at) = (self.term.lowest.subscribe(), None);
        let (mut told_networks, mut next_networks) = (BTreeMap::new(), Instant::now());
        // The networks whose records may be others than the agent was told: all of them, at the beginning.
        let mut changed_networks = Changes::Everything;
        let mut managers = self.term.managers.subscribe();
        // Changes since the welcome above count as well.
        managers.mark_changed();
        // Everything is looked at, whatever was gathered before.
        let messages = self.gated(&mut stops_at, |gate| session.open(&assignments.take().0, had.resume, gate));
        self.tell(messages, had, sender).await?;
        loop {
            tokio::select! {
                Some(answer) = answered.recv() => {
                    // The place is free again once the answer is sent: an agent that does not read gets no more.
                    let (message, _place) = match answer {
                        Answer::Heartbeat(place) => (ToAgent::HeartbeatAck, place),
                        Answer::Status(batch, place) => (ToAgent::StatusAck { batch }, place),
                        Answer::Table(_place) => {
                            (table_is_news, told_table) = (had.table.is_some(), None);
                            continue;
                        }
                    };
                    sender.send(&message).await?;
                }
                Ok(()) = attached.changed() => {
                    let answers = attached.borrow_and_update().clone();
                    sender.send(&ToAgent::Attachments(answers)).await?;
                }
                Some(order) = ordered.recv() => sender.send(&order).await?,
                stood = self.presence.landed() => {
                    if !stood {
                        sleep(REPORT_RETRY).await;
                    }
                    self.presence.sync(&self.state(), &self.term);
                }
                Ok(()) = managers.changed() => self.greet_again(&mut welcome, &self.state(), sender).await?,
                () = watch.changed() => {
                    let state = self.state();
                    self.dispatcher.check_member(self.peer, &state)?;
                    self.greet_again(&mut welcome, &state, sender).await?;
                    self.presence.sync(&state, &self.term);
                }
                // Before the assignments: the balance of a node changes before its tasks do.
                () = sleep_until(next_table), if table_is_news => {
                    let (updates, version) = self.dispatcher.feed.endpoints(|table| (table.since(told_table), table.version()));
                    for update in updates {
                        sender.send(&ToAgent::Table(update)).await?;
                    }
                    (told_table, table_is_news, next_table) = (Some(version), false, Instant::now() + TABLE_INTERVAL);
                }
                Ok(()) = table.changed(), if had.table.is_some() && !table_is_news => table_is_news = true,
                () = sleep_until(next_networks), if had.takes_networks && !changed_networks.is_empty() => {
                    self.tell_networks(&session, &std::mem::take(&mut changed_networks), &mut told_networks, sender).await?;
                    next_networks = Instant::now() + TABLE_INTERVAL;
                }
                () = assignments.changed() => {
                    let (state, changes) = assignments.take();
                    self.follow(&mut session, &mut stops_at, (&state, &changes), had, sender).await?;
                    changed_networks.merge(changes);
                }
                Ok(()) = lowest.changed(), if stops_at.is_some() => {
                    let held = session.held();
                    self.follow(&mut session, &mut stops_at, (&self.state(), &held), had, sender).await?;
                }
                () = sleep_until(stops_at.unwrap_or(next_table)), if stops_at.is_some() => {
                    let held = session.held();
                    self.follow(&mut session, &mut stops_at, (&self.state(), &held), had, sender).await?;
                }
            }
        }
    }

    /// Tells the agent what is new of what it is to have.
    async fn follow<W: AsyncWrite + Unpin>(
        &self,
        session: &mut Session,
        stops_at: &mut Option<Instant>,
        (state, changes): (&State, &Changes),
        had: Had,
        sender: &mut Sender<W, ToAgent>,
    ) -> Result<(), End> {
        // The tasks that wait are looked at as well, so that the next time is known.
        let Changes::Keys(held) = session.held() else { return Ok(()) };
        let mut changes = changes.clone();
        held.into_iter().for_each(|key| changes.add(key));
        let messages = self.gated(stops_at, |gate| session.follow(state, &changes, gate));
        match messages {
            Some(messages) => self.tell(messages, had, sender).await,
            None => Ok(()),
        }
    }

    /// Tells the agent what is new in the networks that it is in.
    async fn tell_networks<W: AsyncWrite + Unpin>(
        &self,
        session: &Session,
        changes: &Changes,
        told: &mut BTreeMap<ObjectId, TableVersion>,
        sender: &mut Sender<W, ToAgent>,
    ) -> Result<(), End> {
        let now: BTreeSet<ObjectId> = session.networks().collect();
        told.retain(|network, _| now.contains(network));
        for network in now {
            if told.contains_key(&network) && !changes.concern(AssignmentKey::Network(network)) {
                continue;
            }
            let held = told.get(&network).copied();
            let look = |networks: &Networks| (networks.since(network, held), networks.version(network));
            let (updates, version) = self.dispatcher.feed.networks(look);
            for update in updates {
                sender.send(&ToAgent::Network(update)).await?;
            }
            told.insert(network, version);
        }
        Ok(())
    }

    async fn tell<W: AsyncWrite + Unpin>(
        &self,
        messages: Outbox,
        had: Had,
        sender: &mut Sender<W, ToAgent>,
    ) -> Result<(), End> {
        for message in messages {
            sender.send(&ToAgent::changes(message?, had.takes_changes)?).await?;
        }
        Ok(())
    }

    /// Looks at tasks with the gate for their stops ([`super::stops`]), and notes when the first stop that waits has waited
    /// long enough.
    fn gated<T>(
        &self,
        stops_at: &mut Option<Instant>,
        look: impl FnOnce(&mut dyn FnMut(swarm_model::TaskId) -> bool) -> T,
    ) -> T {
        let mut first: Option<Duration> = None;
        let looked = look(&mut |task| {
            let Some(left_at) = self.dispatcher.feed.endpoints(|table| table.left_at(task)) else { return true };
            let all_are_here = lock(&self.term.table).liveness.unheard().0.is_empty();
            match lock(&self.term.stops).may_stop(task, left_at, all_are_here, self.term.now()) {
                Ok(()) => true,
                Err(until) => {
                    first = Some(first.map_or(until, |first| first.min(until)));
                    false
                }
            }
        });
        *stops_at = first.map(|first| self.term.began + first);
        looked
    }
}

impl Term {
    /// A node goes by the endpoint table of this revision.
    pub(super) fn acknowledge(&self, node: NodeId, revision: u64) {
        let mut stops = lock(&self.stops);
        stops.acknowledge(node, revision);
        let now = stops.lowest();
        self.lowest.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// A node has no session any more: it is not waited for.
    pub(super) fn forget_table(&self, node: NodeId) {
        let mut stops = lock(&self.stops);
        stops.forget(node);
        let now = stops.lowest();
        self.lowest.send_if_modified(|known| std::mem::replace(known, now) != now);
    }
}
