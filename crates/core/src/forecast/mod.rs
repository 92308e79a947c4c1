//! What a change would lead to: `decide` and `apply`, repeated on a copy of the state with agents that do as they are
//! told at once. It knows nothing of what the orchestrators do; it watches them (design §4.6).

mod steps;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_model::{
    Availability, DesiredState, NodeId, NodeState, ServiceId, Task, TaskId, TaskState, TaskStatus, Timestamp,
};

use crate::{
    Context, Dirty, ENTRY_VERSION, Entry, Event, Op, Outcome, Refusal, Rejection, State, Tx, apply, decide,
    decide::{Planned, Stay, Staying, why_rolled_back, why_staying, why_without_node},
};

/// Waves that are told. What comes after so many is more of the same.
pub const WAVES_MAX: usize = 200;
/// Tasks looked at before a forecast is cut off: a second or two of work.
const LOOKS_MAX: usize = 5_000_000;
/// Decisions before a forecast is cut off, most of which say nothing new.
const DECISIONS_MAX: usize = 20_000;

/// What a change would lead to.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// What happens, in order.
    pub waves: Vec<Wave>,
    /// Whether the change changes anything, be it only what is written of a service.
    pub changes: bool,
    /// Whether there is more than could be told.
    pub cut: bool,
    /// Nanoseconds from now to the last thing that happens, at the earliest.
    pub ends_after_ns: i64,
    /// Tasks that are left without a node by the change, and those of the services that it names.
    pub waiting: Vec<Arc<Task>>,
    /// If an update of the service that the change names does not last: how it is rolled back.
    pub rolled_back: Option<RolledBack>,
    /// What keeps nodes from taking the first task that waits, before a rollback or in the end.
    pub rejections: Vec<Rejection>,
    /// What would help.
    pub fixes: Vec<String>,
    /// Tasks that run on although the change wants them gone, and why; empty where the forecast is cut.
    pub staying: Vec<(Arc<Task>, String)>,
    /// Whether it does not end as things are: an update, or the drain of a node, waits for room.
    pub stuck: bool,
    /// How it ends.
    pub end: State,
}

/// How an update comes to its rollback.
#[derive(Clone, Debug)]
pub struct RolledBack {
    /// Due to what.
    pub reason: String,
    /// Tasks that had no node until then.
    pub waiting: Vec<Arc<Task>>,
}

/// What is decided at once. The next wave comes when its tasks run or have stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    /// Nanoseconds from now, at the earliest: starting and stopping is taken to need no time.
    pub after_ns: i64,
    /// What happens.
    pub steps: Vec<Step>,
}

/// What happens in one place of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The service.
    pub service: ServiceId,
    /// The slot; 0 for a task of a global service.
    pub slot: u32,
    /// What is done.
    pub action: Action,
    /// Where something stops.
    pub from: Option<NodeId>,
    /// Where something starts.
    pub to: Option<NodeId>,
    /// Why a task waits for a node.
    pub reason: Option<Arc<str>>,
}

/// What is done in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A task starts.
    Start,
    /// A task is made ready, while the one before it goes on.
    Prepare,
    /// A task stops and another one takes over on the same node.
    Replace,
    /// A task stops and another one takes over on another node.
    Move,
    /// A task stops.
    Stop,
    /// A task finds no node.
    Wait,
    /// A task that found no node is no longer wanted.
    Drop,
}

impl Action {
    /// `start`, `prepare`, `replace`, `move`, `stop`, `wait`, `drop`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Prepare => "prepare",
            Self::Replace => "replace",
            Self::Move => "move",
            Self::Stop => "stop",
            Self::Wait => "wait",
            Self::Drop => "drop",
        }
    }
}

