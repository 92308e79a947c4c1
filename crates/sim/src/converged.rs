//! What a settled cluster is like: every service as it is wanted, and nothing left over anywhere.

use std::collections::{BTreeMap, BTreeSet};

use swarm_agent::Observed;
use swarm_core::{Context, Dirty, State, decide};
use swarm_model::{
    DesiredState, Node, NodeId, ObjectReference, PortConfig, PublishMode, RestartCondition, Service, ServiceSpec, Task,
    TaskId, TaskState, UpdateState,
};

use crate::{
    jobs,
    lead::rest,
    oracle::{Place, constraints_hold, is_eligible, pieces_of, place_of, tasks_of},
    peers,
    specs::GPU,
    world::World,
};

impl World {
    /// Looks at the whole cluster once nothing happens any more.
    pub(crate) fn check_converged(&mut self) {
        self.compare_replicas();
        let state = self.log.state.clone();
        let left = rest(decide(&state, &Dirty::everything(), &Context::at(self.wall(), self.seed)));
        if !left.is_empty() {
            return self.complain(format!("a settled cluster still has something to do: {left:?}"));
        }
        let wrong = state
            .services()
            .find_map(|service| match service.job {
                Some(_) => jobs::check(&state, service).err(),
                None => check_service(&state, service).err(),
            })
            .or_else(|| check_records(&state).err())
            .or_else(|| self.check_hosts(&state).err())
            .or_else(|| self.check_tables(&state).err());
        if let Some(wrong) = wrong {
            self.complain(format!("the mended cluster did not converge: {wrong}"));
        }
    }

    /// Agents have what they are to have, on disk too, and engines have no container besides.
    fn check_hosts(&self, state: &State) -> Result<(), String> {
        for (id, host) in self.hosts.iter().filter(|(_, host)| !host.gone) {
            let at = format!("node {id} ({})", host.hostname);
            if state.node(*id).is_none() {
                return Err(format!("{at} is not in the cluster"));
            }
            let Some(worker) = &host.worker else { return Err(format!("{at} has no agent")) };
            let wanted: BTreeMap<TaskId, DesiredState> = state
                .tasks_of_node(*id)
                .filter(|task| task.status.state >= TaskState::Assigned)
                .map(|task| (task.id, task.desired))
                .collect();
            let has: BTreeMap<TaskId, DesiredState> =
                worker.tasks().map(|task| (task.assigned.id, task.assigned.desired)).collect();
            if has != wanted {
                return Err(format!("{at} is to have {wanted:?} and its agent has {has:?}"));
            }
            self.check_objects(state, *id).map_err(|wrong| format!("{at}: {wrong}"))?;
            if !host.tasks_on_disk.keys().eq(wanted.keys()) {
                return Err(format!("{at} has on disk {:?} and is to have {wanted:?}", host.tasks_on_disk.keys()));
            }
            for (container, found) in &host.engine.containers {
                let Some(task) = state.task(found.task).filter(|task| task.node == Some(*id)) else {
                    return Err(format!("{at} has container {container} of task {}, which is not its", found.task));
                };
                let runs = matches!(found.state, Observed::Running(_));
                if runs != (task.status.state == TaskState::Running) {
                    let (task, status) = (task.id, task.status.state);
                    return Err(format!("{at}: task {task} is {status}, its container is {:?}", found.state));
                }
            }
            let containers: BTreeSet<TaskId> = host.engine.containers.values().map(|c| c.task).collect();
            if containers.len() < host.engine.containers.len() {
                return Err(format!("{at} has two containers of one task"));
            }
            let running = state.tasks_of_node(*id).filter(|task| task.status.state == TaskState::Running);
            if let Some(task) = running.into_iter().find(|task| !containers.contains(&task.id)) {
                return Err(format!("{at}: task {} is running and has no container", task.id));
            }
        }
        Ok(())
    }
}

