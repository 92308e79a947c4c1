//! Applying what concerns services.

use std::{collections::BTreeSet, sync::Arc};

use swarm_model::{
    Alike, Author, DesiredState, JobStatus, PreviousSpec, Redacted, Restored, Revision, Service, ServiceId,
    ServiceSpec, SpecVersion, TaskId, UpdateState, UpdateStatus,
};

use super::{Event, before_decisions, not_found, objects, tasks};
use crate::{Outcome, Refusal, State, addresses, ports};

/// From this feature level on, the entry that removes a service leaves it to the leader's plan to stop its tasks: to mark
/// 100,000 tasks in one entry would hold everything else up.
const TASKS_STOPPED_BY_PLAN: u16 = 2;

/// The author and the stamp of a setting of a spec.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    /// The author, if the state keeps authors.
    pub(super) by: Option<&'a Arc<Author>>,
    /// The stamp that the proposer drew.
    pub(super) stamp: Option<u64>,
}

pub(super) fn create(
    state: &mut State,
    id: ServiceId,
    spec: &Arc<ServiceSpec>,
    registry_auth: Option<&Redacted>,
    setting: Setting<'_>,
    events: &mut Vec<Event>,
) -> Outcome {
    let exists = |name: &str| Refusal::Exists { kind: "service".into(), name: name.into() };
    if state.service_by_name(&spec.name).is_some() {
        return Err(exists(&spec.name));
    }
    if state.service(id).is_some() {
        return Err(exists(&id.to_string()));
    }
    ports::check(state, id, spec)?;
    objects::check_named(state, None, spec)?;
    let version = state.revision;
    state.put_spec(Arc::new(SpecVersion {
        service: id,
        version,
        spec: spec.clone(),
        registry_auth: registry_auth.cloned(),
    }));
    state.service_names.insert(spec.name.to_lowercase(), id);
    let mut service = Service {
        id,
        version,
        created_at: state.time,
        updated_at: state.time,
        spec: spec.clone(),
        stamp: setting.stamp.unwrap_or(before_decisions::STAMP_FIRST),
        spec_version: version,
        previous: None,
        update: None,
        revision: 0,
        history: Vec::new(),
        job: spec.mode.is_job().then_some(JobStatus { iteration: 0, last_execution: state.time }),
        rebalance: false,
        repeated: false,
        ports: Arc::default(),
        virtual_addrs: Arc::default(),
    };
    service.record_revision(false, state.time, setting.by.cloned());
    state.index_users(id, None, Some(spec));
    let service = Arc::new(service);
    state.index_ports(None, Some(&service));
    state.services.insert(id, service);
    events.push(Event::Service(id));
    Ok(())
}

/// A new spec of a service, as [`Op::UpdateService`](crate::Op::UpdateService) says it.
pub(super) struct Change<'a> {
    pub(super) spec: &'a Arc<ServiceSpec>,
    pub(super) registry_auth: Option<&'a Redacted>,
    pub(super) alike: Option<Alike>,
    pub(super) setting: Setting<'a>,
}