/// Foretells what a change leads to. `now` is the leader's clock.
///
/// # Errors
/// The change itself would be refused.
pub fn forecast(state: &State, change: &Tx, now: Timestamp) -> Result<Forecast, Refusal> {
    let mut world = World::new(state, now);
    let events = world.commit_one(change)?;
    let changes = events.iter().any(|event| differs(state, &world.state, event));
    let named: BTreeSet<ServiceId> = change.ops.iter().filter_map(service_of).collect();
    let start = world.start;
    world.run();
    let mut waves = std::mem::take(&mut world.waves);
    leave_out_the_rest(state, &events, now, &named, &mut waves);
    leave_out_preparations(&mut waves);
    let waiting = waiting(state, &world, &named);
    let updates = named.iter().filter_map(|service| world.update_at.get(service).copied());
    let last_wave_ns = waves.last().map_or(0, |wave| wave.after_ns);
    let ends_after_ns = updates.map(|at| at.since_ns(start)).fold(last_wave_ns, i64::max);
    let changes = changes || !waves.is_empty();
    // A node that is drained already is none the emptier for it.
    let looks_on = (changes || planned(change).drained.is_some()) && !world.cut;
    let staying = if looks_on { staying(&world.state, change, &named, world.now) } else { Vec::new() };
    let rollback = named.iter().find_map(|service| world.rollbacks.remove(service));
    let (rejections, fixes) = help(&world.state, rollback.as_ref(), &waiting, &staying, planned(change), start);
    Ok(Forecast {
        changes,
        waves,
        cut: world.cut,
        ends_after_ns,
        stuck: looks_on && is_stuck(&world.state, &named, &staying),
        waiting,
        rolled_back: rollback.map(|(_, how)| how),
        rejections,
        fixes,
        staying: staying.into_iter().flat_map(|staying| staying.tasks).map(|stay| (stay.task, stay.reason)).collect(),
        end: world.state,
    })
}

/// What keeps nodes from taking the first task that waits, and what would help it and what stays for a limit.
fn help(
    end: &State,
    rollback: Option<&(State, RolledBack)>,
    waiting: &[Arc<Task>],
    staying: &[Staying],
    planned: Planned,
    now: Timestamp,
) -> (Vec<Rejection>, Vec<String>) {
    let until_then = rollback.and_then(|(before, how)| Some((before, how.waiting.first()?)));
    let first = until_then.or_else(|| Some((end, waiting.first()?)));
    let (rejections, mut fixes) =
        first.map(|(state, task)| why_without_node(state, task, now, planned)).unwrap_or_default();
    if first.is_none() {
        // What waited before holds up what is to go.
        let others = staying.iter().filter_map(|staying| staying.waiting.as_ref());
        fixes.extend(others.take(1).flat_map(|task| why_without_node(end, task, now, planned).1));
    }
    fixes.extend(staying.iter().filter_map(|staying| staying.fix.clone()));
    (rejections, fixes)
}

/// Takes out what happens to other services anyway: an update that is under way goes on with the change or without.
fn leave_out_the_rest(
    state: &State,
    events: &[Event],
    now: Timestamp,
    named: &BTreeSet<ServiceId>,
    waves: &mut Vec<Wave>,
) {
    if waves.iter().flat_map(|wave| &wave.steps).all(|step| named.contains(&step.service)) {
        return;
    }
    let mut without = World::new(state, now);
    events.iter().for_each(|event| without.dirty.mark(event));
    without.run();
    let of_services = |waves: &[Wave]| {
        let mut steps: BTreeMap<ServiceId, Vec<Step>> = BTreeMap::new();
        for step in waves.iter().flat_map(|wave| &wave.steps) {
            steps.entry(step.service).or_default().push(step.clone());
        }
        steps
    };
    let anyway = of_services(&without.waves);
    let with = of_services(waves);
    let same = |service: &ServiceId| !named.contains(service) && anyway.get(service) == with.get(service);
    for wave in waves.iter_mut() {
        wave.steps.retain(|step| !same(&step.service));
    }
    waves.retain(|wave| !wave.steps.is_empty());
}

/// Takes out what is prepared if it then takes over: that goes without saying. What is left never does.
fn leave_out_preparations(waves: &mut Vec<Wave>) {
    let mut taken_over: BTreeSet<(ServiceId, u32, Option<NodeId>)> = BTreeSet::new();
    for wave in waves.iter_mut().rev() {
        wave.steps.retain(|step| {
            let place = (step.service, step.slot, step.to);
            match step.action {
                Action::Prepare => !taken_over.contains(&place),
                Action::Replace | Action::Move => {
                    taken_over.insert(place);
                    true
                }
                Action::Start | Action::Stop | Action::Wait | Action::Drop => true,
            }
        });
    }
    waves.retain(|wave| !wave.steps.is_empty());
}

/// Whether an object is not what it was, as far as its user wrote it.
fn differs(before: &State, after: &State, event: &Event) -> bool {
    match *event {
        Event::Service(id) => {
            // The same spec, written in another way, makes no revision.
            let written = |state: &State| state.service(id).map(|service| service.revision);
            written(before) != written(after)
        }
        Event::Node(id) => {
            let written = |state: &State| state.node(id).map(|node| node.spec.clone());
            written(before) != written(after)
        }
        Event::Cluster | Event::Task { .. } | Event::Room(_) | Event::Object(_) | Event::Attachment { .. } => false,
    }
}

