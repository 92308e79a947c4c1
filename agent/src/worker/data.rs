//! The endpoint table, and the tasks of this node in it. The data plane of the node goes by both.

use std::{collections::BTreeMap, net::IpAddr};

use swarm_dataplane::protocol::{FromData, LocalTask, ToData};
use swarm_model::{NodeWarning, PublishMode, Settings, TaskId};
use swarm_wire::{
    agent::{AssignedSpec, HeldTable, ToManager},
    endpoints::{EndpointTable, TableReceiver, TableUpdate, TableVersion},
};

use super::{
    Now, Output, Worker,
    tasks::{Entry, grace_secs},
};
use crate::executor::Observed;

/// Warnings of a data plane that managers are told: they are kept for each node.
const WARNINGS_MAX: usize = 16;
/// Characters of a warning that managers are told.
const WARNING_CHARS_MAX: usize = 300;

/// Longest time that connections to a task may last once it is to stop, unless its service says otherwise. Clients that keep
/// their connections would use up any time; new ones wait at most 10 s for the task that replaces a single one.
pub(super) const DRAIN_MS_MAX: u64 = 3_000;

/// How far connections to a task are that is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// The stop is not waited with, as far as is known.
    NotBegun,
    /// The stop waits until then for the end of the connections.
    Until(u64),
    /// No connection is left, or the time is over.
    Over,
}

/// An event of the data plane.
#[derive(Clone, Debug, PartialEq)]
pub enum DataInput {
    /// A data plane runs since before this agent: it goes on by the table that it had.
    Found,
    /// The agent is connected to a data plane, which has this table.
    Up(Option<TableVersion>),
    /// The agent is connected to no data plane.
    Down,
    /// The data plane sent a message.
    Says(FromData),
}

/// The worker's knowledge of the data plane.
#[derive(Debug, Default)]
pub(super) struct Data {
    is_up: bool,
    /// Whether a service has published ports, or had, or a data plane runs: until then there is none.
    is_needed: bool,
    table: TableReceiver,
    /// Whether the managers were asked for the whole table and have not begun to send it.
    asked: bool,
    /// The table that the data plane goes by.
    applied: Option<TableVersion>,
    /// The tasks that the data plane can connect to.
    local: BTreeMap<TaskId, IpAddr>,
    /// Whether the data plane is to be told all of them, which it was not since the connection began.
    locals_due: bool,
    warnings: Vec<NodeWarning>,
}

/// How long connections to a task may last once it is to stop.
pub(super) fn drain_ms(spec: &AssignedSpec) -> u64 {
    let grace_ms = u64::from(grace_secs(&spec.task.container_spec)) * 1_000;
    let asked_ms = Settings::of(&spec.service_labels).drain_ns.map(|ns| ns.unsigned_abs() / 1_000_000);
    asked_ms.unwrap_or(grace_ms.min(DRAIN_MS_MAX))
}

impl Data {
    /// Whether the agent is connected to a data plane.
    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether there is to be a data plane.
    pub(super) fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// The endpoint table.
    pub(super) fn table(&self) -> &EndpointTable {
        self.table.table()
    }

    /// Whether connections to a task may be open.
    pub(super) fn serves(&self, task: TaskId) -> bool {
        self.is_up && self.local.contains_key(&task)
    }
}

impl Worker {
    /// The table that this agent holds, for the first message of a session.
    pub(super) fn held_table(&self) -> Option<HeldTable> {
        self.options.data_address.map(|_| HeldTable { version: self.data.table.table().version() })
    }

