//! What of an entry goes into the digest: what became of its transactions, and the objects that it changed.

use swarm_core::{Event, Outcome, Refusal, State};
use swarm_model::{
    Attachment, Cause, NamedObject, NetworkAddr, ObjectKey, PublishedPort, Restored, Revision, Service, ServiceId,
    Task, TaskId, TaskStatus, Timestamp,
};
use xxhash_rust::xxh3::xxh3_128;
use zeroize::Zeroizing;

use super::structure::{NoJson, digest};

/// What an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Cluster,
    Node(swarm_model::NodeId),
    Service(ServiceId),
    Task(TaskId),
    Named(ObjectKey),
    Attachment(TaskId),
}

/// A plain encoding: numbers with the lowest byte first, texts with their length before them.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(super) fn digest(&mut self, digest: u128) {
        self.bytes(&digest.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    fn time(&mut self, Timestamp(ns): Timestamp) {
        self.bytes(&ns.to_le_bytes());
    }

    fn some<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bytes(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn finish(&self) -> u128 {
        xxh3_128(&self.0)
    }
}

/// Writes what became of the transactions of an entry, and what it changed.
pub(super) fn write(out: &mut Writer, state: &State, outcomes: &[Outcome], events: &[Event]) -> Result<(), NoJson> {
    out.time(state.time());
    out.number(outcomes.len() as u64);
    for outcome in outcomes {
        // How a refusal is worded is not agreed on.
        out.bytes(&[match outcome {
            Ok(()) => 0,
            Err(Refusal::NotFound { .. }) => 1,
            Err(Refusal::Exists { .. }) => 2,
            Err(Refusal::OutOfSequence) => 3,
            Err(Refusal::Stale(_)) => 4,
            Err(Refusal::Invalid(_)) => 5,
        }]);
    }
    let mut changed: Vec<Object> = events.iter().filter_map(object).collect();
    changed.sort_unstable();
    changed.dedup();
    for object in changed {
        match object {
            Object::Cluster => {
                out.text("cluster");
                let cluster = state.cluster().map(digest).transpose()?;
                out.some(cluster, Writer::digest);
            }
            Object::Node(id) => {
                out.text("node");
                out.digest(id.0);
                let node = state.node(id).map(digest).transpose()?;
                out.some(node, Writer::digest);
            }
            Object::Service(id) => {
                out.text("service");
                out.digest(id.0);
                let service = state.service(id).map(|found| Ok((&**found, digest(&found.spec)?))).transpose()?;
                out.some(service, |out, (service, spec)| write_service(out, service, spec));
            }
            Object::Task(id) => {
                out.text("task");
                out.digest(id.0);
                let of_kinds = |task: &Task| match &*task.generic_resources {
                    [] => Ok(0),
                    kinds => digest(&kinds),
                };
                let task = state.task(id).map(|found| Ok((&**found, of_kinds(found)?))).transpose()?;
                out.some(task, |out, (task, kinds)| write_task(out, task, kinds));
            }
            Object::Named(key) => {
                out.text(key.kind.as_str());
                out.digest(key.id.0);
                let object = state.object(key).map(|found| Ok((&**found, digest_parts(found)?))).transpose()?;
                out.some(object, |out, (object, parts)| write_named(out, object, parts));
            }
            Object::Attachment(id) => {
                out.text("attachment");
                out.digest(id.0);
                out.some(state.attachment(id), |out, found| write_attachment(out, found));
            }
        }
    }
    Ok(())
}

fn object(event: &Event) -> Option<Object> {
    match *event {
        Event::Cluster => Some(Object::Cluster),
        Event::Node(id) => Some(Object::Node(id)),
        Event::Service(id) => Some(Object::Service(id)),
        Event::Task { task, .. } => Some(Object::Task(task)),
        Event::Object(key) => Some(Object::Named(key)),
        Event::Attachment { attachment, .. } => Some(Object::Attachment(attachment)),
        // Follows from the tasks.
        Event::Room(_) => None,
    }
}

/// The earlier specs came in with changes of their own.
fn write_service(out: &mut Writer, service: &Service, spec_digest: u128) {
    let Service {
        id,
        version,
        created_at,
        updated_at,
        spec: _,
        stamp,
        spec_version,
        previous,
        update,
        revision,
        history,
        job,
        rebalance,
        repeated,
        ports,
        virtual_addrs,
    } = service;
    out.digest(id.0);
    out.number(*version);
    out.time(*created_at);
    out.time(*updated_at);
    out.digest(spec_digest);
    out.number(*stamp);
    out.number(*spec_version);
    out.some(previous.as_ref(), |out, previous| out.number(previous.spec_version));
    // Neither has anything that is no JSON.
    out.digest(digest(update).unwrap_or_default());
    out.digest(digest(job).unwrap_or_default());
    out.number(*revision);
    out.number(history.len() as u64);
    let of_force = history.iter().find(|known| known.number == *revision);
    out.some(of_force, write_authors);
    out.number((*rebalance).into());
    out.number((*repeated).into());
    out.number(ports.len() as u64);
    for PublishedPort { protocol, published, target } in ports.iter() {
        out.number(*protocol as u64);
        out.number((*published).into());
        out.number((*target).into());
    }
    write_addrs(out, virtual_addrs);
}

fn write_addrs(out: &mut Writer, addrs: &[NetworkAddr]) {
    out.number(addrs.len() as u64);
    for NetworkAddr { network, addr } in addrs {
        out.digest(network.0);
        out.text(&addr.to_string());
    }
}

fn write_attachment(out: &mut Writer, attachment: &Attachment) {
    let Attachment { id: _, node, network, addrs, names, is_running } = attachment;
    out.digest(node.0);
    out.digest(network.0);
    out.number(addrs.len() as u64);
    addrs.iter().for_each(|addr| out.text(&addr.to_string()));
    out.number(names.len() as u64);
    names.iter().for_each(|name| out.text(name));
    out.number((*is_running).into());
}

/// The author of a revision, and the author of the last rollback to it.
fn write_authors(out: &mut Writer, revision: &Revision) {
    // An author is nothing but texts.
    out.digest(digest(&revision.by).unwrap_or_default());
    out.some(revision.restored.as_ref(), |out, Restored { at, by }| {
        out.time(*at);
        out.digest(digest(by).unwrap_or_default());
    });
}

fn write_task(out: &mut Writer, task: &Task, generic_resources: u128) {
    let Task {
        id,
        service,
        spec_version,
        slot,
        iteration,
        node,
        cause,
        desired,
        status,
        status_applied_at,
        reached_at,
        version,
        created_at,
        updated_at,
        start_at,
        generic_resources: _,
        restarts,
        addrs,
    } = task;
    out.digest(id.0);
    out.digest(service.0);
    out.number(*spec_version);
    out.number((*slot).into());
    out.some(*iteration, Writer::number);
    out.some(*node, |out, node| out.digest(node.0));
    out.text(match cause {
        Cause::Fill => "fill",
        Cause::Restart => "restart",
        Cause::Update => "update",
        Cause::Move => "move",
    });
    out.text(desired.as_str());
    write_status(out, status);
    out.time(*status_applied_at);
    out.some(*reached_at, Writer::time);
    out.number(*version);
    out.time(*created_at);
    out.time(*updated_at);
    out.some(*start_at, Writer::time);
    out.digest(generic_resources);
    out.number((*restarts).into());
    write_addrs(out, addrs);
}

/// The digests of the labels of an object, and of what it holds: as the log has it, for some of that is never JSON.
fn digest_parts(object: &NamedObject) -> Result<[u128; 2], NoJson> {
    let content = rmp_serde::to_vec_named(&object.content).map(Zeroizing::new);
    let content = content.map_err(|error| NoJson(error.to_string()))?;
    Ok([digest(&object.labels)?, xxh3_128(&content)])
}

fn write_named(out: &mut Writer, object: &NamedObject, [labels_digest, content_digest]: [u128; 2]) {
    let NamedObject { id: _, version, created_at, updated_at, name, labels: _, content: _ } = object;
    out.number(*version);
    out.time(*created_at);
    out.time(*updated_at);
    out.text(name);
    out.digest(labels_digest);
    out.digest(content_digest);
}

fn write_status(out: &mut Writer, status: &TaskStatus) {
    let TaskStatus { state, at, message, err, container, ports } = status;
    out.text(state.as_str());
    out.time(*at);
    out.some(message.as_deref(), Writer::text);
    out.some(err.as_deref(), Writer::text);
    out.some(container.as_deref(), |out, container| {
        out.text(&container.id);
        out.bytes(&container.pid.to_le_bytes());
        out.some(container.exit_code, |out, code| out.bytes(&code.to_le_bytes()));
    });
    out.number(ports.len() as u64);
    for port in &**ports {
        out.text(port.protocol.as_str());
        out.number(port.target_port.into());
        out.number(port.published_port.into());
    }
}