fn service_of(op: &Op) -> Option<ServiceId> {
    match op {
        Op::CreateService { service, .. } | Op::UpdateService { service, .. } | Op::RollBack { service, .. } => {
            Some(*service)
        }
        _ => None,
    }
}

/// What of a change is no ground for advice.
fn planned(change: &Tx) -> Planned {
    let service = change.ops.iter().any(|op| matches!(op, Op::CreateService { .. }));
    Planned { service, drained: change.ops.iter().find_map(drained) }
}

/// The node that a change drains.
fn drained(op: &Op) -> Option<NodeId> {
    match op {
        Op::UpdateNode { node, spec, .. } if spec.availability == Availability::Drain => Some(*node),
        _ => None,
    }
}

fn waiting(before: &State, world: &World, named: &BTreeSet<ServiceId>) -> Vec<Arc<Task>> {
    let waited = |task: &Arc<Task>| {
        before.tasks_of_slot(task.service, task.slot).any(|t| {
            t.status.state == TaskState::Pending && t.desired.is_live() && (t.slot != 0 || t.node == task.node)
        })
    };
    let of_service = |service: &ServiceId| world.state.pending_of_service(*service);
    let tasks = world.watched.iter().flat_map(of_service);
    tasks.filter(|task| named.contains(&task.service) || !waited(task)).cloned().collect()
}

/// What runs on although it is to go: on the nodes that the change drains, and of the services that it names.
fn staying(end: &State, change: &Tx, named: &BTreeSet<ServiceId>, now: Timestamp) -> Vec<Staying> {
    let nodes: BTreeSet<NodeId> = change.ops.iter().filter_map(drained).collect();
    let there = nodes.iter().flat_map(|node| end.tasks_of_node(*node)).map(|task| task.service);
    let services: BTreeSet<ServiceId> = there.chain(named.iter().copied()).collect();
    let concerns =
        |stay: &Stay| named.contains(&stay.task.service) || stay.task.node.is_some_and(|node| nodes.contains(&node));
    let staying = services.iter().filter_map(|id| end.service(*id)).map(|service| {
        let mut staying = why_staying(end, service, now);
        staying.tasks.retain(concerns);
        staying
    });
    staying.filter(|staying| !staying.tasks.is_empty()).collect()
}

/// Whether there is more to come that does not come by itself. What an update leaves on purpose does not keep it from
/// its end.
fn is_stuck(end: &State, named: &BTreeSet<ServiceId>, staying: &[Staying]) -> bool {
    let updates =
        |id: &ServiceId| end.service(*id).and_then(|s| s.update.as_ref()).is_some_and(|u| u.state.is_active());
    let waits = |id: &ServiceId| end.pending_of_service(*id).next().is_some();
    if named.is_empty() { !staying.is_empty() } else { named.iter().any(|id| updates(id) || waits(id)) }
}

/// A cluster of which all nodes that answer do as they are told at once.
struct World {
    state: State,
    now: Timestamp,
    start: Timestamp,
    dirty: Dirty,
    deadlines: BTreeMap<ServiceId, Timestamp>,
    /// Services that were looked at; the tasks of others do not matter.
    watched: BTreeSet<ServiceId>,
    waves: Vec<Wave>,
    cut: bool,
    /// When the state of a service's update changed last.
    update_at: BTreeMap<ServiceId, Timestamp>,
    /// Updates that were rolled back, and how things were just before.
    rollbacks: BTreeMap<ServiceId, (State, RolledBack)>,
    decisions: u64,
    looks: usize,
}

impl World {
    fn new(state: &State, now: Timestamp) -> Self {
        let now = now.max(state.time());
        Self {
            state: state.clone(),
            now,
            start: now,
            dirty: Dirty::default(),
            deadlines: BTreeMap::new(),
            watched: BTreeSet::new(),
            waves: Vec::new(),
            cut: false,
            update_at: BTreeMap::new(),
            rollbacks: BTreeMap::new(),
            decisions: 0,
            looks: 0,
        }
    }

