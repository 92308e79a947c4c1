//! What agents report, gathered into few log entries: the newest status of each task, the newest state of each node.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use swarm_core::{ENTRY_TXS_MAX, Op, State, Tx};
use swarm_model::{ContainerStatus, NodeDescription, NodeId, NodeStatus, PortStatus, TaskId, TaskStatus};
use swarm_wire::agent::TaskReport;

/// How long reports are gathered before they are proposed (Swarm: 100 ms): short beside the start of a container.
pub const FLUSH_DELAY: Duration = Duration::from_millis(10);

/// Reports in one entry (swarm-behaviour §6.1).
pub const FLUSH_ITEMS_MAX: usize = 10_000;

/// Bytes after which an entry takes no further batch. The last batch may go over it by [`BATCH_BYTES_MAX`].
const FLUSH_BYTES: usize = 1 << 20;

/// Bytes of one batch: an entry with it must stay below what consensus takes, or one agent could make the reports of
/// all others fail. A full batch of the longest texts stays below it.
const BATCH_BYTES_MAX: usize = 5 << 19;

const _: () = assert!(FLUSH_BYTES + BATCH_BYTES_MAX < swarm_consensus::ENTRY_BYTES_MAX);

/// Bytes of a message or an error that are kept of a report: enough for a person, and a batch of the longest ones
/// still fits an entry.
pub const REPORT_TEXT_MAX: usize = 1024;

/// Open ports that are kept of a report; a container with more of them in host mode is a mistake.
const REPORT_PORTS_MAX: usize = 64;

/// Bytes of a container id that are kept of a report; the engine's have 64.
const CONTAINER_ID_MAX: usize = 128;

/// Bytes of a report besides its texts, about.
const REPORT_BYTES: usize = 128;

/// Bytes of a node report besides its description, about.
const NODE_BYTES: usize = 256;

/// Who waits for what became of a report: `true` once it is committed and applied, `false` if it is not known to be.
pub type Waiter = Box<dyn FnOnce(bool) + Send>;

/// Gathers reports. What takes long is bounded by the senders: each waits for its answers.
#[derive(Default)]
pub struct Reports {
    nodes: BTreeMap<NodeId, NodeReport>,
    batches: VecDeque<Batch>,
    items: usize,
}

struct NodeReport {
    status: NodeStatus,
    description: Option<Arc<NodeDescription>>,
    waiters: Vec<Waiter>,
}

struct Batch {
    node: NodeId,
    reports: Vec<TaskReport>,
    waiter: Waiter,
}

/// One entry, and who waits for it.
#[derive(Default)]
pub struct Flush {
    /// The transactions, one for each node.
    pub txs: Vec<Tx>,
    /// Who waits for which of them.
    waiters: Vec<(usize, Waiter)>,
}

impl Flush {
    /// Tells those who wait. `stood` says of a transaction whether it is committed and did not fall.
    pub fn answer(self, stood: impl Fn(usize) -> bool) {
        for (tx, waiter) in self.waiters {
            waiter(stood(tx));
        }
    }
}

impl Reports {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.batches.is_empty()
    }

    /// Whether there is enough for an entry, so that waiting for more gains nothing.
    pub fn is_full(&self) -> bool {
        self.items >= FLUSH_ITEMS_MAX
    }

    /// A node came, went or changed. The newest report of a node replaces one that still waits.
    pub fn node(
        &mut self,
        node: NodeId,
        status: NodeStatus,
        description: Option<Arc<NodeDescription>>,
        waiter: Option<Waiter>,
    ) {
        let report = self.nodes.entry(node).or_insert_with(|| NodeReport {
            status: NodeStatus::default(),
            description: None,
            waiters: Vec::new(),
        });
        report.status = status;
        report.description = description.or(report.description.take());
        report.waiters.extend(waiter);
    }

    /// Statuses of a node's tasks, [`trimmed`]. What the state knows already is left out; if nothing is left the waiter is told
    /// at once.
    pub fn tasks(&mut self, state: &State, node: NodeId, mut reports: Vec<TaskReport>, waiter: Waiter) {
        reports.retain(|report| {
            state.task(report.task).is_some_and(|task| task.node == Some(node) && task.status != report.status)
        });
        if reports.is_empty() {
            return waiter(true);
        }
        self.items += reports.len();
        self.batches.push_back(Batch { node, reports, waiter });
    }

    /// Takes what fits one entry, in the order in which it came; nodes first.
    pub fn take(&mut self) -> Option<Flush> {
        let mut flush = Flush::default();
        let mut bytes = 0;
        while bytes < FLUSH_BYTES
            && flush.txs.len() < ENTRY_TXS_MAX
            && let Some((node, NodeReport { status, description, waiters })) = self.nodes.pop_first()
        {
            bytes += NODE_BYTES + description.as_ref().map_or(0, |d| encoded_bytes(d));
            flush.waiters.extend(waiters.into_iter().map(|waiter| (flush.txs.len(), waiter)));
            flush.txs.push(Tx::new(vec![Op::ReportNode { node, status, description }]));
        }

        let mut newest: BTreeMap<NodeId, (usize, BTreeMap<TaskId, TaskStatus>)> = BTreeMap::new();
        let mut items = 0;
        while bytes < FLUSH_BYTES
            && items < FLUSH_ITEMS_MAX
            && let Some(batch) = self.batches.front()
        {
            let next = flush.txs.len() + newest.len();
            if next >= ENTRY_TXS_MAX && !newest.contains_key(&batch.node) {
                break;
            }
            let Some(batch) = self.batches.pop_front() else { break };
            items += batch.reports.len();
            let (tx, statuses) = newest.entry(batch.node).or_insert_with(|| (next, BTreeMap::new()));
            flush.waiters.push((*tx, batch.waiter));
            for report in batch.reports {
                bytes += report_bytes(&report.status);
                statuses.insert(report.task, report.status);
            }
        }
        self.items -= items;
        let mut by_place: Vec<_> = newest.into_iter().map(|(node, (tx, statuses))| (tx, node, statuses)).collect();
        by_place.sort_unstable_by_key(|(tx, ..)| *tx);
        flush.txs.extend(by_place.into_iter().map(|(_, node, statuses)| {
            Tx::new(vec![Op::ReportTasks { node, reports: statuses.into_iter().collect() }])
        }));
        (!flush.txs.is_empty()).then_some(flush)
    }
}

