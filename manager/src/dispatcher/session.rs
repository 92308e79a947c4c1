//! What an agent is to be told: the difference between what it has and the state.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
};

use swarm_core::State;
use swarm_model::{
    DesiredState, NamedObject, NodeId, ObjectId, ObjectKey, ObjectKind, SpecVersion, Task, TaskId, TaskState,
};
use swarm_wire::{
    FRAME_BYTES_MAX,
    agent::{ASSIGNMENT_BATCH_MAX, AssignedTask, Changeset, Held, Item, ItemChange, ItemKey, Resume, digest},
};

use super::encoded::{Encoded, SpecKey};
use crate::feed::{AssignmentKey, Changes};

/// Specs and objects in one message: half a frame, so that the tasks beside them always fit.
const SHARED_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// The items that one agent has been told of in its session. Two facts of an assigned task change: its desired state, and
/// whether it has ended. A task that has ended needs its objects no more.
///
/// All items of a node are looked at only when its session begins, or fell behind. After that a change costs what it is.
#[derive(Clone, Debug)]
pub struct Session {
    node: NodeId,
    encoded: Arc<Encoded>,
    sent: BTreeMap<TaskId, Sent>,
    used: BTreeMap<SpecKey, Used>,
    /// The specs that the agent was told.
    specs: BTreeSet<SpecKey>,
    /// The networks of its attachments.
    attached: BTreeMap<TaskId, ObjectKey>,
    /// The objects that it is to have: how many spec versions with a task that has not ended, and attachments, need them,
    /// and whether it was told of them.
    objects: BTreeMap<ObjectKey, (usize, bool)>,
    /// The tasks whose stop the agent is not to be told of yet.
    held: BTreeSet<TaskId>,
}

/// Says of a task that is to stop whether its agent may be told.
pub type Gate<'a> = &'a mut dyn FnMut(TaskId) -> bool;

/// A task that the agent was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    spec: SpecKey,
    desired: DesiredState,
    has_ended: bool,
}

/// The tasks of a spec version, counted, and the objects that they need.
#[derive(Clone, Debug)]
struct Used {
    tasks: usize,
    /// The number of tasks that have not ended.
    alive: usize,
    needs: Arc<[ObjectKey]>,
}

/// The changes that a look at some tasks has found.
#[derive(Default)]
struct Found {
    tasks: VecDeque<(Option<Arc<SpecVersion>>, AssignedTask)>,
    gone: Vec<TaskId>,
    /// Objects that more or fewer spec versions need.
    touched: BTreeSet<ObjectKey>,
}

impl Session {
    /// A session of an agent that has been told nothing yet.
    pub fn new(node: NodeId, encoded: Arc<Encoded>) -> Self {
        Self {
            node,
            encoded,
            sent: BTreeMap::new(),
            used: BTreeMap::new(),
            specs: BTreeSet::new(),
            attached: BTreeMap::new(),
            objects: BTreeMap::new(),
            held: BTreeSet::new(),
        }
    }

    /// The first messages of a session; at least one. What the agent says it has is taken for granted when the digest
    /// proves it to be what the state has, or what the state had at that revision; else it gets the full set.
    pub fn open(&mut self, state: &State, resume: Option<Resume>, gate: Gate<'_>) -> Outbox {
        if let Some(resume) = resume.filter(|resume| resume.revision <= state.revision()) {
            // Second try: what was changed since then is new to the agent, as after a while without a leader.
            for revision in [state.revision(), resume.revision] {
                self.assume(state, revision);
                if self.is_proved_by(&resume) {
                    // A spec is sent again where its task may still need the registry credentials.
                    self.specs.clear();
                    let mut outbox = self.difference(state, &Changes::Everything, gate);
                    outbox.specs = self.credentials(state);
                    return outbox;
                }
            }
        }
        *self = Self::new(self.node, self.encoded.clone());
        Outbox { full: true, ..self.difference(state, &Changes::Everything, gate) }
    }

    /// Takes for granted that the agent has the tasks which have not changed since a revision, and what they need.
    fn assume(&mut self, state: &State, revision: u64) {
        *self = Self::new(self.node, self.encoded.clone());
        let mut found = Found::default();
        for task in assigned_tasks(state, self.node).filter(|task| task.version <= revision) {
            self.put(state, task, &mut found, &mut |_| true);
            found.tasks.clear();
        }
        self.put_attachments(state, &mut found);
        self.settle(state, &found.touched);
    }