impl World {
    /// An agent has the objects that its tasks need which have not ended, and no others; those tasks have their files.
    fn check_objects(&self, state: &State, node: NodeId) -> Result<(), String> {
        let Some((host, worker)) = self.hosts.get(&node).and_then(|host| Some((host, host.worker.as_ref()?))) else {
            return Ok(());
        };
        let mut wanted = BTreeSet::new();
        let tasks = state.tasks_of_node(node).filter(|task| task.status.state >= TaskState::Assigned);
        for task in tasks.filter(|_| !peers::is_old(node)) {
            let spec = state.spec(task.service, task.spec_version).ok_or("a task without a spec")?;
            let needs: Vec<_> = spec.spec.task_template.container_spec.references();
            let is_over = task.status.state.is_terminal();
            if !is_over {
                wanted.extend(needs.iter().filter_map(ObjectReference::key));
            }
            let (has, runs) = (host.files.contains(&task.id), task.status.state == TaskState::Running);
            if has && (is_over || needs.is_empty()) || !has && runs && !needs.is_empty() {
                return Err(format!("task {} is {} and its files are there: {has}", task.id, task.status.state));
            }
        }
        let has: BTreeSet<_> = worker.objects().collect();
        if has != wanted {
            return Err(format!("it is to have the objects {wanted:?} and has {has:?}"));
        }
        match host.files.iter().find(|task| state.task(**task).is_none_or(|task| task.node != Some(node))) {
            Some(task) => Err(format!("files of task {task} are left, which is not its")),
            None => Ok(()),
        }
    }
}

/// Every record belongs to a service, and what is not to live has ended.
fn check_records(state: &State) -> Result<(), String> {
    for task in state.tasks() {
        if state.service(task.service).is_none() {
            return Err(format!("task {} is left of service {}, which is gone", task.id, task.service));
        }
        if !task.desired.is_live() && !task.status.state.is_terminal() {
            return Err(format!("task {} is to be {} and is {}", task.id, task.desired, task.status.state));
        }
    }
    Ok(())
}

