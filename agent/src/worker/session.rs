//! The session with a manager: connect, say hello, heartbeats, reconnect (swarm-behaviour §7.1).

use std::{collections::BTreeSet, io};

use swarm_wire::agent::{
    AGENT_PROTOCOL, AGENT_PROTOCOL_NEWEST, Changeset, Held, Hello, Resume, TaskReport, ToAgent, ToManager, Welcome,
    digest,
};

use super::{Input, Now, Output, SessionState, Worker};
use crate::rng::Rng;

/// First step of the reconnection delay.
const BACKOFF_FIRST_MS: u64 = 100;
/// Longest reconnection delay: when managers are back, an agent comes several times within the limit for heartbeats.
const BACKOFF_MS_MAX: u64 = 2_000;
/// What the delay grows from at most after a manager that answers and does not lead: the new leader is there within a
/// second, and the agent is to be as well.
const REFUSED_BACKOFF_MS_MAX: u64 = 400;
/// The same after a manager named a leader that is news: all that is left is that agents do not come in one moment.
const NEW_LEADER_BACKOFF_MS_MAX: u64 = 50;
/// Delay after a manager said that the node was removed: somebody may yet join it again under the same identity.
const REMOVED_RETRY_MS: u64 = 60_000;
/// Time for opening a stream, and again for the answer to the hello. A TLS handshake takes milliseconds; a new leader
/// may take seconds to answer.
const OPEN_MS_MAX: u64 = 15_000;
/// Heartbeats after which the stream counts as broken, if the manager was not heard from since the first of them. The
/// agent is to be with the next leader before that one gives its node up, after three.
const UNANSWERED_MAX: u32 = 2;
/// The last of them is waited for so long, as a part of the heartbeat period.
const LAST_ANSWER_PART: u64 = 4;
/// Bounds of the heartbeat period that a manager may ask for.
const PERIOD_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;

#[derive(Debug, PartialEq)]
enum Phase {
    /// Until the node can be described.
    Unready,
    Waiting {
        until_ms: u64,
    },
    Connecting {
        until_ms: u64,
    },
    Greeting {
        until_ms: u64,
    },
    Open {
        /// When the next heartbeat is due, or the answer to the last one.
        beat_ms: u64,
    },
    /// A manager knows that the node leaves: a new session would bring the node back.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    phase: Phase,
    rng: Rng,
    backoff_ms: u64,
    period_ms: u64,
    unanswered: u32,
    leader: Option<String>,
    /// The leader that a manager named last since a session worked.
    named: Option<String>,
}

impl Session {
    /// A session that waits for [`Session::allow`].
    pub(super) fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Unready,
            rng: Rng::new(seed),
            backoff_ms: 0,
            period_ms: *PERIOD_MS.end(),
            unanswered: 0,
            leader: None,
            named: None,
        }
    }

    /// The first attempt may be made: the node can be described.
    pub(super) fn allow(&mut self, now_ms: u64) {
        if self.phase == Phase::Unready {
            self.phase = Phase::Waiting { until_ms: now_ms };
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        match self.phase {
            Phase::Waiting { until_ms } | Phase::Connecting { until_ms } | Phase::Greeting { until_ms } => until_ms,
            Phase::Open { beat_ms } => beat_ms,
            Phase::Unready | Phase::Over => u64::MAX,
        }
    }

    /// A session works: the next failure is the first one again.
    pub(super) fn proved(&mut self) {
        self.backoff_ms = 0;
        self.named = None;
    }

    /// The manager said something, whatever it is.
    fn heard(&mut self) {
        let was_last = std::mem::take(&mut self.unanswered) >= UNANSWERED_MAX;
        if let Phase::Open { beat_ms } = &mut self.phase
            && was_last
        {
            *beat_ms = beat_ms.saturating_add(self.period_ms - self.period_ms / LAST_ANSWER_PART);
        }
    }

    /// Waits a random part of a growing delay (full jitter), so that agents do not all come at once.
    fn back_off(&mut self, now_ms: u64) {
        self.backoff_ms = (BACKOFF_FIRST_MS + 2 * self.backoff_ms).min(BACKOFF_MS_MAX);
        let delay = self.rng.below(self.backoff_ms);
        self.phase = Phase::Waiting { until_ms: now_ms.saturating_add(delay) };
    }
}

