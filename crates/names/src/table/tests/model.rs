//! The table against a naive model, through random changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proptest::{collection::vec, prelude::*, sample::select};
use rand::{SeedableRng, rngs::StdRng};
use swarm_model::{NodeId, ObjectId, ServiceId, TaskId};
use swarm_wire::networks::{NetworkEndpointRecord, NetworkEndpointState, NetworkRecord, NetworkServiceRecord};

use super::{super::*, container, network, service, task_name};

/// Names that services, tasks and containers share, so that they get into each other's way.
const NAMES: [&str; 5] = ["a", "B", "c", "tasks.a", "a.n1"];

#[derive(Clone, Debug)]
enum Change {
    PutNetwork(ObjectId, bool),
    RemoveNetwork(ObjectId),
    Ready(ObjectId, bool),
    PutService(ObjectId, NetworkServiceRecord),
    RemoveService(ObjectId, ServiceId),
    PutTask(ObjectId, NetworkEndpointRecord),
    RemoveTask(ObjectId, TaskId),
    PutContainer(ContainerNames),
    RemoveContainer(String),
}

/// The records as they were given.
#[derive(Debug, Default)]
struct Model {
    networks: BTreeMap<ObjectId, NetworkRecord>,
    ready: BTreeSet<ObjectId>,
    services: BTreeMap<(ObjectId, ServiceId), NetworkServiceRecord>,
    tasks: BTreeMap<(ObjectId, TaskId), NetworkEndpointRecord>,
    containers: BTreeMap<String, ContainerNames>,
}

/// The records of one rank that have a name in a network.
#[derive(Debug, Default)]
struct Said {
    is_known: bool,
    is_service: bool,
    virtual_addrs: BTreeSet<IpAddr>,
    addrs: BTreeSet<IpAddr>,
}

impl Model {
    fn change(&mut self, change: Change) {
        match change {
            Change::PutNetwork(id, internal) => {
                self.networks.insert(id, network(id, &format!("N{}", id.0), internal));
            }
            Change::RemoveNetwork(id) => {
                self.networks.remove(&id);
                self.ready.remove(&id);
                self.services.retain(|(network, _), _| *network != id);
                self.tasks.retain(|(network, _), _| *network != id);
            }
            Change::Ready(id, true) => drop(self.ready.insert(id)),
            Change::Ready(id, false) => drop(self.ready.remove(&id)),
            Change::PutService(network, record) => drop(self.services.insert((network, record.id), record)),
            Change::RemoveService(network, id) => drop(self.services.remove(&(network, id))),
            Change::PutTask(network, record) => drop(self.tasks.insert((network, record.task), record)),
            Change::RemoveTask(network, id) => drop(self.tasks.remove(&(network, id))),
            Change::PutContainer(container) => drop(self.containers.insert(container.container.clone(), container)),
            Change::RemoveContainer(id) => drop(self.containers.remove(&id)),
        }
    }

    fn is_in(&self, network: ObjectId, task: TaskId) -> bool {
        self.tasks.get(&(network, task)).is_some_and(|task| task.state == NetworkEndpointState::In)
    }

    fn tasks_of(&self, network: ObjectId, service: ServiceId) -> impl Iterator<Item = IpAddr> {
        self.tasks
            .iter()
            .filter(move |((of, _), task)| *of == network && task.service == Some(service))
            .filter(|(_, task)| task.state == NetworkEndpointState::In)
            .flat_map(|(_, task)| task.addrs.clone())
    }

    /// The records that have a name, the strongest first.
    fn ranks(&self, network: ObjectId, name: &str, use_virtual_addrs: bool) -> [Said; 4] {
        let has = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        let mut ranks: [Said; 4] = Default::default();
        for ((of, id), service) in &self.services {
            for rank in [0, 1] {
                let names = if rank == 0 { std::slice::from_ref(&service.name) } else { &service.aliases[..] };
                if *of == network && has(names) {
                    let said = &mut ranks[rank];
                    said.is_known = true;
                    said.is_service = true;
                    if use_virtual_addrs && !service.virtual_addrs.is_empty() {
                        said.virtual_addrs.extend(service.virtual_addrs.clone());
                    } else {
                        said.addrs.extend(self.tasks_of(network, *id));
                    }
                }
            }
        }
        for ((of, id), task) in &self.tasks {
            let is_slot = task.names.iter().any(|full| full.to_lowercase() == format!("{name}.{id}"));
            if *of == network && (has(&task.names) || is_slot) {
                ranks[2].is_known = true;
                if task.state == NetworkEndpointState::In {
                    ranks[2].addrs.extend(task.addrs.clone());
                }
            }
        }
        for container in self.containers.values() {
            for part in &container.networks {
                if part.network == network && has(&part.names) {
                    ranks[3].is_known = true;
                    if container.task.is_none_or(|task| self.is_in(network, task)) {
                        ranks[3].addrs.extend(part.addrs.clone());
                    }
                }
            }
        }
        ranks
    }