pub(super) fn update(state: &mut State, id: ServiceId, change: &Change<'_>, events: &mut Vec<Event>) -> Outcome {
    let Change { spec, registry_auth, alike, setting } = *change;
    let old = state.service(id).cloned().ok_or_else(|| not_found("service", id))?;
    if old.spec.name != spec.name {
        return Err(Refusal::Invalid("renaming services is not supported".into()));
    }
    if std::mem::discriminant(&old.spec.mode) != std::mem::discriminant(&spec.mode) {
        return Err(Refusal::Invalid("service mode change is not allowed".into()));
    }
    ports::check(state, id, spec)?;
    objects::check_named(state, Some(&old.spec), spec)?;
    let (revision, time) = (state.revision, state.time);
    let current = state.spec(id, old.spec_version).cloned().expect("a service's current spec version is kept");
    let auth = registry_auth.or(current.registry_auth.as_ref()).filter(|auth| !auth.expose().is_empty()).cloned();
    let says = match alike {
        Some(says) => says,
        None => {
            let says = before_decisions::compare(&old.spec, spec);
            if says.all && auth == current.registry_auth {
                return Ok(());
            }
            says
        }
    };
    // Only template and endpoint make a task dirty (swarm-behaviour §4.1); other changes keep the version.
    let version = if says.tasks { old.spec_version } else { revision };
    state.put_spec(Arc::new(SpecVersion { service: id, version, spec: spec.clone(), registry_auth: auth }));
    let mut service = Service::clone(&old);
    service.spec = spec.clone();
    service.spec_version = version;
    (service.version, service.updated_at) = (revision, time);
    service.repeated = says.all && alike.is_some();
    if service.repeated {
        // The same spec again: no task restarts, no update begins or ends, the way back stays (design §8).
        state.services.insert(id, Arc::new(service));
        events.push(Event::Service(id));
        return Ok(());
    }
    // An update that goes on keeps its state, and one that is paused is not resumed by a label or another number of tasks;
    // otherwise clients must not see that of an earlier one (docker-api §0.7).
    let under_way = service.update.as_ref().map(|update| update.state);
    let is_let_be = |state: UpdateState| state.is_active() || says.policies && state.is_paused();
    let goes_on = says.tasks && under_way.is_some_and(is_let_be);
    if !says.all {
        // The way back from an update stays while that goes on, and when it was paused: what it brought does not run.
        let leads_back = goes_on || under_way == Some(UpdateState::Paused);
        service.previous = service.previous.filter(|_| leads_back).or_else(|| Some(present(&old)));
        service.record_revision(says.all_but_replicas, time, setting.by.cloned());
    }
    if !goes_on {
        service.update = None;
    }
    service.stamp = setting.stamp.unwrap_or_else(|| before_decisions::next_stamp(&old, true));
    store(state, &old, service, events);
    Ok(())
}

/// Stores a service whose spec was set and forgets spec versions that nothing refers to any more. A job whose tasks are to be
/// other ones runs again; it has no rolling updates (swarm-behaviour §3.4).
fn store(state: &mut State, old: &Service, mut new: Service, events: &mut Vec<Event>) {
    let id = new.id;
    debug_assert_ne!(new.stamp, old.stamp, "each time that the spec is set is another one");
    if let Some(job) = &mut new.job {
        new.update = None;
        if new.spec_version != old.spec_version {
            *job = JobStatus { iteration: job.iteration + 1, last_execution: state.time };
        }
    }
    state.index_users(id, Some(&old.spec), Some(&new.spec));
    ports::release(&mut new);
    addresses::release(&mut new);
    let new = Arc::new(new);
    state.index_ports(Some(old), Some(&new));
    state.follow_service_addrs(Some(old), Some(&new));
    state.services.insert(id, new);
    forget_specs(state, old);
    events.push(Event::Service(id));
}

/// Forgets the spec versions of a service as it was, as far as nothing refers to them any more.
fn forget_specs(state: &mut State, old: &Service) {
    let of_history = old.history.iter().map(|revision| revision.spec_version);
    let of_previous = old.previous.iter().map(|previous| previous.spec_version);
    // Mostly one and the same: a change of labels or of the number of replicas is no new version.
    let versions: BTreeSet<u64> = of_history.chain(of_previous).chain([old.spec_version]).collect();
    versions.into_iter().for_each(|version| state.forget_spec(old.id, version));
}

/// What a service is now, as what it was before a change.
fn present(service: &Service) -> PreviousSpec {
    PreviousSpec { spec: service.spec.clone(), spec_version: service.spec_version, revision: service.revision }
}