/// A service has its tasks, they run, and they run what is wanted, unless an update stopped half-way.
fn check_service(state: &State, service: &Service) -> Result<(), String> {
    let name = &service.spec.name;
    let update = service.update.as_ref().map(|update| update.state);
    let paused = matches!(update, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let mut live: BTreeMap<Place, Vec<&Task>> = BTreeMap::new();
    let all = || state.tasks_of_service(service.id).filter(|task| task.desired.is_live());
    // An update waits with a place whose new task finds no node.
    let waits = all().any(|task| task.status.state == TaskState::Pending);
    for task in all() {
        live.entry(place_of(task)).or_default().push(task);
        match task.status.state {
            TaskState::Running => {}
            TaskState::Pending => {
                if let Some(node) = state.nodes().find(|node| could_take(state, service, task, node)) {
                    return Err(format!("task {} of {name} waits, though node {} has room", task.id, node.id));
                }
            }
            // What was prepared when the update paused waits with it.
            TaskState::Ready if paused && task.desired == DesiredState::Ready => {}
            found => return Err(format!("task {} of {name} is to be {} and is {found}", task.id, task.desired)),
        }
        if !paused && !waits && !is_up_to_date(state, service, task) && !was_relieved_in_vain(state, service, task) {
            return Err(format!("task {} of {name} is of spec version {}, {update:?}", task.id, task.spec_version));
        }
    }
    if update.is_some_and(UpdateState::is_active) && !waits {
        return Err(format!("the update of {name} does not end: {:?}", service.update));
    }
    if let Some((place, tasks)) = live.iter().find(|(_, tasks)| tasks.len() > 1 && !paused && !waits) {
        return Err(format!("place {place:?} of {name} has {} live tasks", tasks.len()));
    }
    let places: BTreeSet<Place> = if service.spec.mode.is_global() {
        let fits = |node: &&std::sync::Arc<Node>| constraints_hold(node, &service.spec);
        state.nodes().filter(fits).map(|node| (service.id, 0, Some(node.id))).collect()
    } else {
        live.keys().copied().chain(given_up(state, service)).collect()
    };
    if let Some(missing) =
        places.iter().find(|place| !live.contains_key(*place) && !is_given_up(state, service, **place))
    {
        return Err(format!("{name} has no task at {missing:?}"));
    }
    if let Some(surplus) = live.keys().find(|place| !places.contains(*place)) {
        return Err(format!("{name} has a task at {surplus:?}, where it is to have none"));
    }
    let wanted = service.spec.replicas().unwrap_or(places.len() as u64);
    if live.len() as u64 > wanted || (places.len() as u64) < wanted {
        return Err(format!(
            "{name} is to have {wanted} tasks and has {} live ones in {} places",
            live.len(),
            places.len()
        ));
    }
    Ok(())
}

/// Whether an update made a task to take over from this one which ended, and is not to be restarted: rather than that
/// nothing runs, the old one goes on.
fn was_relieved_in_vain(state: &State, service: &Service, task: &Task) -> bool {
    let policy = service.spec.task_template.restart();
    let ends = policy.condition != RestartCondition::Any || policy.max_attempts > 0;
    let is_new = |other: &Task| other.id > task.id && other.spec_version == service.spec_version;
    ends && tasks_of(state, place_of(task)).any(|other| is_new(other) && other.status.state.is_terminal())
}

/// Places whose task ended and is not to be restarted.
fn given_up(state: &State, service: &Service) -> Vec<Place> {
    let places: BTreeSet<Place> = state.tasks_of_service(service.id).map(|task| place_of(task)).collect();
    places.into_iter().filter(|place| is_given_up(state, service, *place)).collect()
}

/// Whether the restart policy may be the reason that nothing lives at a place. How attempts are counted is tested
/// elsewhere.
pub(crate) fn is_given_up(state: &State, service: &Service, place: Place) -> bool {
    may_be_given_up(state, service, place) && !tasks_of(state, place).any(|task| task.desired.is_live())
}

/// Whether the restart policy may let a place be: one whose tasks cannot go on is not always filled again.
pub(crate) fn may_be_given_up(state: &State, service: &Service, place: Place) -> bool {
    let policy = service.spec.task_template.restart();
    let Some(newest) = tasks_of(state, place).filter(|task| task.desired != DesiredState::Remove).last() else {
        return false;
    };
    match policy.condition {
        RestartCondition::None => true,
        RestartCondition::OnFailure => policy.max_attempts > 0 || newest.status.state == TaskState::Complete,
        RestartCondition::Any => policy.max_attempts > 0,
    }
}

/// Whether a task runs what its service wants; where it runs may have been decided by an earlier placement.
pub(crate) fn is_up_to_date(state: &State, service: &Service, task: &Task) -> bool {
    let Some(version) = state.spec(task.service, task.spec_version) else { return false };
    let placed_alike = |spec: &ServiceSpec| {
        let mut spec = spec.clone();
        spec.task_template.placement.clone_from(&service.spec.task_template.placement);
        spec
    };
    placed_alike(&version.spec).makes_same_tasks(&service.spec)
}

/// Whether a node could take a task that waits.
pub(crate) fn could_take(state: &State, service: &Service, task: &Task, node: &Node) -> bool {
    let Some(version) = state.spec(task.service, task.spec_version) else { return false };
    // Both what it runs and what its service wants by now have to fit: which of them counts is not for us to say.
    let specs_wanted = [&version.spec, &service.spec];
    if task.node.is_some_and(|bound| bound != node.id) || !specs_wanted.iter().all(|spec| is_eligible(node, spec)) {
        return false;
    }
    let held = || state.tasks_of_node(node.id).filter(|other| other.holds_resources());
    let specs = || held().filter_map(|other| state.spec(other.service, other.spec_version));
    let capacity = node.description.as_ref().map(|d| d.resources.clone()).unwrap_or_default();
    let gpus = pieces_of(held().flat_map(|task| task.generic_resources.iter()), GPU);
    let fits = specs_wanted.into_iter().all(|wanted| {
        let asked = wanted.task_template.reservations();
        let cpus: i64 = specs().map(|v| v.spec.task_template.reservations().nano_cpus).sum();
        let memory: i64 = specs().map(|v| v.spec.task_template.reservations().memory_bytes).sum();
        let is_host = |port: &&PortConfig| port.publish_mode == PublishMode::Host;
        let ports: BTreeSet<u16> = specs()
            .flat_map(|v| v.spec.ports().iter().filter(is_host).map(|port| port.published_port).collect::<Vec<_>>())
            .collect();
        (asked.nano_cpus == 0 || cpus + asked.nano_cpus <= capacity.nano_cpus)
            && (asked.memory_bytes == 0 || memory + asked.memory_bytes <= capacity.memory_bytes)
            && gpus + pieces_of(&asked.generic_resources, GPU) <= pieces_of(&capacity.generic_resources, GPU)
            && wanted.ports().iter().filter(is_host).all(|port| !ports.contains(&port.published_port))
    });
    let most = service.spec.max_replicas_per_node();
    let found = state.tasks_of_node(node.id).filter(|t| t.service == task.service && t.desired.is_live()).count();
    fits && (most == 0 || (found as u64) < most)
}
