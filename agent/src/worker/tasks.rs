//! The tasks: what to ask of the engine, and what its answers mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_model::{ContainerSpec, DesiredState, ObjectKey, TaskId, TaskState, TaskStatus, Timestamp};

use super::{
    LIST_PERIOD_MS, Now, Operation, Output, RETRY_MS, Worker,
    data::{DRAIN_MS_MAX, Drain, drain_ms},
};
use crate::{
    executor::{ContainerEvent, ContainerRequest, EngineError, EngineReport, Health, Listed, Observed},
    step::{self, Action, LocalTask},
};

/// Grace when the spec says nothing (swarm-behaviour §12.1).
const GRACE_SECS_DEFAULT: u32 = 10;
/// Longest grace that is passed on: a day.
const GRACE_SECS_MAX: i64 = 86_400;

/// Which call is under way for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Inspect,
    Prepare,
    Start,
    Stop,
    Remove,
}

/// A task and what the worker remembers of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) task: LocalTask,
    pub(super) observed: Observed,
    pub(super) call: Option<Call>,
    /// The call that ended last, if it changed nothing: the same call again has to wait.
    pub(super) last_call: Option<Call>,
    cancelled: bool,
    /// The container changed while the call was under way.
    stale: bool,
    /// The container was started while the call was under way: that it has ended may be true no more.
    started: bool,
    pub(super) retry_at_ms: Option<u64>,
    /// [`Worker::touches`] when it was last observed.
    touched: u64,
    /// Files for its container may be there.
    pub(super) has_files: bool,
    pub(super) drain: Drain,
}

impl Entry {
    pub(super) fn new(task: LocalTask, observed: Observed) -> Self {
        Self {
            task,
            observed,
            call: None,
            last_call: None,
            cancelled: false,
            stale: false,
            started: false,
            retry_at_ms: None,
            touched: 0,
            has_files: false,
            drain: Drain::NotBegun,
        }
    }

    /// A container that runs and is sick dooms a live task that was started. The first run that is seen of it is its own.
    fn observe(&mut self, observed: Observed) {
        let task = &mut self.task;
        if task.status.state >= TaskState::Starting {
            let is_sick = matches!(&observed, Observed::Running(r) if r.health == Health::Unhealthy);
            task.unhealthy = task.unhealthy || is_sick;
            if task.started_at.is_zero() && !task.status.state.is_terminal() {
                task.started_at = observed.started_at();
            }
        }
        self.observed = observed;
    }
}

pub(super) fn grace_secs(spec: &ContainerSpec) -> u32 {
    // Whole seconds, rounded up: a grace of 500 ms must not become an immediate kill.
    spec.stop_grace_period_ns.map_or(GRACE_SECS_DEFAULT, |ns| {
        (ns.max(0) / 1_000_000_000 + i64::from(ns % 1_000_000_000 > 0)).min(GRACE_SECS_MAX) as u32
    })
}

impl Worker {
    /// Takes a task as far as it goes without waiting.
    pub(super) fn pump(&mut self, now: Now, id: TaskId, out: &mut Vec<Output>) {
        self.serve(id, out);
        self.follow_container(id, out);
        loop {
            let Some(entry) = self.tasks.get_mut(&id) else { return };
            let wanted = entry.task.assigned.desired.is_live() && !entry.task.leaving;
            if let Some(call) = entry.call {
                if call == Call::Prepare && !wanted && !entry.cancelled {
                    entry.cancelled = true;
                    out.push(Output::Cancel(id));
                }
                return;
            }
            match step::step(&entry.task, &entry.observed) {
                Action::Park => return self.drop_files(id, out),
                Action::Enter(state, err) => {
                    let status = step::status(state, err, &entry.observed, now.wall);
                    self.set_status(now, id, status);
                    self.follow_container(id, out);
                }
                Action::Forget => return self.forget(id, out),
                action => return self.call(now, id, action, out),
            }
        }
    }

