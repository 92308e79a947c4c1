//! Assignments in the form of version 0.1.0, whose agents and managers know no changes of items.

use std::{io, sync::Arc};

use serde::{Deserialize, Serialize};
use swarm_model::TaskId;

use super::{AssignedSpec, AssignedTask, Changeset, Item, ItemChange, ItemKey, Shared};

/// A change of what a node is to run. Messages of one session are applied in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// Whether this starts a full set: what no message up to the next `complete` names is to be removed.
    pub full: bool,
    /// Whether the set or difference ends here; only then does `revision` hold.
    pub complete: bool,
    /// Log index of the state that this comes from.
    pub revision: u64,
    /// Specs that the tasks below are the first to need.
    pub specs: Vec<AssignedSpec>,
    /// Tasks that are new or changed.
    pub tasks: Vec<AssignedTask>,
    /// Tasks that no longer exist.
    pub removed: Vec<TaskId>,
}

impl Assignments {
    /// The same for an agent of version 0.1.0. It is told of no object: it refuses tasks that need one by itself.
    ///
    /// # Errors
    /// A spec cannot be read.
    pub fn of(Changeset { full, complete, revision, changes }: Changeset) -> io::Result<Self> {
        let mut message = Self { full, complete, revision, ..Self::default() };
        for change in changes {
            match change {
                ItemChange::Put(Item::Spec(spec)) => message.specs.push(spec.open()?),
                ItemChange::Put(Item::Task(task)) => message.tasks.push(AssignedTask { needs: Arc::default(), ..task }),
                ItemChange::Remove(ItemKey::Task(task)) => message.removed.push(task),
                ItemChange::Put(Item::Object(_)) | ItemChange::Remove(ItemKey::Object(_)) => {}
            }
        }
        Ok(message)
    }

    /// The same as an agent of now takes it.
    ///
    /// # Errors
    /// A spec cannot be written.
    pub fn changes(self) -> io::Result<Changeset> {
        let Self { full, complete, revision, specs, tasks, removed } = self;
        let specs = specs.iter().map(|spec| Ok(ItemChange::Put(Item::Spec(Shared::new(spec)?))));
        let tasks = tasks.into_iter().map(|task| Ok(ItemChange::Put(Item::Task(task))));
        let removed = removed.into_iter().map(|task| Ok(ItemChange::Remove(ItemKey::Task(task))));
        Ok(Changeset {
            full,
            complete,
            revision,
            changes: specs.chain(tasks).chain(removed).collect::<io::Result<_>>()?,
        })
    }
}
