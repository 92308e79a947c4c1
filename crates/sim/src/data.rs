//! The data plane of a node: a process beside the agent that goes by the endpoint table and knows the tasks of the node.
//! The data planes here forward nothing; how long a task has connections is drawn at random.

use std::collections::{BTreeMap, BTreeSet};

use swarm_agent::{DataInput, Input};
use swarm_dataplane::protocol::{FromData, ToData};
use swarm_model::{NodeId, TaskId};
use swarm_wire::endpoints::{EndpointState, TableReceiver};

use crate::{event::Event, peers::is_old, world::World};

/// Time between two attempts of an agent to connect (`agent/src/data.rs`).
const RETRY_MS: u64 = 100;
/// Longest time for which a task that is to stop has connections: longer than most graces.
const BUSY_MS_MAX: u64 = 15_000;
/// Mean time between two faults of data planes.
const FAULT_EVERY_MS: u64 = 5_000;

/// Something that happens between an agent and its data plane.
#[derive(Debug)]
pub(crate) enum DataEvent {
    /// An agent of that start tries to connect.
    Connect(u64),
    /// A message arrives at the data plane.
    Hears(u64, ToData),
    /// A message arrives at the agent.
    Says(u64, DataInput),
    /// The process starts.
    Start,
    /// The last connection to a task ends; the process counts its starts.
    Free(u64, TaskId),
    /// A node that had not applied the table yet sent a connection to a task.
    Use(u64, TaskId),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct DataPlane {
    runs: bool,
    boot: u64,
    table: TableReceiver,
    local: BTreeSet<TaskId>,
    /// The tasks of this node that are draining, and whether they have connections.
    draining: BTreeMap<TaskId, bool>,
    /// Number of the connection that the process has; 0 for none.
    link: u64,
    /// The same, as the agent sees it.
    agent_link: u64,
    links: u64,
    /// Until then it reads nothing.
    pub(crate) stuck_ms: u64,
    last_in_ms: u64,
    last_out_ms: u64,
}

impl DataPlane {
    /// The table that it goes by; none if it does not run.
    pub(crate) fn table(&self) -> Option<&TableReceiver> {
        Some(&self.table).filter(|_| self.runs)
    }

    /// Whether it gives new connections to a task.
    pub(crate) fn balances_to(&self, task: TaskId) -> bool {
        let endpoint = self.table().and_then(|table| table.table().endpoint(task));
        endpoint.is_some_and(|endpoint| endpoint.state == EndpointState::In)
    }

    /// The agent is gone: the process goes on by what it was told last.
    pub(crate) fn lose_agent(&mut self) {
        (self.link, self.agent_link) = (0, 0);
    }

    /// Whether the process runs.
    pub(crate) fn runs(&self) -> bool {
        self.runs
    }

    /// Whether the process has ever been started: from then on it is started again when it ends.
    pub(crate) fn was_needed(&self) -> bool {
        self.boot > 0
    }

    /// The process is gone, with all that it knew.
    pub(crate) fn die(&mut self) {
        let (boot, links, agent_link, last_out_ms) = (self.boot, self.links, self.agent_link, self.last_out_ms);
        *self = Self { boot, links, agent_link, last_out_ms, ..Self::default() };
    }
}

impl World {
    /// An agent needs its data plane.
    pub(crate) fn need_data(&mut self, node: NodeId, boot: u64) {
        let delay = self.side.between(1, 20);
        self.after(delay, Event::Data(node, Box::new(DataEvent::Connect(boot))));
    }

    pub(crate) fn data_event(&mut self, node: NodeId, event: DataEvent) {
        match event {
            DataEvent::Connect(boot) => self.connect_data(node, boot),
            DataEvent::Hears(link, message) => self.data_hears(node, link, message),
            DataEvent::Says(link, input) => self.data_says(node, link, input),
            DataEvent::Start => {
                if let Some(host) = self.hosts.get_mut(&node).filter(|host| !host.gone && !host.data.runs) {
                    (host.data.runs, host.data.boot) = (true, host.data.boot + 1);
                }
            }
            DataEvent::Free(boot, task) => self.set_in_use(node, boot, task, false),
            DataEvent::Use(boot, task) => self.set_in_use(node, boot, task, true),
        }
    }