    /// Calls the engine, unless it has to wait.
    fn call(&mut self, now: Now, id: TaskId, action: Action, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let key = (entry.task.assigned.service, entry.task.assigned.spec_version);
        let spec = self.specs.get(&key);
        let call = match action {
            Action::Inspect => Call::Inspect,
            Action::Prepare => Call::Prepare,
            Action::Start(_) => Call::Start,
            Action::Stop(_) | Action::Kill(_) => Call::Stop,
            Action::Remove(_) => Call::Remove,
            Action::Park | Action::Enter(..) | Action::Forget => return,
        };
        if !self.engine_up || entry.retry_at_ms.is_some() || (call == Call::Inspect && self.adopting) {
            return;
        }
        if entry.last_call == Some(call) {
            // The call succeeded and changed nothing: no reason to hammer the engine.
            return self.retry_later(now, id);
        }
        let needs = entry.task.assigned.needs.clone();
        let has_needs = !needs.is_empty() && matches!(call, Call::Prepare | Call::Start);
        if let Some(missing) = needs.iter().find(|key| has_needs && !self.objects.contains_key(key)) {
            return self.wait_for(now, id, *missing);
        }
        if let Some(reason) = self.lacks_networks(id).filter(|_| call == Call::Start) {
            self.note_error(now, id, reason);
            return;
        }
        let grace = spec.map_or(GRACE_SECS_DEFAULT, |s| grace_secs(&s.spec.task.container_spec));
        let drain_ms = spec.map_or(DRAIN_MS_MAX, |s| drain_ms(&s.spec));
        if matches!(action, Action::Stop(_) | Action::Remove(_)) && self.waits_for_connections(now, id, drain_ms) {
            return;
        }
        let (Some(entry), spec) = (self.tasks.get_mut(&id), self.specs.get(&key)) else { return };
        let request = |spec: &Arc<_>| ContainerRequest {
            node: self.options.node.clone(),
            task: entry.task.assigned.clone(),
            spec: Arc::clone(spec),
            objects: needs.iter().filter_map(|key| self.objects.get(key)).cloned().collect(),
        };
        let operation = match (action, spec) {
            (Action::Start(container), Some(s)) if has_needs => {
                Operation::Start(container, Some(request(&s.spec).into()))
            }
            (Action::Start(container), _) => Operation::Start(container, None),
            (Action::Stop(container), _) => Operation::Stop(container, grace),
            (Action::Kill(container), _) => Operation::Stop(container, 0),
            (Action::Remove(container), _) => Operation::Remove(container, grace),
            (Action::Prepare, Some(s)) if s.credentials_missing => return,
            (Action::Prepare, Some(s)) => Operation::Prepare(request(&s.spec)),
            (Action::Inspect, Some(s)) => Operation::Inspect(request(&s.spec)),
            // Without a spec a container has no name; the next listing tells.
            _ => return,
        };
        entry.call = Some(call);
        entry.cancelled = false;
        entry.has_files |= has_needs;
        (entry.stale, entry.started) = (false, false);
        if matches!(operation, Operation::Stop(_, 0)) && entry.task.status.state.is_terminal() {
            tracing::warn!(task = %id, "the container of a task that has ended runs again: it is stopped");
        }
        out.push(Output::Run(id, operation));
    }

    /// A task waits until the managers have told the node of an object that it needs, and says so.
    fn wait_for(&mut self, now: Now, id: TaskId, object: ObjectKey) {
        let Some(entry) = self.tasks.get(&id) else { return };
        self.waiting.entry(object).or_default().insert(id);
        let spec = self.specs.get(&(entry.task.assigned.service, entry.task.assigned.spec_version));
        let references = spec.map(|s| s.spec.task.container_spec.references()).unwrap_or_default();
        let named = references.into_iter().find(|reference| reference.key() == Some(object));
        let name = named.map_or_else(|| object.id.to_string(), |reference| reference.name);
        let kind = object.kind;
        self.note_error(now, id, format!("waits for {kind} {name}, which no manager has told this node of yet"));
    }

    /// A task that has ended, and whose container does not run, needs its files no more.
    fn drop_files(&mut self, id: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let stands = matches!(entry.observed, Observed::Absent | Observed::Created { .. } | Observed::Exited(_));
        if entry.has_files && stands && entry.task.status.state.is_terminal() {
            entry.has_files = false;
            out.push(Output::DropFiles(id));
        }
    }

