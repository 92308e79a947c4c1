//! Tasks, their spec versions, and the indexes that follow from them.

use std::sync::Arc;

use swarm_model::{NodeId, ServiceId, SpecVersion, Task, TaskId, TaskState};

use super::State;

impl State {
    /// Adds a task. Its spec version must be there.
    pub(crate) fn insert_task(&mut self, task: Arc<Task>) {
        *self.spec_refs.entry((task.service, task.spec_version)).or_insert(0) += 1;
        self.by_service.insert((task.service, task.slot, task.id));
        self.index(&task);
        assert!(self.tasks.insert(task.id, task).is_none(), "a task is inserted once");
    }

    /// Changes a task. Service, slot and spec version must stay.
    pub(crate) fn replace_task(&mut self, task: Task) {
        let old = self.tasks.get(&task.id).cloned().expect("only tasks that exist are changed");
        // Most changes are reports that move no index.
        let place = |t: &Task| (t.node, t.desired.is_live(), t.holds_resources(), is_pending(t));
        if place(&old) != place(&task) {
            self.unindex(&old);
            self.index(&task);
        }
        self.tasks.insert(task.id, Arc::new(task));
    }

    /// Deletes a task, and its spec version with the last task of it, unless it is the current or the previous one of
    /// its service.
    pub(crate) fn delete_task(&mut self, id: TaskId) -> Option<Arc<Task>> {
        let task = self.tasks.remove(&id)?;
        self.unindex(&task);
        self.by_service.remove(&(task.service, task.slot, task.id));
        let key = (task.service, task.spec_version);
        let refs = self.spec_refs.get_mut(&key).expect("a task's spec version is counted");
        *refs -= 1;
        if *refs == 0 {
            self.spec_refs.remove(&key);
            self.forget_spec(key.0, key.1);
        }
        Some(task)
    }

    /// Stores a version of a spec, or changes its registry credentials.
    pub(crate) fn put_spec(&mut self, spec: SpecVersion) {
        self.specs.insert((spec.service, spec.version), Arc::new(spec));
    }

    /// Deletes a version of a spec if no task refers to it and it is not its service's current or previous
    /// one.
    pub(crate) fn forget_spec(&mut self, service: ServiceId, version: u64) {
        let current = self.services.get(&service).is_some_and(|s| {
            s.spec_version == version || s.previous.as_ref().is_some_and(|p| p.spec_version == version)
        });
        if !current && !self.spec_refs.contains_key(&(service, version)) {
            self.specs.remove(&(service, version));
        }
    }

    fn index(&mut self, task: &Task) {
        if let Some(node) = task.node {
            self.by_node.insert((node, task.id));
            self.change_load(node, task, true);
        }
        if is_pending(task) {
            self.pending.insert((task.service, task.id));
        }
    }

    fn unindex(&mut self, task: &Task) {
        if let Some(node) = task.node {
            self.by_node.remove(&(node, task.id));
            self.change_load(node, task, false);
        }
        if is_pending(task) {
            self.pending.remove(&(task.service, task.id));
        }
    }

    fn change_load(&mut self, node: NodeId, task: &Task, add: bool) {
        if !task.is_live() && !task.holds_resources() {
            return;
        }
        let spec = self.specs.get(&(task.service, task.spec_version)).expect("a task's spec version is kept");
        let load = Arc::make_mut(self.loads.entry(node).or_default());
        if add {
            load.add(task, &spec.spec);
        } else {
            load.remove(task, &spec.spec);
            if *load == super::NodeLoad::default() {
                self.loads.remove(&node);
            }
        }
    }
}

fn is_pending(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.desired.is_live()
}