    fn connect_data(&mut self, node: NodeId, boot: u64) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.boot == boot && host.worker.is_some()) else {
            return;
        };
        let data = &mut host.data;
        if !data.runs {
            if data.boot == 0 {
                // The data plane was not needed before.
                self.after(RETRY_MS / 2, Event::Data(node, Box::new(DataEvent::Start)));
            }
            return self.after(RETRY_MS, Event::Data(node, Box::new(DataEvent::Connect(boot))));
        }
        data.links += 1;
        (data.link, data.agent_link) = (data.links, data.links);
        let version = data.table.table().version();
        let drained: Vec<TaskId> = data.draining.iter().filter(|(_, busy)| !**busy).map(|(task, _)| *task).collect();
        self.take_word(node, DataInput::Up(version));
        for task in drained {
            self.say(node, FromData::Drained(task));
        }
    }

    /// An agent tells its data plane something.
    pub(crate) fn tell_data(&mut self, node: NodeId, message: ToData) {
        let delay = self.side.between(1, 30);
        let now_ms = self.now_ms;
        let Some(data) = self.hosts.get_mut(&node).map(|host| &mut host.data).filter(|data| data.agent_link > 0) else {
            return;
        };
        let at = (now_ms + delay).max(data.last_in_ms).max(data.stuck_ms);
        data.last_in_ms = at;
        let event = DataEvent::Hears(data.agent_link, message);
        self.at(at, Event::Data(node, Box::new(event)));
    }

    fn data_hears(&mut self, node: NodeId, link: u64, message: ToData) {
        let refuses = !self.healed && self.side.per_mille(10);
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.data.link == link) else { return };
        let data = &mut host.data;
        match message {
            ToData::LocalTasks(tasks) => data.local = tasks.into_iter().map(|local| local.task).collect(),
            ToData::PutLocal(local) => drop(data.local.insert(local.task)),
            ToData::RemoveLocal(task) => drop(data.local.remove(&task)),
            ToData::Table(_) if refuses => {
                self.counts.fault("data plane refuses a table");
                return self.say(node, FromData::Refused { reason: "no memory".into() });
            }
            ToData::Table(update) => match data.table.take(&update) {
                Ok(Some(_)) => {
                    let version = data.table.table().version().unwrap_or_default();
                    self.say(node, FromData::Applied(version));
                }
                Ok(None) => {}
                Err(error) => self.say(node, FromData::Refused { reason: error.to_string() }),
            },
            ToData::Stop => return data.die(),
            ToData::Configure(_)
            | ToData::Identity(_)
            | ToData::Stats
            | ToData::Probe { .. }
            | ToData::PutNetwork(_)
            | ToData::RemoveNetwork(_)
            | ToData::Members(_)
            | ToData::PutContainer(_)
            | ToData::RemoveContainer(_)
            | ToData::KeepNames { .. } => {}
        }
        self.review(node);
    }

    /// Looks which tasks of the node are draining.
    fn review(&mut self, node: NodeId) {
        let Some(data) = self.hosts.get_mut(&node).map(|host| &mut host.data) else { return };
        let is_draining = |task: &TaskId| {
            data.table.table().endpoint(*task).is_some_and(|endpoint| endpoint.state == EndpointState::Draining)
        };
        let now: BTreeSet<TaskId> = data.local.iter().copied().filter(is_draining).collect();
        data.draining.retain(|task, _| now.contains(task));
        let new: Vec<TaskId> = now.into_iter().filter(|task| !data.draining.contains_key(task)).collect();
        let boot = data.boot;
        for task in new {
            let busy = self.side.per_mille(600);
            if let Some(host) = self.hosts.get_mut(&node) {
                host.data.draining.insert(task, busy);
            }
            if busy {
                self.counts.other("tasks with connections to the end");
                let delay = self.side.between(10, BUSY_MS_MAX);
                self.after(delay, Event::Data(node, Box::new(DataEvent::Free(boot, task))));
            } else {
                self.say(node, FromData::Drained(task));
            }
        }
    }

    /// The last connection of a draining task ends, or a late one comes.
    fn set_in_use(&mut self, node: NodeId, boot: u64, task: TaskId, is_used: bool) {
        let again = !self.healed && self.side.per_mille(150);
        let delay = self.side.between(10, 2_000);
        let Some(data) = self.hosts.get_mut(&node).map(|host| &mut host.data).filter(|data| data.boot == boot) else {
            return;
        };
        let Some(busy) = data.draining.get_mut(&task) else { return };
        if std::mem::replace(busy, is_used) == is_used {
            return;
        }
        self.say(node, if is_used { FromData::InUse(task) } else { FromData::Drained(task) });
        if is_used {
            self.after(delay, Event::Data(node, Box::new(DataEvent::Free(boot, task))));
        } else if again {
            self.after(delay, Event::Data(node, Box::new(DataEvent::Use(boot, task))));
        }
    }

    fn say(&mut self, node: NodeId, message: FromData) {
        if self.hosts.get(&node).is_some_and(|host| host.data.link > 0) {
            self.take_word(node, DataInput::Says(message));
        }
    }

    /// Something arrives at the agent in the order in which it was said.
    fn take_word(&mut self, node: NodeId, input: DataInput) {
        let delay = self.side.between(1, 10);
        let now_ms = self.now_ms;
        let Some(data) = self.hosts.get_mut(&node).map(|host| &mut host.data).filter(|data| data.agent_link > 0) else {
            return;
        };
        let at = (now_ms + delay).max(data.last_out_ms);
        data.last_out_ms = at;
        let event = DataEvent::Says(data.agent_link, input);
        self.at(at, Event::Data(node, Box::new(event)));
    }

    fn data_says(&mut self, node: NodeId, link: u64, input: DataInput) {
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.data.agent_link == link) else { return };
        let boot = host.boot;
        if input == DataInput::Down {
            host.data.agent_link = 0;
            self.after(RETRY_MS, Event::Data(node, Box::new(DataEvent::Connect(boot))));
        }
        self.hear(node, boot, Input::Data(input));
    }

    /// A fault of a data plane, and the time of the next.
    pub(crate) fn break_data(&mut self) {
        if self.healed {
            return;
        }
        let next = self.side.between(1, 2 * FAULT_EVERY_MS);
        self.after(next, Event::BreakData);
        let runs = self.hosts.iter().filter(|(node, host)| host.data.runs && !host.gone && !is_old(**node));
        let nodes: Vec<NodeId> = runs.map(|(node, _)| *node).collect();
        let Some(node) = self.side.pick(&nodes).copied() else { return };
        if self.side.per_mille(400) {
            self.counts.fault("data plane ends");
            self.kill_data(node);
        } else {
            self.counts.fault("data plane stands still");
            let ms = self.side.between(100, 8_000);
            let until = self.now_ms + ms;
            if let Some(host) = self.hosts.get_mut(&node) {
                host.data.stuck_ms = until.max(host.data.stuck_ms);
            }
        }
    }

    /// The process ends. What it said before still arrives.
    pub(crate) fn kill_data(&mut self, node: NodeId) {
        let long = !self.healed && self.side.per_mille(100);
        let pause = self.side.between(50, if long { 20_000 } else { 300 });
        let Some(host) = self.hosts.get_mut(&node).filter(|host| host.data.runs) else { return };
        host.data.die();
        self.take_word(node, DataInput::Down);
        self.after(pause, Event::Data(node, Box::new(DataEvent::Start)));
    }
}