    pub(super) fn data_input(&mut self, now: Now, input: DataInput, out: &mut Vec<Output>) {
        match input {
            DataInput::Found if self.data.is_needed => {}
            DataInput::Found => {
                self.data.is_needed = true;
                out.push(Output::NeedData);
            }
            DataInput::Up(version) => {
                self.data.is_up = true;
                self.data_answers_no_more(out);
                self.data.locals_due = true;
                self.send_locals(out);
                self.say_all_names(out);
                let held = self.data.table.table().version();
                if held.is_some() && held == version {
                    self.applied(version, out);
                } else {
                    self.data.applied = None;
                    self.send_table(out);
                }
            }
            DataInput::Down => {
                (self.data.is_up, self.data.applied) = (false, None);
                self.data_answers_no_more(out);
                let served: Vec<_> = self.data.local.keys().copied().collect();
                served.into_iter().for_each(|task| self.end_wait(now, task, out));
            }
            DataInput::Says(FromData::Applied(version)) => self.applied(Some(version), out),
            DataInput::Says(FromData::Refused { reason }) => {
                tracing::warn!(%reason, "the data plane refused a change of the endpoint table; it gets the whole table");
                self.send_table(out);
            }
            DataInput::Says(FromData::Drained(task)) => self.drained(now, task, out),
            DataInput::Says(FromData::InUse(task)) => self.in_use(task),
            DataInput::Says(FromData::Warnings(warnings)) => {
                for warning in warnings.iter().filter(|warning| !self.data.warnings.contains(warning)) {
                    tracing::warn!("{}", warning.text);
                }
                self.data.warnings = warnings;
                self.tell(out);
            }
            DataInput::Says(FromData::Stats(stats)) => self.counted(&stats, out),
            DataInput::Says(FromData::Probed { number, failed }) => self.probed(number, failed, out),
            DataInput::Says(FromData::Hello { .. }) => {}
        }
    }

    /// The warnings of this node.
    pub(super) fn warnings(&self) -> Vec<NodeWarning> {
        let warnings = self.data.warnings.iter().cloned().chain(self.networks.warnings());
        let short = |text: String| text.chars().take(WARNING_CHARS_MAX).collect();
        warnings.take(WARNINGS_MAX).map(|warning| NodeWarning { text: short(warning.text), ..warning }).collect()
    }

    fn send_table(&self, out: &mut Vec<Output>) {
        if self.data.table.table().version().is_some() {
            out.extend(
                self.data.table.table().to_updates().into_iter().map(|update| Output::Data(ToData::Table(update))),
            );
        }
    }

    fn applied(&mut self, version: Option<TableVersion>, out: &mut Vec<Output>) {
        self.data.applied = version;
        self.tell_table(out);
    }

    /// A session begins: what was asked for in the last one does not come.
    pub(super) fn data_session(&mut self, out: &mut Vec<Output>) {
        self.data.asked = false;
        self.tell_table(out);
    }

    /// Tells the managers by which table the data plane goes.
    fn tell_table(&self, out: &mut Vec<Output>) {
        if self.session.is_open() && self.data.applied.is_some() {
            out.push(Output::Send(ToManager::Table(self.data.applied)));
        }
    }

    /// The managers say what changed.
    pub(super) fn table_changed(&mut self, update: TableUpdate, out: &mut Vec<Output>) {
        if update.full {
            self.data.asked = false;
        }
        match self.data.table.take(&update) {
            Ok(_) if self.data.is_up => out.push(Output::Data(ToData::Table(update))),
            Ok(Some(_)) if !self.data.is_needed => self.look_whether_needed(out),
            Ok(_) => {}
            Err(_) if self.data.asked => {}
            Err(reason) => {
                tracing::warn!(%reason, "a change of the endpoint table was refused; the whole table is asked for");
                self.data.asked = true;
                out.push(Output::Send(ToManager::Table(None)));
            }
        }
    }

    /// A task is in a network: the data plane answers its questions for names.
    pub(super) fn need_data(&mut self, out: &mut Vec<Output>) {
        if !self.data.is_needed {
            self.data.is_needed = true;
            out.push(Output::NeedData);
        }
    }

    /// Without a data plane no connection comes, so that each table is gone by at once.
    fn look_whether_needed(&mut self, out: &mut Vec<Output>) {
        self.data.is_needed = self.data.table.table().has_services();
        if self.data.is_needed {
            self.data.applied = None;
            out.push(Output::NeedData);
        } else {
            self.applied(self.data.table.table().version(), out);
        }
    }