    /// The outcome of a call.
    pub(super) fn done(&mut self, now: Now, id: TaskId, result: Result<Observed, EngineError>, out: &mut Vec<Output>) {
        self.touches += 1;
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let Some(call) = entry.call.take() else { return };
        entry.touched = self.touches;
        entry.last_call = None;
        match result {
            Ok(observed) => {
                let before = std::mem::take(&mut entry.observed);
                let is_final = matches!(observed, Observed::Absent | Observed::Exited(_)) && !entry.started;
                if before == observed {
                    entry.last_call = Some(call);
                }
                let run = entry.task.started_at;
                entry.observe(if entry.stale && !is_final { Observed::Unknown } else { observed });
                if entry.task.started_at != run {
                    self.unsaved.insert(id);
                }
                self.clear_error(now, id);
                self.refresh(now, id);
            }
            Err(EngineError::Cancelled) => entry.observed = Observed::Unknown,
            Err(EngineError::Unreachable(reason)) => {
                tracing::warn!(task = %id, %reason, "the container engine does not answer");
                entry.observed = Observed::Unknown;
                out.push(Output::CheckEngine);
                self.retry_later(now, id);
            }
            Err(EngineError::Fatal(reason)) if matches!(call, Call::Prepare | Call::Start) => {
                self.failed_for_good(now, id, reason, None);
            }
            Err(EngineError::NotStarted { reason, exit_code }) if call == Call::Start => {
                self.failed_for_good(now, id, reason, Some(exit_code));
            }
            Err(
                EngineError::Temporary(reason) | EngineError::Fatal(reason) | EngineError::NotStarted { reason, .. },
            ) => {
                tracing::warn!(task = %id, %reason, "will be tried again");
                if call != Call::Prepare {
                    entry.observed = Observed::Unknown;
                }
                self.note_error(now, id, reason);
                self.retry_later(now, id);
            }
        }
        self.pump(now, id, out);
    }

    /// The engine refuses: a task that is still wanted ends here. `exit_code` is that of a container which could not be
    /// started.
    fn failed_for_good(&mut self, now: Now, id: TaskId, reason: String, exit_code: Option<i64>) {
        let Some(entry) = self.tasks.get(&id) else { return };
        tracing::warn!(task = %id, %reason, "the task cannot run");
        if entry.task.assigned.desired.is_live() && !entry.task.status.state.is_terminal() {
            let before = entry.task.status.state;
            let state = step::state_after_error(before);
            let mut status = step::status(state, Some(reason.into()), &entry.observed, now.wall);
            if before == TaskState::Starting {
                // As Docker says it: the task was not started.
                status.message = Some(before.default_message().into());
            }
            if let Some(container) = status.container.as_mut().filter(|_| exit_code.is_some()) {
                Arc::make_mut(container).exit_code = exit_code;
            }
            self.set_status(now, id, status);
        }
    }

