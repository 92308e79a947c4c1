//! What a service reserves, and what a node has left.

use std::collections::BTreeMap;

use swarm_model::{GenericResource, Node, NodeResources, ResourceReservations, format_bytes, format_cpus};

use crate::State;

/// Amounts by kind: `memory` in bytes, `CPUs` in billionths, and the kinds of generic resources.
pub(super) type Amounts = BTreeMap<String, i64>;

const MEMORY: &str = "memory";
const CPUS: &str = "CPUs";
/// In billionths.
const ONE_CPU: i64 = 1_000_000_000;

/// What a task reserves.
pub(super) fn asked(reservations: &ResourceReservations) -> Amounts {
    amounts(reservations.nano_cpus, reservations.memory_bytes, &reservations.generic_resources)
}

/// What a node has.
pub(super) fn capacity(node: &Node) -> Amounts {
    let none = NodeResources::default();
    let has = node.description.as_ref().map_or(&none, |description| &description.resources);
    amounts(has.nano_cpus, has.memory_bytes, &has.generic_resources)
}

/// What the tasks of a node hold of it.
fn held(state: &State, node: &Node) -> Amounts {
    let mut sum = Amounts::new();
    for task in state.tasks_of_node(node.id).filter(|task| task.holds_resources()) {
        let Some(spec) = state.spec(task.service, task.spec_version) else { continue };
        for (kind, amount) in asked(&spec.spec.task_template.reservations()) {
            *sum.entry(kind).or_default() += amount;
        }
    }
    sum
}

/// What a node has left of a kind.
pub(super) fn free(state: &State, node: &Node, kind: &str) -> i64 {
    let of = |amounts: Amounts| amounts.get(kind).copied().unwrap_or(0);
    of(capacity(node)).saturating_sub(of(held(state, node))).max(0)
}

fn amounts(nano_cpus: i64, memory_bytes: i64, generic: &[GenericResource]) -> Amounts {
    let mut amounts = Amounts::new();
    let generic = generic.iter().map(|resource| match resource {
        GenericResource::Discrete { kind, value } => (kind.as_str(), *value),
        GenericResource::Named { kind, .. } => (kind.as_str(), 1),
    });
    for (kind, amount) in [(MEMORY, memory_bytes), (CPUS, nano_cpus)].into_iter().chain(generic) {
        if amount != 0 {
            let sum = amounts.entry(kind.to_owned()).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    amounts
}

/// An amount for people: `1.5GiB of memory`, `0.5 CPUs`, `2 SSD`.
pub(super) fn show(kind: &str, amount: i64) -> String {
    match kind {
        MEMORY => format!("{} of memory", format_bytes(amount)),
        CPUS if amount == ONE_CPU => "1 CPU".to_owned(),
        CPUS => format!("{} CPUs", format_cpus(amount)),
        generic => format!("{amount} {generic}"),
    }
}

/// An amount without its kind.
pub(super) fn show_amount(kind: &str, amount: i64) -> String {
    match kind {
        MEMORY => format_bytes(amount),
        CPUS => format_cpus(amount),
        _ => amount.to_string(),
    }
}

/// The flag of `service update` that asks for no more than is free; none if nothing is.
pub(super) fn flag(kind: &str, memory_bytes: i64, free: i64) -> Option<String> {
    match kind {
        MEMORY if memory_bytes > 0 => Some(format!("--reserve-memory {}", memory_flag(memory_bytes))),
        CPUS if free > 0 => Some(format!("--reserve-cpu {}", format_cpus(free))),
        _ => None,
    }
}

/// Whole MiB as the flag reads them, exactly.
fn memory_flag(bytes: i64) -> String {
    let mib = bytes >> 20;
    if mib % 1024 == 0 { format!("{}g", mib / 1024) } else { format!("{mib}m") }
}