    /// Tells the data plane whether it can connect to a task, if that has changed.
    pub(super) fn serve(&mut self, task: TaskId, out: &mut Vec<Output>) {
        let addr = self.tasks.get(&task).and_then(|entry| {
            let key = (entry.task.assigned.service, entry.task.assigned.spec_version);
            let ports = &self.specs.get(&key)?.spec.ports;
            match &entry.observed {
                _ if ports.iter().all(|port| port.publish_mode != PublishMode::Ingress) => None,
                Observed::Running(running) => running.addr,
                // Most often it runs on: nothing was seen of its end.
                Observed::Unknown => self.data.local.get(&task).copied(),
                Observed::Absent | Observed::Created { .. } | Observed::Exited(_) => None,
            }
        });
        match addr {
            Some(addr) if self.data.local.insert(task, addr) != Some(addr) => {
                if self.data.is_up {
                    out.push(Output::Data(ToData::PutLocal(LocalTask { task, addr })));
                }
            }
            Some(_) => {}
            None => self.serve_no_more(task, out),
        }
        self.send_locals(out);
    }

    /// Tells a new connection all tasks of the node, once the containers are known: a data plane that went on while this agent
    /// was away knows them, and connects to them until then.
    fn send_locals(&mut self, out: &mut Vec<Output>) {
        if !self.data.is_up || !self.data.locals_due || self.has_unknown_containers() {
            return;
        }
        self.data.locals_due = false;
        let local = self.data.local.iter().map(|(task, addr)| LocalTask { task: *task, addr: *addr });
        out.push(Output::Data(ToData::LocalTasks(local.collect())));
    }

    /// Whether it is not known yet how the container of a task is.
    pub(super) fn has_unknown_containers(&self) -> bool {
        let is_unknown = |entry: &Entry| entry.observed == Observed::Unknown && !entry.task.status.state.is_terminal();
        self.tasks.values().any(is_unknown)
    }

    /// The container of a task has ended.
    pub(super) fn serve_no_more(&mut self, task: TaskId, out: &mut Vec<Output>) {
        if self.data.local.remove(&task).is_some() && self.data.is_up {
            out.push(Output::Data(ToData::RemoveLocal(task)));
        }
    }

    /// Whether the stop of a task that runs waits for the end of its connections, and it is not time yet.
    pub(super) fn waits_for_connections(&mut self, now: Now, id: TaskId, longest_ms: u64) -> bool {
        let is_served = self.data.serves(id);
        let Some(entry) = self.tasks.get_mut(&id) else { return false };
        let is_wanted = entry.task.assigned.desired.is_live() && !entry.task.leaving;
        if is_wanted || !is_served {
            return false;
        }
        let until = match entry.drain {
            Drain::Over => return false,
            Drain::NotBegun => now.mono_ms.saturating_add(longest_ms),
            Drain::Until(until) => until,
        };
        if now.mono_ms >= until {
            entry.drain = Drain::Over;
            return false;
        }
        entry.drain = Drain::Until(until);
        entry.retry_at_ms = Some(until);
        entry.last_call = None;
        self.retries.insert((until, id));
        true
    }

    /// No connection to a task that is to stop is left.
    fn drained(&mut self, now: Now, id: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        if let Drain::Until(until) = std::mem::replace(&mut entry.drain, Drain::Over) {
            if entry.retry_at_ms == Some(until) {
                entry.retry_at_ms = None;
                self.retries.remove(&(until, id));
            }
            self.pump(now, id, out);
        }
    }

    /// The stop of a task has nothing to wait for any more.
    pub(super) fn end_wait(&mut self, now: Now, id: TaskId, out: &mut Vec<Output>) {
        if self.tasks.get(&id).is_some_and(|entry| matches!(entry.drain, Drain::Until(_))) {
            self.drained(now, id, out);
        }
    }

    /// A task that had no connections left has some again.
    fn in_use(&mut self, id: TaskId) {
        if let Some(entry) = self.tasks.get_mut(&id).filter(|entry| entry.drain == Drain::Over && entry.call.is_none())
        {
            entry.drain = Drain::NotBegun;
        }
    }
}