    pub(super) fn set_status(&mut self, now: Now, id: TaskId, status: TaskStatus) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        debug_assert!(status.state >= entry.task.status.state, "task states only go up");
        let waits = status.state == TaskState::Ready && entry.task.assigned.desired == DesiredState::Ready;
        let urgent = waits || status.state >= TaskState::Running;
        entry.task.status = status;
        self.unsaved.insert(id);
        self.outbox.mark(id, now.mono_ms, urgent);
    }

    /// Says what goes wrong with a task that is tried again.
    fn note_error(&mut self, now: Now, id: TaskId, reason: String) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let status = &entry.task.status;
        if !status.state.is_terminal() && status.err.as_deref() != Some(&reason) {
            let status = TaskStatus { err: Some(reason.into()), ..status.clone() };
            self.set_status(now, id, status);
        }
    }

    fn clear_error(&mut self, now: Now, id: TaskId) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let status = &entry.task.status;
        if !status.state.is_terminal() && status.err.is_some() {
            let status = TaskStatus { err: None, ..status.clone() };
            self.set_status(now, id, status);
        }
    }

    /// The container of a running task got another process id or other ports: the engine was restarted under it.
    fn refresh(&mut self, now: Now, id: TaskId) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let old = &entry.task.status;
        let is_same_run = !entry.task.was_restarted(&entry.observed);
        if old.state == TaskState::Running && matches!(entry.observed, Observed::Running(_)) && is_same_run {
            let new = step::status(TaskState::Running, old.err.clone(), &entry.observed, old.at);
            if new != *old {
                self.set_status(now, id, new);
            }
        }
    }

    pub(super) fn retry_later(&mut self, now: Now, id: TaskId) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        if entry.retry_at_ms.is_none() {
            let at = now.mono_ms.saturating_add(RETRY_MS);
            entry.retry_at_ms = Some(at);
            entry.last_call = None;
            self.retries.insert((at, id));
        }
    }

    pub(super) fn container_event(&mut self, now: Now, event: ContainerEvent, out: &mut Vec<Output>) {
        match event {
            ContainerEvent::Ended(id) => {
                self.serve_no_more(id, out);
                self.end_wait(now, id, out);
                self.container_changed(now, id, out);
            }
            ContainerEvent::Changed(id) => self.container_changed(now, id, out),
            ContainerEvent::Started(id) => self.container_started(now, id, out),
            ContainerEvent::Restarted(id) => self.container_restarted(now, id),
            ContainerEvent::NetworkChanged(container) => {
                // The networks of a task's container are known: its start and its end list nothing.
                let is_of_task = |id: &str| self.tasks.keys().any(|task| self.container_id(*task) == Some(id));
                if !container.as_deref().is_some_and(is_of_task) {
                    self.list_attached(out);
                }
            }
        }
    }

    /// Each start is told, also our own.
    fn container_started(&mut self, now: Now, id: TaskId, out: &mut Vec<Output>) {
        match self.tasks.get_mut(&id) {
            // Only a listing says which containers belong to no task.
            None if self.synced => self.request_list(now, out),
            None => {}
            Some(entry) if entry.call == Some(Call::Start) => {}
            Some(entry) if entry.call.is_some() => {
                self.touches += 1;
                entry.touched = self.touches;
                (entry.stale, entry.started) = (true, true);
            }
            Some(entry) => {
                self.touches += 1;
                entry.touched = self.touches;
                entry.observed = Observed::Unknown;
                self.pump(now, id, out);
            }
        }
    }

    /// A container that was told to stop and ended with exit code 0 looks like one whose work is done, until it is
    /// started again. The task of a job stays as it ended: its work is not done twice.
    fn container_restarted(&mut self, now: Now, id: TaskId) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let task = &entry.task;
        if task.status.state == TaskState::Complete && task.assigned.desired != DesiredState::Complete {
            let status = step::status(TaskState::Failed, Some(step::RESTARTED.into()), &entry.observed, now.wall);
            let container = task.status.container.clone();
            self.set_status(now, id, TaskStatus { container, ..status });
        }
    }

    fn container_changed(&mut self, now: Now, id: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        self.touches += 1;
        entry.touched = self.touches;
        entry.stale = true;
        if entry.call.is_none() && !matches!(entry.observed, Observed::Absent | Observed::Exited(_)) {
            entry.observed = Observed::Unknown;
            self.pump(now, id, out);
        }
    }

    /// The task has left the assignment: its container goes, then it is forgotten.
    pub(super) fn part_with(&mut self, now: Now, id: TaskId, out: &mut Vec<Output>) {
        if let Some(entry) = self.tasks.get_mut(&id)
            && !entry.task.leaving
        {
            entry.task.leaving = true;
            self.unsaved.insert(id);
            self.pump(now, id, out);
        }
    }

    pub(super) fn pump_all(&mut self, now: Now, out: &mut Vec<Output>) {
        let ids: Vec<_> = self.tasks.keys().copied().collect();
        for id in ids {
            self.pump(now, id, out);
        }
    }

    pub(super) fn engine_is_up(&mut self, now: Now, report: EngineReport, out: &mut Vec<Output>) {
        self.engine = report;
        // Templates of the containers that are made from now on can name the platform.
        Arc::make_mut(&mut self.options.node).platform.clone_from(&self.engine.platform);
        if !self.engine_up {
            tracing::info!(version = %self.engine.engine.engine_version, "the container engine answers");
            self.engine_up = true;
            self.adopting = true;
            self.events_lost(now, out);
            self.pump_all(now, out);
        }
        self.session.allow(now.mono_ms);
        self.tell(out);
    }

    pub(super) fn engine_is_down(&mut self, now: Now, reason: &str, out: &mut Vec<Output>) {
        if self.engine_up {
            tracing::warn!(%reason, "the container engine does not answer");
            self.engine_up = false;
            self.list_at_ms = u64::MAX;
        }
        self.session.allow(now.mono_ms);
        self.tell(out);
    }

    pub(super) fn events_lost(&mut self, now: Now, out: &mut Vec<Output>) {
        self.runs_in_doubt = true;
        self.request_list(now, out);
    }

    pub(super) fn request_list(&mut self, now: Now, out: &mut Vec<Output>) {
        self.list_at_ms = u64::MAX;
        if !self.engine_up {
            return;
        }
        if self.listing.is_some() {
            self.list_again = true;
            return;
        }
        self.listing = Some(self.touches);
        self.list_again = false;
        self.list_at_ms = now.mono_ms.saturating_add(LIST_PERIOD_MS);
        out.push(Output::List);
        self.list_attached(out);
    }

    /// Compares what there is with what was thought to be.
    pub(super) fn listed(&mut self, now: Now, result: Result<Vec<Listed>, EngineError>, out: &mut Vec<Output>) {
        let Some(as_of) = self.listing.take() else { return };
        let listed = match result {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "the containers of this node cannot be listed");
                out.push(Output::CheckEngine);
                self.list_at_ms = now.mono_ms.saturating_add(RETRY_MS);
                return;
            }
        };
        self.adopting = false;
        let in_doubt = std::mem::take(&mut self.runs_in_doubt);
        let mut found = BTreeMap::new();
        let (mut strays, mut unlabelled) = (Vec::new(), BTreeSet::new());
        for container in listed {
            match container.task {
                Some(task) if self.tasks.contains_key(&task) => drop(found.insert(task, container.state)),
                Some(_) => strays.extend(container.state.container_id().map(str::to_owned)),
                None => unlabelled.extend(container.state.container_id().map(str::to_owned)),
            }
        }
        self.leave_alone(unlabelled);
        for (id, entry) in &mut self.tasks {
            let state = found.remove(id).unwrap_or(Observed::Absent);
            if entry.call.is_none() && entry.touched <= as_of {
                reconcile(entry, state, in_doubt);
            }
        }
        if self.synced {
            self.left = self.leaving && strays.is_empty() && self.tasks.is_empty();
            for id in strays {
                self.remove_stray(id, out);
            }
        }
        self.pump_all(now, out);
        // The removal of a network may have failed, or an earlier run of the agent may have left one.
        self.keep_networks(out);
        if self.left {
            out.push(Output::Left);
        } else if self.leaving {
            self.list_at_ms = self.list_at_ms.min(now.mono_ms.saturating_add(RETRY_MS));
        }
        if self.list_again {
            self.request_list(now, out);
        }
    }

    /// Containers with this node's label but no task's: this program makes none, so that they are not its to remove.
    fn leave_alone(&mut self, unlabelled: BTreeSet<String>) {
        for container in unlabelled.difference(&self.unlabelled) {
            tracing::warn!(
                %container,
                "a container has this node's label but no task's, so that it is left alone: if nobody needs it, remove it"
            );
        }
        self.unlabelled = unlabelled;
    }

    fn remove_stray(&mut self, id: String, out: &mut Vec<Output>) {
        if self.strays.insert(id.clone()) {
            tracing::info!(container = %id, "removing a container of this node that belongs to no task");
            out.push(Output::RemoveStray(id));
        }
    }

    pub(super) fn stray_removed(&mut self, now: Now, id: &str, result: Result<(), EngineError>, out: &mut Vec<Output>) {
        self.strays.remove(id);
        if let Err(error) = result {
            tracing::warn!(container = %id, %error, "a container that belongs to no task stays for now");
        } else if self.leaving {
            self.request_list(now, out);
        }
    }
}

/// Takes over what a listing says where it differs from what was known. It does not say which run of a container it saw.
fn reconcile(entry: &mut Entry, listed: Observed, in_doubt: bool) {
    let over = entry.task.leaving || entry.task.status.state.is_terminal();
    let same = match (&listed, &entry.observed) {
        (Observed::Running(a), Observed::Running(b)) => a.id == b.id && a.health == b.health,
        (Observed::Exited(a), Observed::Exited(b)) => a.id == b.id,
        (a, b) => a == b,
    };
    if same && !(in_doubt && !over && matches!(listed, Observed::Running(_))) {
        return;
    }
    match listed {
        // A listing tells less of these than a live task needs.
        Observed::Running(_) | Observed::Exited(_) if !over => entry.observed = Observed::Unknown,
        state => entry.observed = state,
    }
    entry.last_call = None;
}

/// A status for a task that cannot even be tried.
pub(super) fn rejected(reason: String, at: Timestamp) -> TaskStatus {
    TaskStatus { err: Some(reason.into()), ..TaskStatus::new(TaskState::Rejected, at) }
}