    /// Whether what the agent says it has is what it was told here.
    fn is_proved_by(&self, resume: &Resume) -> bool {
        let tasks = self.sent.iter().map(|(task, sent)| Held::Task(*task, sent.desired));
        let Some(all) = resume.all else { return digest(tasks) == resume.digest };
        let specs = self.specs.iter().map(|(service, version)| Held::Spec(*service, *version));
        let objects = self.objects.iter().filter(|(_, (_, told))| *told).map(|(key, _)| Held::Object(*key));
        digest(tasks.chain(specs).chain(objects)) == all
    }

    /// What is new since the last messages, if anything is, found by a look at all that the node has.
    pub fn update(&mut self, state: &State, gate: Gate<'_>) -> Option<Outbox> {
        self.follow(state, &Changes::Everything, gate)
    }

    /// The same, where it is known what may be new.
    pub fn follow(&mut self, state: &State, changes: &Changes, gate: Gate<'_>) -> Option<Outbox> {
        Some(self.difference(state, changes, gate)).filter(|outbox| !outbox.is_empty())
    }

    /// The networks that the agent was told of.
    pub fn networks(&self) -> impl Iterator<Item = ObjectId> + '_ {
        let told = self.objects.iter().filter(|(key, (_, told))| *told && key.kind == ObjectKind::Network);
        told.map(|(key, _)| key.id)
    }

    /// The tasks whose stop the agent is not to be told of yet, as changes to look at again.
    pub fn held(&self) -> Changes {
        Changes::Keys(self.held.iter().copied().map(AssignmentKey::Task).collect())
    }

    fn difference(&mut self, state: &State, changes: &Changes, gate: Gate<'_>) -> Outbox {
        let mut found = Found::default();
        match changes {
            Changes::Everything => {
                let mut left: BTreeSet<TaskId> = self.sent.keys().copied().collect();
                for task in assigned_tasks(state, self.node) {
                    left.remove(&task.id);
                    self.put(state, task, &mut found, gate);
                }
                found.gone.extend(left);
                self.put_attachments(state, &mut found);
            }
            Changes::Keys(keys) => {
                for key in keys {
                    let id = match key {
                        AssignmentKey::Task(id) => id,
                        AssignmentKey::Attachment(id) => {
                            self.put_attachment(state, *id, &mut found);
                            continue;
                        }
                        // The records of networks are told apart.
                        AssignmentKey::Network(_) => continue,
                    };
                    match state.task(*id).filter(|task| task.node == Some(self.node) && is_assigned(task)) {
                        Some(task) => self.put(state, task, &mut found, gate),
                        None if self.sent.contains_key(id) => found.gone.push(*id),
                        None => {}
                    }
                }
            }
        }
        // After the new tasks: what the last task leaves to a new one is not sent again.
        for task in std::mem::take(&mut found.gone) {
            self.remove(task, &mut found);
        }
        let (objects, gone) = self.settle(state, &found.touched);
        let mut removed: Vec<_> = found.gone.into_iter().map(ItemKey::Task).collect();
        removed.extend(gone.into_iter().map(ItemKey::Object));
        Outbox {
            encoded: self.encoded.clone(),
            full: false,
            revision: state.revision(),
            objects: objects.into(),
            specs: VecDeque::new(),
            tasks: found.tasks,
            removed,
            done: false,
        }
    }

    /// Notes a task, and finds what the agent is to be told of it: the task, if what is wanted of it is new, with its
    /// spec, if the agent was not told that.
    fn put(&mut self, state: &State, task: &Task, found: &mut Found, gate: Gate<'_>) {
        let key = key(task);
        let told = self.sent.get(&task.id).map(|sent| sent.desired);
        let has_ended = task.status.state.is_terminal();
        let is_stop = !task.desired.is_live() && told.is_none_or(DesiredState::is_live);
        let desired = if is_stop && !has_ended && !gate(task.id) {
            self.held.insert(task.id);
            // An agent that was told to stop the task in an earlier session does not go back.
            told.unwrap_or(DesiredState::Running)
        } else {
            self.held.remove(&task.id);
            task.desired
        };
        let now = Sent { spec: key, desired, has_ended };
        let before = self.sent.insert(task.id, now);
        if before == Some(now) {
            return;
        }
        let used = self.used.entry(key).or_insert_with(|| Used { tasks: 0, alive: 0, needs: needs(state, task) });
        used.tasks += usize::from(before.is_none());
        let was_alive = before.is_some_and(|before| !before.has_ended);
        match (was_alive, !now.has_ended) {
            (false, true) => {
                used.alive += 1;
                if used.alive == 1 {
                    need(&mut self.objects, used, found);
                }
            }
            (true, false) => end_one(&mut self.objects, used, found),
            (false, false) | (true, true) => {}
        }
        if before.is_some_and(|before| before.desired == now.desired) {
            return;
        }
        let spec = state.spec(task.service, task.spec_version);
        let spec = spec.filter(|_| before.is_none() && self.specs.insert(key)).cloned();
        found.tasks.push_back((spec, assigned(task, desired, used.needs.clone())));
    }

    /// Notes all attachments of the node, and those that ended.
    fn put_attachments(&mut self, state: &State, found: &mut Found) {
        let mut ids: BTreeSet<TaskId> = self.attached.keys().copied().collect();
        ids.extend(state.attachments_of_node(self.node).map(|attachment| attachment.id));
        ids.into_iter().for_each(|id| self.put_attachment(state, id, found));
    }

    /// Notes an attachment, or its end. The node needs its network.
    fn put_attachment(&mut self, state: &State, id: TaskId, found: &mut Found) {
        let now = state.attachment(id).filter(|attachment| attachment.node == self.node);
        let now = now.map(|attachment| ObjectKey { kind: ObjectKind::Network, id: attachment.network });
        let before = match now {
            Some(key) => self.attached.insert(id, key),
            None => self.attached.remove(&id),
        };
        if before == now {
            return;
        }
        if let Some(key) = now {
            self.objects.entry(key).or_default().0 += 1;
        }
        if let Some((users, _)) = before.and_then(|key| self.objects.get_mut(&key)) {
            *users -= 1;
        }
        found.touched.extend(before.into_iter().chain(now));
    }

    fn remove(&mut self, task: TaskId, found: &mut Found) {
        self.held.remove(&task);
        let Some(sent) = self.sent.remove(&task) else { return };
        found.gone.push(task);
        let Some(used) = self.used.get_mut(&sent.spec) else { return };
        if !sent.has_ended {
            end_one(&mut self.objects, used, found);
        }
        used.tasks -= 1;
        if used.tasks == 0 {
            self.used.remove(&sent.spec);
            // An agent may drop a spec with its last task; it comes again with the next one.
            self.specs.remove(&sent.spec);
        }
    }

    /// The objects that the agent is to be told of now, and those that it is to have no more.
    fn settle(&mut self, state: &State, touched: &BTreeSet<ObjectKey>) -> (Vec<Arc<NamedObject>>, Vec<ObjectKey>) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for key in touched {
            let Some((users, told)) = self.objects.get_mut(key) else { continue };
            if *users == 0 {
                gone.extend(told.then_some(*key));
                self.objects.remove(key);
            } else if !*told {
                // The task of an object that was removed waits for it, and says so.
                put.extend(state.object(*key).cloned());
                *told = state.object(*key).is_some();
            }
        }
        (put, gone)
    }

    /// Specs of tasks that the agent has but may still have to pull the image of: it keeps no credentials on disk.
    fn credentials(&mut self, state: &State) -> VecDeque<Arc<SpecVersion>> {
        assigned_tasks(state, self.node)
            .filter(|task| task.is_live() && task.status.state < TaskState::Ready)
            .filter_map(|task| state.spec(task.service, task.spec_version))
            .filter(|spec| spec.registry_auth.is_some() && self.specs.insert((spec.service, spec.version)))
            .cloned()
            .collect()
    }
}

