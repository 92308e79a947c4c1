//! Assignments: what the managers want this node to run (swarm-behaviour §7.2).

use std::{collections::BTreeSet, io, sync::Arc};

use swarm_model::{ObjectKey, ServiceId, TaskId};
use swarm_wire::agent::{AssignedObject, AssignedSpec, AssignedTask, Changeset, Item, ItemChange, ItemKey};

use super::{Change, Now, Output, SpecEntry, Worker, tasks};
use crate::{executor::Observed, step::LocalTask};

/// The tasks and objects that a full set has named so far, while it is still arriving.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) tasks: BTreeSet<TaskId>,
    objects: BTreeSet<ObjectKey>,
}

impl Worker {
    /// Takes changes of the items that the node is to have.
    ///
    /// # Errors
    /// A change cannot be read. The changes before it are taken, and the set or difference stays open.
    pub(super) fn assign(&mut self, now: Now, changeset: Changeset, out: &mut Vec<Output>) -> io::Result<()> {
        let mut touched = BTreeSet::new();
        if changeset.full {
            self.incoming = Some(Incoming::default());
        }
        for change in changeset.changes {
            match change {
                ItemChange::Put(Item::Spec(spec)) => self.learn_spec(spec.open()?, &mut touched),
                ItemChange::Put(Item::Object(object)) => self.learn_object(object.open()?, &mut touched, out),
                ItemChange::Put(Item::Task(task)) => {
                    touched.insert(task.id);
                    self.take_on(now, task);
                }
                ItemChange::Remove(ItemKey::Task(task)) => self.part_with(now, task, out),
                // Tasks that have their files keep them.
                ItemChange::Remove(ItemKey::Object(object)) => self.forget_object(object, out),
            }
        }
        if changeset.complete {
            self.revision = Some(changeset.revision);
            self.session.proved();
            if let Some(named) = self.incoming.take() {
                self.full_set(now, named, out);
            }
        }
        for id in touched {
            self.pump(now, id, out);
        }
        Ok(())
    }

    /// Tasks that wait for an object go on.
    fn learn_object(&mut self, object: AssignedObject, touched: &mut BTreeSet<TaskId>, out: &mut Vec<Output>) {
        let key = object.key();
        if let Some(named) = &mut self.incoming {
            named.objects.insert(key);
        }
        self.objects.insert(key, Arc::new(object));
        self.learn_network(key, out);
        touched.extend(self.waiting.remove(&key).unwrap_or_default());
    }

    fn forget_object(&mut self, key: ObjectKey, out: &mut Vec<Output>) {
        if self.objects.remove(&key).is_some() {
            self.leave_network(key, out);
        }
    }

    fn learn_spec(&mut self, spec: AssignedSpec, touched: &mut BTreeSet<TaskId>) {
        let key = (spec.service, spec.version);
        let spec = Arc::new(spec);
        self.changes.push(Change::PutSpec(spec.clone()));
        let users = self.specs.get(&key).map_or(0, |old| old.users);
        let old = self.specs.insert(key, SpecEntry { spec, credentials_missing: false, users });
        if old.is_some_and(|old| old.credentials_missing) {
            let waiting = self.tasks.values().map(|e| &e.task.assigned);
            touched.extend(waiting.filter(|a| (a.service, a.spec_version) == key).map(|a| a.id));
        }
    }

    fn take_on(&mut self, now: Now, task: AssignedTask) {
        let id = task.id;
        if let Some(named) = &mut self.incoming {
            named.tasks.insert(id);
        }
        if self.leaving {
            return;
        }
        if let Some(entry) = self.tasks.get_mut(&id) {
            // Desired states only go up; a manager that says less has not heard of the latest yet.
            let desired = entry.task.assigned.desired.max(task.desired);
            if desired != entry.task.assigned.desired || entry.task.leaving {
                entry.task.assigned.desired = desired;
                entry.task.leaving = false;
                self.unsaved.insert(id);
            }
            return;
        }
        // The container of a task that is new to this agent may exist all the same if its store was lost. A task that
        // is to run finds it when it is created; before the first listing, and for one that is to stop, look first.
        let observed = if self.synced && task.desired.is_live() { Observed::Absent } else { Observed::Unknown };
        let spec = self.specs.get_mut(&(task.service, task.spec_version));
        let known = spec.map(|spec| spec.users += 1).is_some();
        let lost = format!("version {} of the service's spec did not arrive at the node", task.spec_version);
        self.tasks.insert(id, tasks::Entry::new(LocalTask::new(task, now.wall), observed));
        self.unsaved.insert(id);
        if known {
            self.outbox.mark(id, now.mono_ms, false);
        } else {
            self.set_status(now, id, tasks::rejected(lost, now.wall));
        }
    }

    /// A full set is complete: what it does not name goes, and the managers hear of everything once more, since they
    /// may have lost what they once acknowledged (a restored backup).
    fn full_set(&mut self, now: Now, named: Incoming, out: &mut Vec<Output>) {
        let gone: Vec<_> = self.tasks.keys().filter(|id| !named.tasks.contains(id)).copied().collect();
        for id in gone {
            self.part_with(now, id, out);
        }
        let gone: Vec<_> = self.objects.keys().filter(|key| !named.objects.contains(key)).copied().collect();
        gone.into_iter().for_each(|key| self.forget_object(key, out));
        for id in named.tasks {
            self.outbox.mark(id, now.mono_ms, false);
        }
        self.adopting = self.adopting || !self.synced;
        self.synced = true;
        self.request_list(now, out);
    }

    /// Forgets a task, and with the last task of a spec the spec: managers send it again with the next one.
    pub(super) fn forget(&mut self, id: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.remove(&id) else { return };
        self.serve_no_more(id, out);
        self.part_with_container(id, out);
        self.unsaved.insert(id);
        if entry.has_files {
            out.push(Output::DropFiles(id));
        }
        for key in entry.task.assigned.needs.iter() {
            if let Some(waiting) = self.waiting.get_mut(key) {
                waiting.remove(&id);
                if waiting.is_empty() {
                    self.waiting.remove(key);
                }
            }
        }
        if let Some(at) = entry.retry_at_ms {
            self.retries.remove(&(at, id));
        }
        let key = (entry.task.assigned.service, entry.task.assigned.spec_version);
        if let Some(spec) = self.specs.get_mut(&key) {
            spec.users = spec.users.saturating_sub(1);
            if spec.users == 0 {
                self.drop_spec(key);
            }
        }
    }

    fn drop_spec(&mut self, (service, version): (ServiceId, u64)) {
        self.specs.remove(&(service, version));
        self.changes.push(Change::DeleteSpec(service, version));
    }

    /// Counts the tasks of each spec, and forgets specs that never had one.
    pub(super) fn count_users(&mut self) {
        for spec in self.specs.values_mut() {
            spec.users = 0;
        }
        for entry in self.tasks.values() {
            let key = (entry.task.assigned.service, entry.task.assigned.spec_version);
            if let Some(spec) = self.specs.get_mut(&key) {
                spec.users += 1;
            }
        }
        let unused: Vec<_> = self.specs.iter().filter(|(_, spec)| spec.users == 0).map(|(key, _)| *key).collect();
        for key in unused {
            self.drop_spec(key);
        }
    }
}