    /// The records that have a name in the networks of a container, the strongest first.
    fn said(&self, container: &ContainerNames, name: &str) -> Vec<Said> {
        let use_virtual_addrs = container.virtual_addrs != VirtualAddrs::Missing;
        let mut all = Vec::new();
        let plain = container.networks.iter().map(|part| (part.network, Some(name)));
        let qualified = container.networks.iter().map(|part| {
            let suffix = format!(".n{}", part.network.0);
            (part.network, name.strip_suffix(suffix.as_str()))
        });
        for (network, name) in plain.chain(qualified) {
            let Some(name) = name else { continue };
            if let Some(service) = name.strip_prefix("tasks.") {
                let [by_name, by_alias, ..] = self.ranks(network, service, false);
                all.extend([by_name, by_alias]);
            }
            all.extend(self.ranks(network, name, use_virtual_addrs));
        }
        all
    }

    fn answer(&self, id: &str, question: Question<'_>) -> Answer {
        let Some(container) = self.containers.get(id) else { return Answer::NoContainer };
        let is_ready =
            |part: &ContainerNetwork| self.ready.contains(&part.network) && self.networks.contains_key(&part.network);
        if !container.networks.iter().all(is_ready) {
            return Answer::Unready;
        }
        let said = self.said(container, question.name);
        let is_last = |said: &&Said| said.is_service || !said.addrs.is_empty() || !said.virtual_addrs.is_empty();
        let Some(first) = said.iter().find(is_last).or_else(|| said.iter().find(|said| said.is_known)) else {
            let is_internal = |part: &ContainerNetwork| self.networks[&part.network].internal;
            return match container.networks.is_empty() || !container.networks.iter().all(is_internal) {
                true => Answer::Forward(container.nameservers.clone()),
                false => Answer::Missing,
            };
        };
        if container.virtual_addrs == VirtualAddrs::Loading && !first.virtual_addrs.is_empty() {
            return Answer::Unready;
        }
        let addrs = first.virtual_addrs.union(&first.addrs).copied();
        let addrs: Vec<_> = match question.kind {
            Kind::A => addrs.filter(IpAddr::is_ipv4).collect(),
            Kind::Aaaa => addrs.filter(IpAddr::is_ipv6).collect(),
            _ => addrs.collect(),
        };
        Answer::Addrs { addrs, ttl_s: 0 }
    }
}

fn apply(table: &mut NamesTable, change: Change) {
    match change {
        Change::PutNetwork(id, internal) => table.put_network(network(id, &format!("N{}", id.0), internal)),
        Change::RemoveNetwork(id) => table.remove_network(id),
        Change::Ready(id, is_ready) => table.set_ready(id, is_ready),
        Change::PutService(network, record) => table.put_service(network, record),
        Change::RemoveService(network, id) => table.remove_service(network, id),
        Change::PutTask(network, record) => table.put_endpoint(network, record),
        Change::RemoveTask(network, id) => table.remove_endpoint(network, id),
        Change::PutContainer(container) => table.put_container(container),
        Change::RemoveContainer(id) => table.remove_container(&id),
    }
}

fn some_network() -> impl Strategy<Value = ObjectId> {
    (1..3_u128).prop_map(ObjectId)
}

fn some_names() -> impl Strategy<Value = Vec<String>> {
    vec(select(&NAMES[..]).prop_map(String::from), 0..3)
}

/// Addresses that belong to the task of this number, and to nobody else.
fn task_addrs(task: u128) -> Vec<IpAddr> {
    [format!("10.1.1.{task}"), format!("fd00::{task}")][..usize::from(task == 1) + 1]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect()
}

fn some_task() -> impl Strategy<Value = NetworkEndpointRecord> {
    let states = [
        NetworkEndpointState::In,
        NetworkEndpointState::In,
        NetworkEndpointState::Starting,
        NetworkEndpointState::Draining,
        NetworkEndpointState::Gone,
    ];
    (1..5_u128, 0..4_u128, select(states.to_vec()), some_names()).prop_map(|(task, service, state, mut names)| {
        names.push(task_name(task, "a"));
        NetworkEndpointRecord {
            task: TaskId(task),
            // An attached container has no service.
            service: (service > 0).then_some(ServiceId(service)),
            node: NodeId(1),
            addrs: task_addrs(task),
            names,
            state,
        }
    })
}

fn some_service() -> impl Strategy<Value = NetworkServiceRecord> {
    (1..4_u128, select(&NAMES[..3]), some_names(), any::<bool>()).prop_map(|(id, name, aliases, is_dnsrr)| {
        let virtual_addr = format!("10.1.0.{}", 200 + id);
        let aliases: Vec<_> = aliases.iter().map(String::as_str).collect();
        let virtual_addrs = [virtual_addr.as_str()];
        service(ServiceId(id), name, &aliases, if is_dnsrr { &[] } else { &virtual_addrs })
    })
}

