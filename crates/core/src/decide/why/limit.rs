//! What `swarmd.max-unavailable` keeps from going, with the numbers.

use std::{collections::BTreeMap, sync::Arc};

use swarm_model::{MaxUnavailable, Service, Settings, Task, Timestamp};

use crate::{
    Dirty, Op, Place as NewPlace, State, Tx,
    apply::apply_tx,
    decide::{
        Context, Planner,
        budget::{self, Budget},
        decide,
        slots::{Place, Slot},
    },
};

/// The label that holds a limit.
const LABEL: &str = "swarmd.max-unavailable";

/// The limit of a service that is used up: no more of its tasks may be taken away now.
pub(super) struct Limit {
    budget: Budget,
    setting: String,
    /// How many may be away.
    allowed: u64,
    /// Places that are wanted, and those of them that serve.
    wanted: u64,
    serving: u64,
}

impl Limit {
    /// None if there is no limit, or more may go. The budget says so itself.
    pub(super) fn used_up(
        state: &State,
        service: &Service,
        places: &BTreeMap<Place, Slot>,
        now: Timestamp,
    ) -> Option<Self> {
        let limit = Settings::of(&service.spec.labels).max_unavailable?;
        let serves = |slot: &&Slot| slot.live().any(|task| state.serves(task));
        // What has run for a moment may count for nothing yet; anything else that serves tells whether one more may go.
        let counts = |task: &Arc<Task>| state.serves(task) && budget::is_proven(task);
        let probe = places.values().find(|slot| slot.live().any(counts)).or_else(|| places.values().find(serves))?;
        let mut budget = Budget::of(&mut Planner::new(state, &Context::at(now, 0)), service);
        if budget.take(state, probe, |_| true) {
            return None;
        }
        let wanted = service.spec.replicas().unwrap_or(places.len() as u64);
        let setting = match limit {
            MaxUnavailable::Tasks(tasks) => format!("{LABEL}={tasks}"),
            MaxUnavailable::Percent(percent) => format!("{LABEL}={percent}%"),
        };
        let serving = places.values().filter(serves).count() as u64;
        Some(Self { budget, setting, allowed: limit.of(wanted), wanted, serving })
    }

    /// Whether it keeps these tasks.
    pub(super) fn keeps(&mut self, state: &State, slot: &Slot) -> bool {
        !self.budget.take(state, slot, |_| true)
    }

    /// `5 of 6 tasks run, and swarmd.max-unavailable=1 lets no more than 1 be away`.
    pub(super) fn explain(&self) -> String {
        format!("{} of {} tasks run, {}and {}", self.serving, self.wanted, self.recent(), self.rule())
    }

    /// The same beside the number of those that run.
    pub(super) fn in_short(&self) -> String {
        match self.recent() {
            "" => self.rule(),
            recent => format!("{recent}and {}", self.rule()),
        }
    }

    fn rule(&self) -> String {
        format!("{} lets no more than {} be away", self.setting, self.allowed)
    }

    /// What an update or a restart made counts only after a while.
    fn recent(&self) -> &'static str {
        if self.wanted.saturating_sub(self.serving) < self.allowed { "some only since a moment, " } else { "" }
    }

    /// A higher limit, if with it one of these tasks goes: the leader would decide so at once.
    pub(super) fn fix(&self, state: &State, service: &Service, kept: &[&Task], now: Timestamp) -> Option<String> {
        let more = self.allowed.max(self.wanted.saturating_sub(self.serving)).saturating_add(1);
        let mut spec = (*service.spec).clone();
        spec.labels.insert(LABEL.to_owned(), more.to_string());
        let change = Op::update_service(state, service, Arc::new(spec), None);
        let mut changed = state.clone();
        apply_tx(&mut changed, &Tx::new(vec![change]), &mut Vec::new()).ok()?;
        let dirty = Dirty { services: [service.id].into(), ..Dirty::default() };
        let plan = decide(&changed, &dirty, &Context::at(now, 0));
        let goes = |op: &Op| match op {
            Op::SetDesired { desired, tasks } => !desired.is_live() && kept.iter().any(|task| tasks.contains(&task.id)),
            Op::CreateTasks { tasks, .. } => tasks.iter().any(|new| match new.place {
                NewPlace::On(node) if new.slot == 0 => kept.iter().any(|task| task.node == Some(node)),
                NewPlace::On(_) => kept.iter().any(|task| task.slot == new.slot),
                _ => false,
            }),
            _ => false,
        };
        plan.txs.iter().flat_map(|tx| &tx.ops).any(goes).then(|| {
            format!(
                "`swarmctl service update --label-add {LABEL}={more} {}` lets more tasks be away",
                service.spec.name
            )
        })
    }
}