/// Bytes of a description in an entry.
pub(super) fn encoded_bytes(description: &NodeDescription) -> usize {
    rmp_serde::to_vec_named(description).map_or(0, |bytes| bytes.len())
}

fn report_bytes(status: &TaskStatus) -> usize {
    let text = |t: &Option<Arc<str>>| t.as_ref().map_or(0, |t| t.len());
    REPORT_BYTES
        + text(&status.message)
        + text(&status.err)
        + status.container.as_ref().map_or(0, |c| 48 + c.id.len())
        + status.ports.len() * 64
}

/// Cuts what is longer than in any honest report: an agent's errors hold what an image's author wrote.
///
/// # Errors
/// The size of a batch that is too large all the same.
pub(super) fn trimmed(mut reports: Vec<TaskReport>) -> Result<Vec<TaskReport>, usize> {
    let mut bytes = 0;
    for TaskReport { status, .. } in &mut reports {
        for text in [&mut status.message, &mut status.err].into_iter().flatten() {
            if text.len() > REPORT_TEXT_MAX {
                *text = format!("{}…", start(text, REPORT_TEXT_MAX - '…'.len_utf8())).into();
            }
        }
        if status.ports.len() > REPORT_PORTS_MAX {
            status.ports = status.ports.iter().take(REPORT_PORTS_MAX).cloned().collect::<Arc<[PortStatus]>>();
        }
        if let Some(container) = status.container.as_ref().filter(|c| c.id.len() > CONTAINER_ID_MAX) {
            let id = start(&container.id, CONTAINER_ID_MAX).to_owned();
            status.container = Some(Arc::new(ContainerStatus { id, ..ContainerStatus::clone(container) }));
        }
        bytes += report_bytes(status);
    }
    if bytes > BATCH_BYTES_MAX { Err(bytes) } else { Ok(reports) }
}