    fn commit(&mut self, txs: Vec<Tx>) -> (Vec<Outcome>, Vec<Event>) {
        let entry = Entry { v: ENTRY_VERSION, at: self.now, txs };
        let index = self.state.revision() + 1;
        let (outcomes, events) = apply(&mut self.state, index, &entry);
        for event in &events {
            self.dirty.mark(event);
            if let Event::Service(service) = event {
                self.watched.insert(*service);
            }
        }
        (outcomes, events)
    }

    fn commit_one(&mut self, tx: &Tx) -> Result<Vec<Event>, Refusal> {
        let (outcomes, events) = self.commit(vec![tx.clone()]);
        outcomes.into_iter().collect::<Result<(), Refusal>>()?;
        Ok(events)
    }

    /// Goes on until nothing happens any more.
    fn run(&mut self) {
        while !self.cut {
            let planned = self.decide();
            let reported = self.obey();
            if planned || reported {
                continue;
            }
            match self.deadlines.values().min() {
                Some(next) => self.now = self.now.max(*next),
                None => return,
            }
        }
    }

    /// Decides what is due, and applies it. Returns whether anything came of it.
    fn decide(&mut self) -> bool {
        let due = self.deadlines.iter().filter(|(_, at)| **at <= self.now).map(|(service, _)| *service);
        self.dirty.services.extend(due);
        if self.dirty.is_empty() {
            return false;
        }
        let before = self.state.clone();
        let mut events = Vec::new();
        let mut left = std::mem::take(&mut self.dirty);
        // All pieces are one wave.
        while !left.is_empty() {
            self.decisions += 1;
            let plan = decide(&self.state, &left, &Context::at(self.now, self.decisions));
            plan.renew(&mut self.deadlines);
            self.watched.extend(plan.services);
            left = plan.unfinished;
            if !plan.txs.is_empty() {
                self.note_rollbacks(&plan.txs);
                events.extend(self.commit(plan.txs).1);
            }
        }
        self.cut |= self.decisions >= DECISIONS_MAX as u64;
        if events.is_empty() {
            return false;
        }
        let update = |state: &State, id| state.service(id).and_then(|s| s.update.as_ref()).map(|update| update.state);
        for event in &events {
            if let Event::Service(id) = *event
                && update(&before, id) != update(&self.state, id)
            {
                self.update_at.insert(id, self.now);
            }
        }
        let steps = steps::between(&before, &self.state, &events);
        if !steps.is_empty() {
            let tells = |wave: &&Wave| wave.steps.iter().any(|step| step.action != Action::Prepare);
            if self.waves.iter().filter(tells).count() >= WAVES_MAX {
                self.cut = true;
                return false;
            }
            self.waves.push(Wave { after_ns: self.now.since_ns(self.start).max(0), steps });
        }
        true
    }

    /// Notes how things are before updates are rolled back.
    fn note_rollbacks(&mut self, txs: &[Tx]) {
        for op in txs.iter().flat_map(|tx| &tx.ops) {
            if let Op::RollBack { service, message, .. } = op {
                let waiting = self.state.pending_of_service(*service).cloned().collect();
                let reason = why_rolled_back(&self.state, *service, message);
                self.rollbacks.insert(*service, (self.state.clone(), RolledBack { reason, waiting }));
            }
        }
    }

    /// What agents report: each task is what is wanted of it. Returns whether there was anything to report.
    fn obey(&mut self) -> bool {
        let mut reports: BTreeMap<NodeId, Vec<(TaskId, TaskStatus)>> = BTreeMap::new();
        for task in self.watched.iter().flat_map(|service| self.state.tasks_of_service(*service)) {
            self.looks += 1;
            let Some(node) = task.node.and_then(|id| self.state.node(id)) else { continue };
            let answers = node.status.state == NodeState::Ready && node.status.engine_reachable;
            let next = match task.desired {
                _ if !answers || !task.holds_resources() => continue,
                DesiredState::Ready => TaskState::Ready,
                DesiredState::Running => TaskState::Running,
                DesiredState::Complete => TaskState::Complete,
                DesiredState::Shutdown | DesiredState::Remove => TaskState::Shutdown,
            };
            if next > task.status.state {
                reports.entry(node.id).or_default().push((task.id, TaskStatus::new(next, self.now)));
            }
        }
        self.cut |= self.looks >= LOOKS_MAX;
        let any = !reports.is_empty();
        if any {
            let report = |(node, reports)| Tx::new(vec![Op::ReportTasks { node, reports }]);
            self.commit(reports.into_iter().map(report).collect());
        }
        any
    }
}
