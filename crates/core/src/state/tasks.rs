//! Tasks, their spec versions, and the indexes that follow from them and from the nodes.

use std::{collections::BTreeSet, sync::Arc};

use swarm_model::{DesiredState, NodeId, NodeState, ServiceId, ServiceSpec, Task, TaskId, TaskState};

use super::{NodeLoad, SLOTS_OF_ROW, Seat, State, TaskKey, is_active, table::Table};

impl State {
    /// Whether a task runs, healthy as far as it has a health check, and its node says so.
    pub fn serves(&self, task: &Task) -> bool {
        task.status.state == TaskState::Running && self.is_on_ready_node(task)
    }

    /// Whether a task has a node, and that can tell how the task is.
    pub(crate) fn is_on_ready_node(&self, task: &Task) -> bool {
        task.node.and_then(|id| self.node(id)).is_some_and(|node| node.status.state == NodeState::Ready)
    }

    /// The places of a service (slots; of a global service nodes) where one of these tasks of it serves and is meant to.
    pub(crate) fn places_served<'a>(
        &self,
        tasks: impl Iterator<Item = &'a Arc<Task>>,
    ) -> BTreeSet<(u32, Option<NodeId>)> {
        let serving = tasks.filter(|task| task.desired.is_live() && self.serves(task));
        serving.map(|task| (task.slot, task.node.filter(|_| task.slot == 0))).collect()
    }

    /// Says that so many more tasks refer to a spec version: those that [`State::insert_task`] adds.
    pub(crate) fn refer_to_spec(&mut self, service: ServiceId, version: u64, tasks: usize) {
        if tasks > 0 {
            self.spec_refs.change_or_default((service, version), |refs| *refs += tasks);
        }
    }

    /// Adds a task with the spec that it runs, whose version must be there and is referred to already.
    pub(crate) fn insert_task(&mut self, task: Arc<Task>, spec: &ServiceSpec) {
        let (service, slot, runs) = (task.service, task.slot, is_running(&task));
        self.insert_new_task(task, spec);
        self.index_slot(service, slot, runs);
    }

    /// The same for a task that does not run, and whose slot [`State::unsettle`] is told of.
    pub(crate) fn insert_new_task(&mut self, task: Arc<Task>, spec: &ServiceSpec) {
        self.task_keys.insert(task.id, (task.service, task.slot));
        self.reindex(None, Some(&task), spec);
        assert!(self.tasks.insert(key_of(&task), Seat::new(task)).is_none(), "a task is inserted once");
    }

    /// Notes that these slots have tasks that do not run. Slots that follow on each other are noted at once.
    pub(crate) fn unsettle(&mut self, service: ServiceId, slots: impl Iterator<Item = u32>) {
        let mut slots = slots.map(|slot| (slot / SLOTS_OF_ROW, 1 << (slot % SLOTS_OF_ROW))).peekable();
        while let Some((row, mut bits)) = slots.next() {
            while let Some((_, bit)) = slots.next_if(|(next, _)| *next == row) {
                bits |= bit;
            }
            self.unsettled.change_or_default((service, row), |known| *known |= bits);
        }
    }

    /// A task as it is stored, before this change of it.
    pub(crate) fn stored(&self, task: &Task) -> &Arc<Task> {
        &self.tasks.get(&key_of(task)).expect("only tasks that exist are changed").task
    }

    /// Changes a task. Service, slot and spec version must stay.
    pub(crate) fn replace_task(&mut self, task: Task) {
        let old = self.stored(&task).clone();
        // Most changes are reports that move no index.
        let place = |t: &Task| (t.node, is_active(t), t.holds_resources(), is_pending(t), has_failed(t));
        if place(&old) != place(&task) {
            let spec = self.spec_of(&task);
            self.reindex(Some(&old), Some(&task), &spec.spec);
        }
        let (service, slot, runs) = (task.service, task.slot, is_running(&task));
        self.tasks.insert(key_of(&task), Seat::new(Arc::new(task)));
        if is_running(&old) != runs {
            self.index_slot(service, slot, runs);
        }
    }

    /// Deletes a task, and its spec version with the last task of it, unless its service still has a use for it.
    pub(crate) fn delete_task(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let (service, slot) = self.task_keys.remove(&id)?;
        let Seat { task, .. } = self.tasks.remove(&(service, slot, id)).expect("a key is that of a task");
        let spec = self.spec_of(&task);
        self.reindex(Some(&task), None, &spec.spec);
        self.index_slot(service, slot, true);
        self.let_go_of_spec(task.service, task.spec_version, 1);
        Some(task)
    }

    /// Says that so many fewer tasks refer to a spec version; the last one takes it along.
    pub(crate) fn let_go_of_spec(&mut self, service: ServiceId, version: u64, tasks: usize) {
        let key = (service, version);
        let refs = self.spec_refs.get_mut(&key).expect("a task's spec version is counted");
        *refs -= tasks;
        if *refs == 0 {
            self.spec_refs.remove(&key);
            self.forget_spec(service, version);
        }
    }

    /// Notes what a task that is not there yet will hold of its node.
    pub(crate) fn charge(&mut self, task: &Task, spec: &ServiceSpec) {
        if let Some(node) = task.node.filter(|_| counts(task)) {
            self.loads.change(node, |load| load.add(task, spec));
        }
    }

    /// Lets the indexes follow one task, as it was and as it is. What stays is left alone.
    fn reindex(&mut self, old: Option<&Task>, new: Option<&Task>, spec: &ServiceSpec) {
        if let Some(task) = old
            && let Some(node) = task.node.filter(|_| counts(task))
        {
            self.loads.change(node, |load| load.remove(task, spec));
        }
        if let Some(task) = new {
            self.charge(task, spec);
        }
        self.follow_task_addrs(old, new);
        let of_node = |task: Option<&Task>| task.and_then(|task| Some((task.node?, task.service, task.id)));
        let (was, is) = (of_node(old), of_node(new));
        if was != is {
            was.into_iter().for_each(|(node, service, id)| self.by_node.remove(node, service, id));
            is.into_iter().for_each(|(node, service, id)| self.by_node.insert(node, service, id));
        }
        follow(&mut self.pending, old, new, is_pending);
        follow(&mut self.failed, old, new, has_failed);
    }

    /// Notes whether a slot is settled, after a change of a task in it. That the task runs may have settled it; so may
    /// that it is gone.
    fn index_slot(&mut self, service: ServiceId, slot: u32, may_be_settled: bool) {
        let is_settled = may_be_settled && {
            let mut tasks = self.tasks_of_slot(service, slot);
            tasks.next().is_none_or(|task| is_running(task)) && tasks.next().is_none()
        };
        let (key, bit) = ((service, slot / SLOTS_OF_ROW), 1 << (slot % SLOTS_OF_ROW));
        let known = self.unsettled.get(&key).copied().unwrap_or(0);
        let bits = if is_settled { known & !bit } else { known | bit };
        if bits == 0 {
            self.unsettled.remove(&key);
        } else if bits != known {
            self.unsettled.insert(key, bits);
        }
    }

    /// Lets the row of a node follow what the node says; to be called after each change of a node.
    pub(crate) fn index_node(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else { return self.loads.remove(id) };
        if self.loads.get(id).is_none() {
            // A node that was removed may come back long after, and find tasks that are told to end.
            let mut load = NodeLoad::default();
            for task in self.tasks_of_node(id) {
                load.add(task, &self.spec_of(task).spec);
            }
            self.loads.insert(id, load);
        }
        self.loads.change(id, |load| load.follow(node));
    }
}

/// Lets an index of the tasks that have a property follow one task.
fn follow(
    index: &mut Table<(ServiceId, TaskId), ()>,
    old: Option<&Task>,
    new: Option<&Task>,
    has_property: fn(&Task) -> bool,
) {
    let key_of = |task: Option<&Task>| task.filter(|task| has_property(task)).map(|task| (task.service, task.id));
    match (key_of(old), key_of(new)) {
        (Some(key), None) => drop(index.remove(&key)),
        (None, Some(key)) => drop(index.insert(key, ())),
        _ => {} // A task keeps its service and its id.
    }
}

fn key_of(task: &Task) -> TaskKey {
    (task.service, task.slot, task.id)
}

/// Whether it runs and is meant to.
fn is_running(task: &Task) -> bool {
    task.desired == DesiredState::Running && task.status.state == TaskState::Running
}

/// Whether it makes a difference to what its node has left.
fn counts(task: &Task) -> bool {
    is_active(task) || task.holds_resources()
}

fn is_pending(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.desired.is_live()
}

fn has_failed(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
}