/// The first task of a spec version that has not ended needs its objects.
fn need(objects: &mut BTreeMap<ObjectKey, (usize, bool)>, used: &Used, found: &mut Found) {
    for key in used.needs.iter() {
        objects.entry(*key).or_default().0 += 1;
        found.touched.insert(*key);
    }
}

/// With the last task of a spec version that has not ended, its objects are needed no more.
fn end_one(objects: &mut BTreeMap<ObjectKey, (usize, bool)>, used: &mut Used, found: &mut Found) {
    used.alive -= 1;
    if used.alive == 0 {
        for key in used.needs.iter() {
            if let Some((users, _)) = objects.get_mut(key) {
                *users -= 1;
            }
            found.touched.insert(*key);
        }
    }
}

/// Messages for an agent, made one by one as they are sent.
#[derive(Clone, Debug)]
pub struct Outbox {
    encoded: Arc<Encoded>,
    full: bool,
    revision: u64,
    objects: VecDeque<Arc<NamedObject>>,
    specs: VecDeque<Arc<SpecVersion>>,
    tasks: VecDeque<(Option<Arc<SpecVersion>>, AssignedTask)>,
    removed: Vec<ItemKey>,
    done: bool,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.tasks.is_empty() && self.removed.is_empty()
    }

    /// Fills one message. Returns whether it ends the set or difference.
    fn fill(&mut self, message: &mut Room) -> io::Result<bool> {
        while let Some(object) = self.objects.front() {
            if !message.put(Item::Object(self.encoded.object(object)?)) {
                return Ok(false);
            }
            self.objects.pop_front();
        }
        while let Some(spec) = self.specs.front() {
            if !message.put(Item::Spec(self.encoded.spec(spec)?)) {
                return Ok(false);
            }
            self.specs.pop_front();
        }
        while message.items < ASSIGNMENT_BATCH_MAX
            && let Some((spec, _)) = self.tasks.front()
        {
            if let Some(spec) = spec
                && !message.put(Item::Spec(self.encoded.spec(spec)?))
            {
                return Ok(false);
            }
            if let Some((_, task)) = self.tasks.pop_front() {
                message.items += 1;
                message.changes.push(ItemChange::Put(Item::Task(task)));
            }
        }
        let room = ASSIGNMENT_BATCH_MAX - message.items;
        message.changes.extend(self.removed.drain(..room.min(self.removed.len())).map(ItemChange::Remove));
        Ok(self.tasks.is_empty() && self.removed.is_empty())
    }
}