fn some_container() -> impl Strategy<Value = ContainerNames> {
    let virtual_addrs = [VirtualAddrs::Missing, VirtualAddrs::Loading, VirtualAddrs::Loaded];
    let networks = select(vec![vec![1], vec![2], vec![1, 2], vec![2, 1], vec![]]);
    (1..4_u128, networks, some_names(), any::<bool>(), select(virtual_addrs.to_vec())).prop_map(
        |(number, networks, names, has_task, virtual_addrs)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let networks: Vec<(_, _, &[&str])> =
                networks.iter().map(|id| (ObjectId(*id), format!("10.{id}.2.{number}"), &names[..])).collect();
            let networks: Vec<_> = networks.iter().map(|(id, at, names)| (*id, at.as_str(), *names)).collect();
            let mut container = container(&format!("c{number}"), &networks);
            container.virtual_addrs = virtual_addrs;
            if has_task {
                container.task = Some(TaskId(number));
                for part in &mut container.networks {
                    part.addrs = task_addrs(number);
                }
            }
            container
        },
    )
}

fn some_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (some_network(), any::<bool>()).prop_map(|(id, internal)| Change::PutNetwork(id, internal)),
        1 => some_network().prop_map(Change::RemoveNetwork),
        3 => (some_network(), prop::bool::weighted(0.8)).prop_map(|(id, is_ready)| Change::Ready(id, is_ready)),
        4 => (some_network(), some_service()).prop_map(|(id, record)| Change::PutService(id, record)),
        1 => (some_network(), 1..4_u128).prop_map(|(id, service)| Change::RemoveService(id, ServiceId(service))),
        6 => (some_network(), some_task()).prop_map(|(id, record)| Change::PutTask(id, record)),
        1 => (some_network(), 1..5_u128).prop_map(|(id, task)| Change::RemoveTask(id, TaskId(task))),
        4 => some_container().prop_map(Change::PutContainer),
        1 => (1..4_u128).prop_map(|n| Change::RemoveContainer(format!("c{n}"))),
    ]
}

/// All names that may be known, and some that are not.
fn all_names() -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().map(|name| name.to_lowercase()).collect();
    names.extend(["tasks.b", "tasks.c", "other", "n1"].map(String::from));
    for task in 1..5 {
        names.push(task_name(task, "a"));
        names.push(format!("a.{task}"));
    }
    let qualified: Vec<_> = names.iter().flat_map(|name| [format!("{name}.n1"), format!("{name}.n2")]).collect();
    names.extend(qualified);
    names
}

/// The answer without what the model does not say: the order of addresses and their time to live.
fn plain(mut answer: Answer) -> Answer {
    if let Answer::Addrs { addrs, ttl_s } = &mut answer {
        addrs.sort();
        *ttl_s = 0;
    }
    answer
}

fn ready_networks() -> [Change; 4] {
    [1, 2]
        .map(ObjectId)
        .map(|id| [Change::PutNetwork(id, id.0 == 2), Change::Ready(id, true)])
        .concat()
        .try_into()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_table_answers_as_a_naive_model(changes in vec(some_change(), 1..40)) {
        let mut table = NamesTable::default();
        let mut model = Model::default();
        let mut random = StdRng::seed_from_u64(1);
        let names = all_names();
        for change in ready_networks().into_iter().chain(changes) {
            apply(&mut table, change.clone());
            model.change(change);
            for container in ["c1", "c2", "c3"] {
                for name in &names {
                    for kind in [Kind::A, Kind::Aaaa, Kind::Any] {
                        let question = Question { name, kind };
                        let answer = plain(table.answer(container, question, &mut random));
                        prop_assert_eq!(answer, model.answer(container, question), "{} asks for {}", container, name);
                    }
                }
            }
        }
    }

    /// The sampler: no answer shows a task that is not `In`, by address or by name.
    #[test]
    fn no_answer_shows_a_task_that_is_not_in(changes in vec(some_change(), 1..60)) {
        let mut table = NamesTable::default();
        let mut model = Model::default();
        let mut random = StdRng::seed_from_u64(1);
        let names = all_names();
        for change in ready_networks().into_iter().chain(changes) {
            apply(&mut table, change.clone());
            model.change(change);
            for container in ["c1", "c2", "c3"] {
                for task in 1..5 {
                    if [1, 2].map(ObjectId).iter().any(|network| model.is_in(*network, TaskId(task))) {
                        continue;
                    }
                    let hidden = task_addrs(task);
                    for name in &names {
                        let answer = table.answer(container, Question { name, kind: Kind::Any }, &mut random);
                        if let Answer::Addrs { addrs, .. } = answer {
                            prop_assert!(!addrs.iter().any(|addr| hidden.contains(addr)), "{name} shows task {task}");
                        }
                    }
                    for addr in hidden {
                        let answer = table.answer(container, Question { name: "", kind: Kind::Ptr(addr) }, &mut random);
                        prop_assert!(!matches!(answer, Answer::Name { .. }), "{addr} of task {task} has a name");
                    }
                }
            }
        }
    }
}
