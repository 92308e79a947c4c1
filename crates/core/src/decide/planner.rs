//! A plan in the making.

use std::{collections::BTreeSet, rc::Rc, sync::Arc};

use swarm_model::{Id, NetworkAddr, NodeId, Service, ServiceId, TaskId, Timestamp};

use super::{
    Context, Plan, TASKS_BATCH_MAX,
    part::Part,
    schedule::Fleet,
    slots::{Slots, Stranded},
};
use crate::{
    Event, Guard, Op, Outcome, Place, State, Tx,
    addresses::Choice,
    apply::{apply_tx, charge},
};

/// To look at so many tasks takes as long as to change one.
const LOOKS_PER_CHANGE: usize = 16;

/// A plan in the making, on a clone of the state.
pub(super) struct Planner {
    /// The state with the plan so far applied.
    pub(super) state: State,
    pub(super) now: Timestamp,
    pub(super) led_since: Timestamp,
    pub(super) plan: Plan,
    random: u64,
    /// The nodes that this leader has not heard from.
    pub(super) unheard: Arc<BTreeSet<NodeId>>,
    /// The nodes in the scheduler's order, once it was asked for; follows `state`.
    pub(super) fleet: Option<Fleet>,
    /// What is on nodes that take no tasks, once that was asked for; nodes do not change while a decision is made.
    stranded: Option<Stranded>,
    /// What there is to look at of the service that was asked for last, if nothing has changed since.
    slots: Option<(ServiceId, Rc<Slots>)>,
    /// The places that the present look is confined to; none for a look at all places.
    pub(super) part: Option<Part>,
    /// What the last transaction touched.
    events: Vec<Event>,
    /// Nodes that have more room since services were looked at for that.
    pub(super) room: BTreeSet<NodeId>,
    /// When the newest task was made.
    task_at: Timestamp,
    /// Changes of tasks that the piece has, and may have.
    changes: usize,
    changes_max: usize,
    /// Tasks that were looked at.
    looks: usize,
    /// Whether something of the key that is looked at is left for the next piece.
    pub(super) is_cut: bool,
    /// The addresses that the plan gives.
    addresses: Choice,
}

impl Planner {
    pub(super) fn new(state: &State, context: &Context) -> Self {
        let mut state = state.clone();
        // Later than all that was made before: ids sort by age, also when the clock stands still.
        state.time = state.time.plus_ns(1).max(context.now);
        let newest = state.newest_task().map_or(Timestamp::ZERO, Id::made_at);
        Self {
            now: state.time,
            task_at: newest.max(state.time),
            led_since: context.led_since,
            state,
            plan: Plan::default(),
            random: context.seed,
            unheard: context.unheard.clone(),
            fleet: None,
            stranded: None,
            slots: None,
            part: None,
            events: Vec::new(),
            room: BTreeSet::new(),
            changes: 0,
            changes_max: context.changes_max,
            looks: 0,
            is_cut: false,
            addresses: Choice::default(),
        }
    }

    /// How many more changes the piece takes.
    pub(super) fn left(&self) -> usize {
        self.changes_max.saturating_sub(self.changes)
    }

    /// How many places of a service are looked at in one piece, where the others can be left out.
    pub(super) fn places_max(&self) -> usize {
        self.changes_max
    }

    /// Whether the piece takes no more changes. What a reconciler makes from then on is left for the next piece, which
    /// decides anew: so a piece of a plan is always the beginning of it.
    pub(super) fn is_full(&self) -> bool {
        self.left() == 0
    }

    /// Whether no other key is to be looked at in this piece.
    pub(super) fn is_over(&self) -> bool {
        self.changes + self.looks / LOOKS_PER_CHANGE >= self.changes_max
    }

    /// Counts that so many tasks are looked at.
    pub(super) fn look(&mut self, tasks: usize) {
        self.looks += tasks;
    }

    /// Says that something of the key is left for the next piece; this one is full.
    pub(super) fn cut(&mut self) {
        debug_assert!(self.is_full(), "what is left for the next piece would have had a place in this one");
        self.is_cut = true;
    }