/// A message that is being filled.
#[derive(Default)]
struct Room {
    changes: Vec<ItemChange>,
    /// Tasks in it.
    items: usize,
    shared_bytes: usize,
}

impl Room {
    /// Adds a spec or an object, if it fits. One always does, however large: its limit is far below a frame.
    fn put(&mut self, item: Item) -> bool {
        let size = match &item {
            Item::Spec(spec) => spec.size(),
            Item::Object(object) => object.size(),
            Item::Task(_) => 0,
        };
        let fits = self.shared_bytes == 0 || self.shared_bytes + size <= SHARED_BYTES_MAX;
        if fits {
            self.shared_bytes += size;
            self.changes.push(ItemChange::Put(item));
        }
        fits
    }
}

impl Iterator for Outbox {
    type Item = io::Result<Changeset>;

    fn next(&mut self) -> Option<io::Result<Changeset>> {
        if self.done {
            return None;
        }
        let mut message = Room::default();
        let filled = self.fill(&mut message);
        self.done = !matches!(filled, Ok(false));
        Some(filled.map(|complete| Changeset {
            full: std::mem::take(&mut self.full),
            complete,
            revision: self.revision,
            changes: message.changes,
        }))
    }
}

/// The tasks that a node's agent is to know. One of a global service names its node from the start, but may still
/// have to wait for room there: until then it is none of the agent's business.
fn assigned_tasks(state: &State, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
    state.tasks_of_node(node).filter(|task| is_assigned(task))
}

fn is_assigned(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned
}

fn key(task: &Task) -> SpecKey {
    (task.service, task.spec_version)
}

/// The objects that a task's spec names.
fn needs(state: &State, task: &Task) -> Arc<[ObjectKey]> {
    let spec = state.spec(task.service, task.spec_version);
    let mut needs = Vec::new();
    for key in spec.iter().flat_map(|spec| spec.spec.objects()) {
        if !needs.contains(&key) {
            needs.push(key);
        }
    }
    needs.into()
}

fn assigned(task: &Task, desired: DesiredState, needs: Arc<[ObjectKey]>) -> AssignedTask {
    AssignedTask {
        id: task.id,
        service: task.service,
        spec_version: task.spec_version,
        slot: task.number(),
        desired,
        generic_resources: task.generic_resources.clone(),
        needs,
        addrs: task.addrs.clone(),
    }
}