/// What a rollback goes back to.
pub(crate) fn earlier(service: &Service, to: Option<u64>) -> Result<PreviousSpec, Refusal> {
    let name = &service.spec.name;
    let Some(number) = to else {
        let none = || Refusal::Invalid(format!("service {name} does not have a previous spec"));
        return service.previous.clone().ok_or_else(none);
    };
    if number == service.revision {
        return Err(Refusal::Invalid(format!("service {name} is at version {number} already")));
    }
    match service.history.iter().find(|revision| revision.number == number) {
        Some(Revision { spec, spec_version, number, .. }) => {
            Ok(PreviousSpec { spec: spec.clone(), spec_version: *spec_version, revision: *number })
        }
        None => {
            let kept: Vec<String> = service.history.iter().map(|revision| revision.number.to_string()).collect();
            let kept = kept.join(", ");
            Err(Refusal::Invalid(format!("service {name} has no version {number}; kept are {kept}")))
        }
    }
}

/// The way back to an earlier spec, as [`Op::RollBack`](crate::Op::RollBack) says it.
pub(super) struct RollBack<'a> {
    pub(super) keep_previous: bool,
    pub(super) message: &'a Arc<str>,
    pub(super) to: Option<u64>,
    pub(super) setting: Setting<'a>,
}

pub(super) fn roll_back(state: &mut State, id: ServiceId, change: &RollBack<'_>, events: &mut Vec<Event>) -> Outcome {
    let RollBack { keep_previous, message, to, setting } = *change;
    let old = state.service(id).cloned().ok_or_else(|| not_found("service", id))?;
    let target = earlier(&old, to)?;
    ports::check(state, id, &target.spec)?;
    let mut service = Service::clone(&old);
    service.previous = keep_previous.then(|| present(&old));
    service.stamp = setting.stamp.unwrap_or_else(|| before_decisions::next_stamp(&old, keep_previous));
    // The version may have been kept through a change that touched no task, such as one of labels.
    if let Some(version) = state.spec(id, target.spec_version).cloned() {
        state.put_spec(Arc::new(SpecVersion { spec: target.spec.clone(), ..SpecVersion::clone(&version) }));
    }
    service.repeated = false;
    service.spec = target.spec;
    service.spec_version = target.spec_version;
    service.revision = target.revision;
    (service.version, service.updated_at) = (state.revision, state.time);
    let restored = setting.by.map(|by| Restored { at: state.time, by: by.clone() });
    if let Some(revision) = service.history.iter_mut().find(|revision| revision.number == target.revision) {
        revision.restored = restored.or(revision.restored.take());
    }
    service.update = Some(UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: state.time,
        completed_at: None,
        message: message.clone(),
        slots: 0,
        failed: Default::default(),
    });
    store(state, &old, service, events);
    Ok(())
}

pub(super) fn set_update(state: &mut State, id: ServiceId, update: &UpdateStatus, events: &mut Vec<Event>) -> Outcome {
    let (revision, time) = (state.revision, state.time);
    let service = state.services.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found("service", id))?;
    // A new state moves the version that `?version=` guards; mere progress does not (design §4.2).
    if service.update.as_ref().map(|u| u.state) != Some(update.state) {
        (service.version, service.updated_at) = (revision, time);
    }
    service.update = Some(update.clone());
    events.push(Event::Service(id));
    Ok(())
}

pub(super) fn set_rebalance(state: &mut State, id: ServiceId, asked: bool, events: &mut Vec<Event>) -> Outcome {
    let service = state.services.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found("service", id))?;
    service.rebalance = asked;
    events.push(Event::Service(id));
    Ok(())
}

pub(super) fn remove(state: &mut State, id: ServiceId, events: &mut Vec<Event>) -> Outcome {
    let service = state.services.remove(&id).ok_or_else(|| not_found("service", id))?;
    state.service_names.remove(&service.spec.name.to_lowercase());
    state.index_users(id, Some(&service.spec), None);
    state.index_ports(Some(&service), None);
    state.follow_service_addrs(Some(&service), None);
    if state.feature_level() < TASKS_STOPPED_BY_PLAN {
        let tasks: Vec<TaskId> = state.tasks_of_service(id).map(|task| task.id).collect();
        tasks.iter().for_each(|task| tasks::set_desired(state, *task, DesiredState::Remove, events));
    }
    forget_specs(state, &service);
    events.push(Event::Service(id));
    Ok(())
}