    /// As many of these as the piece takes.
    pub(super) fn fitting<'t, T>(&mut self, items: &'t [T]) -> &'t [T] {
        let fitting = &items[..items.len().min(self.left())];
        self.is_cut |= fitting.len() < items.len();
        fitting
    }

    /// Begins the look at a service: at these places of it, or at all.
    pub(super) fn begin(&mut self, service: ServiceId, places: Option<BTreeSet<u32>>) {
        if places.is_none() {
            self.plan.parts.remove(&service);
        } else if !self.plan.services.contains(&service) {
            self.plan.parts.insert(service);
        }
        self.plan.services.insert(service);
        self.look(1);
        let state = &self.state;
        let stranded = self.stranded.get_or_insert_with(|| Stranded::new(state));
        self.part = Part::new(state, stranded, service, places, self.changes_max);
        self.slots = None;
    }

    /// Ends the look at a service. What of it is left is noted for the next piece.
    pub(super) fn end(&mut self, service: ServiceId) {
        let is_cut = std::mem::take(&mut self.is_cut);
        let unfinished = &mut self.plan.unfinished;
        match self.part.take() {
            Some(part) if !part.concerns_all => {
                unfinished.add_places(service, part.rest);
                if is_cut {
                    unfinished.add_places(service, part.numbers);
                }
            }
            None if !is_cut => {}
            _ => drop(unfinished.services.insert(service)),
        }
    }

    /// Makes of the look at a part of a service one at all of it.
    pub(super) fn widen(&mut self, service: ServiceId) {
        self.part = None;
        self.slots = None;
        self.plan.parts.remove(&service);
    }

    /// What there is to look at of a service.
    pub(super) fn slots(&mut self, service: &Service) -> Rc<Slots> {
        if let Some((_, slots)) = self.slots.as_ref().filter(|(id, _)| *id == service.id) {
            return slots.clone();
        }
        let state = &self.state;
        let stranded = self.stranded.get_or_insert_with(|| Stranded::new(state));
        let slots = Rc::new(match &self.part {
            Some(part) => Slots::at(state, service.id, &part.numbers),
            None => Slots::new(state, service, stranded, self.changes_max),
        });
        self.looks += slots.shown.len();
        self.slots = Some((service.id, slots.clone()));
        slots
    }

    /// The nodes in the scheduler's order, to be given back.
    pub(super) fn take_fleet(&mut self) -> Fleet {
        self.fleet.take().unwrap_or_else(|| Fleet::new(&self.state, &self.unheard))
    }

    /// The addresses of a task that goes to this place. Where a network has none left, the task waits; `wanted` is the service,
    /// or the service as it was.
    pub(super) fn addressed(&mut self, wanted: &Service, place: Place, slot: u32) -> (Place, Arc<[NetworkAddr]>) {
        let Place::On(node) = place else { return (place, Arc::default()) };
        match self.addresses.next(&self.state, wanted.id, wanted.spec.network_ids(), self.now) {
            Ok(addrs) => (place, addrs),
            Err(full) => {
                full.until.into_iter().for_each(|until| self.wake(wanted.id, until));
                // The place of a global service's task is its node.
                let place = if slot == 0 { Place::PendingOn(node, full.reason) } else { Place::Pending(full.reason) };
                (place, Arc::default())
            }
        }
    }

    /// Adds a transaction.
    pub(super) fn push(&mut self, tx: Tx) {
        self.push_as(tx, apply_tx);
    }

    /// Adds a transaction that makes the first tasks of a service, or more of them. Nothing that comes later in this
    /// decision asks for them, but for what they hold of their nodes, so they are not made here.
    pub(super) fn push_more(&mut self, service: &Service, tx: Tx) {
        let tx = tx.guard(Guard::wanted(service));
        self.push_as(tx, |state, tx, events| {
            tx.ops.iter().try_for_each(|op| match op {
                Op::CreateTasks { tasks, .. } => charge(state, service, tasks, events),
                _ => Ok(()),
            })
        });
    }

    fn push_as(&mut self, tx: Tx, apply: impl FnOnce(&mut State, &Tx, &mut Vec<Event>) -> Outcome) {
        if self.is_full() {
            self.is_cut = true;
            return;
        }
        self.changes += changes_of(&tx);
        self.events.clear();
        self.slots = None;
        match apply(&mut self.state, &tx, &mut self.events) {
            Ok(()) => {
                self.plan.txs.push(tx);
                self.room
                    .extend(self.events.iter().filter_map(|e| if let Event::Room(id) = e { Some(*id) } else { None }));
                if let Some(fleet) = &mut self.fleet {
                    fleet.touch_all(&self.state, &self.events);
                }
            }
            Err(refusal) => {
                debug_assert!(false, "a reconciler made a transaction that does not apply: {refusal}: {tx:?}");
                self.plan.refused.push((tx, refusal));
            }
        }
    }

    /// Adds a transaction that rests on what the service wants of its tasks. If the user, or an earlier transaction that
    /// fell, makes it want something else, it falls as well.
    pub(super) fn push_for(&mut self, service: &Service, tx: Tx) {
        self.push(tx.guard(Guard::wanted(service)));
    }

    /// The same change of many tasks, in transactions that fit an entry. `service` is given if the change rests on what
    /// it wants.
    pub(super) fn push_each(
        &mut self,
        service: Option<&Service>,
        tasks: &[TaskId],
        change: impl Fn(Vec<TaskId>) -> Op,
    ) {
        for batch in self.fitting(tasks).chunks(TASKS_BATCH_MAX) {
            let tx = Tx::new(vec![change(batch.to_vec())]);
            match service {
                Some(service) => self.push_for(service, tx),
                None => self.push(tx),
            }
        }
    }

    /// Looks at the service again at that time, or earlier.
    pub(super) fn wake(&mut self, service: ServiceId, at: Timestamp) {
        let deadline = self.plan.deadlines.entry(service).or_insert(at);
        *deadline = at.min(*deadline);
    }

    /// An id that sorts behind all others: where ids are in order, tables grow at their end.
    pub(super) fn task_id(&mut self) -> TaskId {
        let random = self.random();
        self.task_at = self.task_at.plus_ns(1);
        TaskId::make(self.task_at, u128::from(random))
    }

    /// A number that follows from the seed.
    pub(super) fn random(&mut self) -> u64 {
        // SplitMix64: one step of a counter, then a mix.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// How many tasks and other objects a transaction changes.
fn changes_of(tx: &Tx) -> usize {
    let of = |op: &Op| match op {
        Op::CreateTasks { tasks, .. } => tasks.len(),
        Op::SetDesired { tasks, .. } | Op::EndTasks { tasks, .. } | Op::DeleteTasks { tasks } => tasks.len(),
        _ => 1,
    };
    tx.ops.iter().map(of).sum::<usize>().max(1)
}