impl Worker {
    #[cfg(test)]
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.session.phase, Phase::Connecting { .. })
    }

    pub(super) fn session_timers(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.session.deadline_ms() > now.mono_ms {
            return;
        }
        match self.session.phase {
            Phase::Waiting { .. } => {
                self.session.phase = Phase::Connecting { until_ms: now.mono_ms.saturating_add(OPEN_MS_MAX) };
                out.push(Output::Connect { leader: self.session.leader.take() });
            }
            Phase::Connecting { .. } => self.hang_up(now, "no manager could be reached in time".into(), out),
            Phase::Greeting { .. } => self.hang_up(now, "the manager did not answer in time".into(), out),
            Phase::Open { .. } => self.beat(now, out),
            Phase::Unready | Phase::Over => {}
        }
    }

    /// Unanswered heartbeats are counted, not timed: after the process was stopped for a while one heartbeat is due,
    /// and its answer shows that the session still stands.
    fn beat(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.session.unanswered >= UNANSWERED_MAX {
            return self.hang_up(now, format!("the manager left {UNANSWERED_MAX} heartbeats unanswered"), out);
        }
        self.session.unanswered += 1;
        let is_last = self.session.unanswered == UNANSWERED_MAX;
        let wait_ms = if is_last { self.session.period_ms / LAST_ANSWER_PART } else { self.session.period_ms };
        self.session.phase = Phase::Open { beat_ms: now.mono_ms.saturating_add(wait_ms) };
        out.push(Output::Send(ToManager::Heartbeat));
    }

    pub(super) fn hang_up(&mut self, now: Now, reason: String, out: &mut Vec<Output>) {
        out.push(Output::Disconnect);
        self.disconnected(now, reason, out);
    }

    pub(super) fn connected(&mut self, now: Now, out: &mut Vec<Output>) {
        if !matches!(self.session.phase, Phase::Connecting { .. }) {
            return;
        }
        self.session.phase = Phase::Greeting { until_ms: now.mono_ms.saturating_add(OPEN_MS_MAX) };
        let node = self.report();
        self.told = Some(node.clone());
        let resume = self.revision.map(|revision| {
            let tasks: Vec<_> = self.held_tasks().collect();
            let digest_of = |rest: &[Held]| digest(tasks.iter().chain(rest).copied());
            let (digest, all) = (digest_of(&[]), digest_of(&self.held_for_tasks()));
            Resume { revision, digest, all: Some(all) }
        });
        let program = self.options.program.clone();
        let (run, newest) = (Some(self.options.seed), Some(AGENT_PROTOCOL_NEWEST));
        out.push(Output::Send(ToManager::Hello(Box::new(Hello {
            protocol: AGENT_PROTOCOL,
            program,
            node,
            resume,
            run,
            newest,
            table: self.held_table(),
            takes_networks: true,
            takes_questions: true,
        }))));
    }

    fn held_tasks(&self) -> impl Iterator<Item = Held> {
        let tasks = self.tasks.values().filter(|e| !e.task.leaving);
        tasks.map(|e| Held::Task(e.task.assigned.id, e.task.assigned.desired))
    }

    /// The specs and objects that this node holds for its tasks, as the managers count them.
    fn held_for_tasks(&self) -> Vec<Held> {
        let tasks = self.tasks.values().filter(|e| !e.task.leaving).map(|e| &e.task.assigned);
        let used: BTreeSet<_> = tasks.map(|task| (task.service, task.spec_version)).collect();
        let specs = used.into_iter().filter(|key| self.specs.contains_key(key));
        let specs = specs.map(|(service, version)| Held::Spec(service, version));
        specs.chain(self.objects.keys().map(|key| Held::Object(*key))).collect()
    }

    pub(super) fn disconnected(&mut self, now: Now, reason: String, out: &mut Vec<Output>) {
        if matches!(self.session.phase, Phase::Unready | Phase::Waiting { .. } | Phase::Over) {
            return;
        }
        tracing::debug!(%reason, "no session with a manager");
        if self.said_leaving {
            // The manager closes the session of a node that left.
            self.session.phase = Phase::Over;
        } else {
            self.session.back_off(now.mono_ms);
        }
        self.incoming = None;
        self.questions.session_over();
        self.outbox.session_over(now.mono_ms);
        out.push(Output::Session(SessionState::Connecting { reason }));
    }

    pub(super) fn message(&mut self, now: Now, message: ToAgent, out: &mut Vec<Output>) {
        self.session.heard();
        match (message, &self.session.phase) {
            (ToAgent::Welcome(welcome), Phase::Greeting { .. }) => {
                self.session.phase = Phase::Open { beat_ms: now.mono_ms };
                self.count_users();
                self.attachments.session_is_open(welcome.takes_attachments);
                self.welcomed(welcome, out);
                out.push(Output::Session(SessionState::Open));
                tracing::debug!("session with a manager is open");
                if self.leaving {
                    self.said_leaving = true;
                    out.push(Output::Send(ToManager::Leaving));
                }
                self.tell(out);
                self.data_session(out);
            }
            (ToAgent::Welcome(welcome), Phase::Open { .. }) => self.welcomed(welcome, out),
            (ToAgent::Refused { reason, leader, removed }, Phase::Greeting { .. } | Phase::Open { .. }) => {
                self.refused(now, reason, leader, removed, out);
            }
            (ToAgent::HeartbeatAck, Phase::Open { .. }) => {}
            (ToAgent::StatusAck { batch }, Phase::Open { .. }) => self.outbox.acknowledge(batch),
            (ToAgent::Changes(changeset), Phase::Open { .. }) => self.assigned(now, Ok(changeset), out),
            (ToAgent::Assignments(assignments), Phase::Open { .. }) => self.assigned(now, assignments.changes(), out),
            (ToAgent::Table(update), Phase::Open { .. }) => self.table_changed(update, out),
            (ToAgent::Network(update), Phase::Open { .. }) => self.network_changed(now, update, out),
            (ToAgent::Ask { number, question }, Phase::Open { .. }) => self.asked(number, question, out),
            (ToAgent::Attachments(answers), Phase::Open { .. }) => self.attachments_answered(answers, out),
            (ToAgent::StartLogs(request), Phase::Open { .. }) => out.push(Output::Logs(request)),
            (_, Phase::Greeting { .. }) => {
                self.hang_up(now, "the manager sent a message that does not belong here".into(), out);
            }
            // Left over from a stream that was given up.
            (_, Phase::Unready | Phase::Waiting { .. } | Phase::Connecting { .. } | Phase::Over) => {}
        }
    }

    fn assigned(&mut self, now: Now, changeset: io::Result<Changeset>, out: &mut Vec<Output>) {
        if let Err(error) = changeset.and_then(|changeset| self.assign(now, changeset, out)) {
            self.hang_up(now, format!("the manager sent an assignment that cannot be read: {error}"), out);
        }
    }

    fn welcomed(&mut self, welcome: Welcome, out: &mut Vec<Output>) {
        self.session.period_ms = welcome.heartbeat_period_ms.clamp(*PERIOD_MS.start(), *PERIOD_MS.end());
        out.push(Output::Managers(welcome.managers));
        out.extend(welcome.role.map(Output::Role));
        out.extend(welcome.authority.map(Output::Authority));
    }

    fn refused(&mut self, now: Now, reason: String, leader: Option<String>, removed: bool, out: &mut Vec<Output>) {
        let is_news = leader.is_some() && leader != self.session.named;
        if is_news {
            self.session.named.clone_from(&leader);
        }
        self.session.leader = leader;
        if !removed || self.said_leaving {
            let max = if is_news { NEW_LEADER_BACKOFF_MS_MAX } else { REFUSED_BACKOFF_MS_MAX };
            self.session.backoff_ms = self.session.backoff_ms.min(max);
            return self.hang_up(now, format!("refused: {reason}"), out);
        }
        tracing::error!(%reason, "this node was removed from the cluster; its containers keep running");
        self.hang_up(now, reason.clone(), out);
        self.session.phase = Phase::Waiting { until_ms: now.mono_ms.saturating_add(REMOVED_RETRY_MS) };
        out.push(Output::Session(SessionState::Removed { reason }));
    }

    /// Describes the node if the managers have another description.
    pub(super) fn tell(&mut self, out: &mut Vec<Output>) {
        if !self.session.is_open() {
            return;
        }
        let report = self.report();
        if self.told.as_ref() != Some(&report) {
            self.told = Some(report.clone());
            out.push(Output::Send(ToManager::Describe(report.into())));
        }
    }

    pub(super) fn send_reports(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.session.is_open() {
            return;
        }
        let is_known = |id| self.tasks.get(&id).is_some_and(|e| !e.task.leaving);
        if let Some((batch, tasks)) = self.outbox.take(now.mono_ms, is_known) {
            let reports = tasks
                .into_iter()
                .filter_map(|task| Some(TaskReport { task, status: self.tasks.get(&task)?.task.status.clone() }))
                .collect();
            out.push(Output::Send(ToManager::Status { batch, reports }));
        }
    }

    /// Tells the managers and gets rid of all containers; [`Output::Left`] follows.
    pub(super) fn leave(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.synced = true;
        self.forget_attachments(out);
        if self.session.is_open() {
            self.said_leaving = true;
            out.push(Output::Send(ToManager::Leaving));
        }
        let ids: Vec<_> = self.tasks.keys().copied().collect();
        for id in ids {
            self.part_with(now, id, out);
        }
        self.input(now, Input::EventsLost, out);
    }
}