/// The start of a text, at most so many bytes of it.
fn start(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use swarm_model::{NodeState, TaskState, Timestamp};

    use super::*;
    use crate::testing::{World, task_id};

    fn report(n: u32, state: TaskState) -> TaskReport {
        TaskReport { task: task_id(n), status: TaskStatus::new(state, Timestamp(9)) }
    }

    /// A world with tasks 0 and 1 on node 1, and 2 on node 2.
    fn world() -> World {
        let mut world = World::new(2);
        let service = world.service("web");
        for (n, node) in [(0, 1), (1, 1), (2, 2)] {
            world.task(service, n, NodeId(node));
        }
        world
    }

    fn waiter(name: &'static str, to: &mpsc::Sender<(&'static str, bool)>) -> Waiter {
        let to = to.clone();
        Box::new(move |ok| to.send((name, ok)).expect("somebody listens"))
    }

    #[test]
    fn the_newest_status_of_a_task_is_proposed_once_and_all_batches_are_answered() {
        let (world, mut reports, (tx, rx)) = (world(), Reports::default(), mpsc::channel());
        let mut say = |name, node, items| reports.tasks(&world.state, NodeId(node), items, waiter(name, &tx));
        say("a", 1, vec![report(0, TaskState::Accepted), report(1, TaskState::Accepted)]);
        say("b", 2, vec![report(2, TaskState::Running)]);
        say("c", 1, vec![report(0, TaskState::Running)]);
        let flush = reports.take().unwrap();
        let of = |n, state| (task_id(n), TaskStatus::new(state, Timestamp(9)));
        assert_eq!(
            flush.txs,
            [
                Tx::new(vec![Op::ReportTasks {
                    node: NodeId(1),
                    reports: vec![of(0, TaskState::Running), of(1, TaskState::Accepted)]
                }]),
                Tx::new(vec![Op::ReportTasks { node: NodeId(2), reports: vec![of(2, TaskState::Running)] }]),
            ]
        );
        assert!(reports.is_empty() && reports.take().is_none());
        assert!(rx.try_recv().is_err(), "nobody is answered before the commit");
        flush.answer(|tx| tx == 0);
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [("a", true), ("b", false), ("c", true)]);
    }

    #[test]
    fn what_is_known_or_of_another_node_is_answered_and_not_proposed() {
        let (mut world, mut reports, (tx, rx)) = (world(), Reports::default(), mpsc::channel());
        let status = TaskStatus::new(TaskState::Running, Timestamp(9));
        world.apply(Op::ReportTasks { node: NodeId(1), reports: vec![(task_id(0), status)] });
        let known = vec![report(0, TaskState::Running), report(2, TaskState::Failed), report(99, TaskState::Failed)];
        reports.tasks(&world.state, NodeId(1), known, waiter("known", &tx));
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [("known", true)]);
        assert!(reports.take().is_none());
    }

    #[test]
    fn the_newest_report_of_a_node_wins_and_keeps_the_description() {
        let (mut reports, (tx, rx)) = (Reports::default(), mpsc::channel());
        let status = |state| NodeStatus { state, ..NodeStatus::default() };
        let description = Arc::new(NodeDescription { hostname: "h".into(), ..NodeDescription::default() });
        let ready = waiter("ready", &tx);
        reports.node(NodeId(1), status(NodeState::Ready), Some(description.clone()), Some(ready));
        reports.node(NodeId(1), status(NodeState::Down), None, None);
        let flush = reports.take().unwrap();
        let op = Op::ReportNode { node: NodeId(1), status: status(NodeState::Down), description: Some(description) };
        assert_eq!(flush.txs, [Tx::new(vec![op])]);
        flush.answer(|_| true);
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [("ready", true)]);
    }

    #[test]
    fn entries_are_bounded_and_a_flood_of_one_node_keeps_nobody_waiting_longer_than_one_entry() {
        let mut world = World::new(2);
        let service = world.service("web");
        for n in 0..1_000 {
            world.task(service, n, NodeId(1));
        }
        world.task(service, 1_000, NodeId(2));
        let (mut reports, (tx, rx)) = (Reports::default(), mpsc::channel());
        for round in 0..40 {
            let mut all: Vec<_> = (0..1_000).map(|n| report(n, TaskState::Running)).collect();
            all.iter_mut().for_each(|r| r.status.err = Some("x".repeat(1 << 16).into()));
            reports.tasks(&world.state, NodeId(1), trimmed(all).unwrap(), waiter("flood", &tx));
            if round == 2 {
                let other = vec![report(1_000, TaskState::Running)];
                reports.tasks(&world.state, NodeId(2), other, waiter("other", &tx));
            }
        }
        assert!(reports.is_full());
        let mut flushes = 0;
        while let Some(flush) = reports.take() {
            assert!(rmp_serde::to_vec_named(&flush.txs).unwrap().len() < 4 * FLUSH_BYTES);
            flush.answer(|_| true);
            flushes += 1;
            if flushes == 4 {
                assert!(rx.try_iter().any(|(name, _)| name == "other"));
            }
        }
        assert!(flushes >= 4 && reports.is_empty() && !reports.is_full());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut long = report(1, TaskState::Failed);
        long.status.err = Some("ü".repeat(REPORT_TEXT_MAX).into());
        let cut = trimmed(vec![long]).unwrap();
        let err = cut[0].status.err.as_deref().unwrap();
        assert!(err.len() <= REPORT_TEXT_MAX && err.ends_with("ü…"));
    }

    #[test]
    fn the_longest_honest_batch_fits_an_entry_and_a_larger_one_is_refused() {
        let longest = |ports: usize| {
            let text: Arc<str> = "x".repeat(REPORT_TEXT_MAX).into();
            let mut report = report(1, TaskState::Failed);
            (report.status.message, report.status.err) = (Some(text.clone()), Some(text));
            let port = PortStatus { protocol: Default::default(), target_port: 65535, published_port: 65535 };
            report.status.ports = vec![port; ports].into();
            trimmed(vec![report; swarm_wire::agent::STATUS_BATCH_MAX])
        };
        let batch = longest(4).unwrap();
        let encoded: Vec<_> = batch.iter().map(|report| (report.task, &report.status)).collect();
        assert!(rmp_serde::to_vec_named(&encoded).unwrap().len() <= BATCH_BYTES_MAX);
        assert!(longest(10_000).is_err());
    }
}
