//! The running digest of what this manager has applied: the same at the same index on every manager.
//!
//! Each entry goes in with what became of its transactions and the objects that it changed, on top of the digest before
//! it. So a manager that once applied an entry in another way has another digest from then on. The digest begins anew
//! where the feature level of the swarm rises; what goes into it is the same for all programs of that level.

mod key;
mod objects;
mod structure;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use swarm_core::{Event, Outcome, State};

use self::{objects::Writer, structure::NoJson};

/// The first feature level that has a digest.
pub(crate) const DIGEST_LEVEL: u16 = 2;
/// Digests that are kept: two managers that are no further apart can compare theirs. 64 KiB.
const KEPT: usize = 4096;

/// A digest where a snapshot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// The feature level that it began with.
    pub level: u16,
    /// What it is.
    pub value: u128,
}

impl Sum {
    /// The digest of what begins with this entry, which raises the feature level or takes up a backup.
    pub(crate) fn begin(level: u16, index: u64) -> Option<Self> {
        let mut out = Writer::default();
        out.number(level.into());
        out.number(index);
        (level >= DIGEST_LEVEL).then(|| Self { level, value: out.finish() })
    }
}

/// The newest digests. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests(Arc<Mutex<Ring>>);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    /// None where there is no digest.
    level: Option<u16>,
    /// Index of the first that is kept.
    first: u64,
    values: VecDeque<u128>,
}

impl Digests {
    pub(crate) fn get(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a snapshot that ends at this index. One without a digest has none until the feature level rises.
    pub(crate) fn begin(&self, index: u64, sum: Option<Sum>) {
        *self.get() = sum.map_or_else(Ring::default, |sum| Ring {
            level: Some(sum.level),
            first: index,
            values: VecDeque::from([sum.value]),
        });
    }

    /// An entry was applied that changes no state.
    pub(crate) fn skip(&self, index: u64) {
        let mut ring = self.get();
        if let Some(mut out) = ring.next(index) {
            out.number(u64::MAX);
            ring.push(&out);
        }
    }

    /// An entry was applied, with this state as its result.
    pub(crate) fn advance(
        &self,
        before: &State,
        after: &State,
        outcomes: &[Outcome],
        events: &[Event],
    ) -> Result<(), NoJson> {
        let index = after.revision();
        if after.feature_level() > before.feature_level() {
            self.begin(index, Sum::begin(after.feature_level(), index));
            return Ok(());
        }
        let mut ring = self.get();
        if let Some(mut out) = ring.next(index) {
            objects::write(&mut out, after, outcomes, events)?;
            ring.push(&out);
        }
        Ok(())
    }
}

impl Ring {
    /// The feature level of the digests, and the index of the newest one.
    pub(crate) fn newest(&self) -> Option<(u16, u64)> {
        Some((self.level?, self.first + (self.values.len() as u64).checked_sub(1)?))
    }

    /// The digest at an index, if it is kept.
    pub(crate) fn at(&self, index: u64) -> Option<u128> {
        self.values.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }

    /// What another manager of this level is told that has come to this index: the digest there, or the newest one.
    pub(crate) fn answer(&self, level: u16, index: u64) -> Option<(u64, u128)> {
        let (own, newest) = self.newest()?;
        let index = index.min(newest);
        Some((index, self.at(index)?)).filter(|_| own == level)
    }

    /// The digest after the newest entry.
    pub(crate) fn sum(&self) -> Option<Sum> {
        Some(Sum { level: self.level?, value: *self.values.back()? })
    }

    /// What the digest of the next entry begins with; none where there are no digests.
    fn next(&self, index: u64) -> Option<Writer> {
        let mut out = Writer::default();
        out.digest(self.sum()?.value);
        out.number(index);
        Some(out)
    }

    fn push(&mut self, out: &Writer) {
        if self.values.len() == KEPT {
            self.values.pop_front();
            self.first += 1;
        }
        self.values.push_back(out.finish());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_core::{ENTRY_VERSION, Entry, NewTask, Op, Place, Refusal, Tx, apply};
    use swarm_model::{
        Cause, DesiredState, Id, ServiceId, ServiceMode, ServiceSpec, TaskId, TaskState, TaskStatus, Timestamp,
    };

    use super::*;

    /// A state and its digests.
    #[derive(Clone, Default)]
    struct World {
        state: State,
        digests: Digests,
    }

    impl World {
        fn entry(&mut self, txs: Vec<Tx>) -> Vec<Outcome> {
            let index = self.state.revision() + 1;
            let mut next = self.state.clone();
            let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(index as i64), txs };
            let (outcomes, events) = apply(&mut next, index, &entry);
            self.digests.advance(&self.state, &next, &outcomes, &events).unwrap();
            self.state = next;
            outcomes
        }

        fn op(&mut self, op: Op) {
            self.entry(vec![Tx::new(vec![op])]);
        }

        fn sum(&self) -> Option<Sum> {
            self.digests.get().sum()
        }

        fn fork(&self) -> Self {
            let digests = Digests::default();
            digests.begin(self.state.revision(), self.sum());
            Self { state: self.state.clone(), digests }
        }
    }

    const SERVICE: ServiceId = ServiceId(7);

    fn create(replicas: u64) -> Op {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.mode = ServiceMode::Replicated { replicas };
        spec.task_template.container_spec.image = "hello:1".into();
        Op::CreateService { service: SERVICE, spec: Arc::new(spec), registry_auth: None }
    }

    fn tasks(world: &World, count: u128) -> Op {
        let task = |n: u128| NewTask {
            id: TaskId::make(Timestamp::from_millis(1), n),
            slot: n as u32 + 1,
            place: Place::Pending("why".into()),
            addrs: Default::default(),
        };
        Op::CreateTasks {
            service: SERVICE,
            spec_version: world.state.service(SERVICE).unwrap().spec_version,
            desired: DesiredState::Running,
            cause: Cause::Fill,
            beside: None,
            start_at: None,
            restarts: 0,
            tasks: (0..count).map(task).collect(),
        }
    }

    fn world() -> World {
        let mut world = World::default();
        assert_eq!(world.sum(), None, "the first level has none");
        world.op(create(3));
        assert_eq!(world.sum(), None);
        world.op(Op::RaiseFeatureLevel { level: DIGEST_LEVEL });
        world
    }

    #[test]
    fn it_begins_where_the_level_rises_and_anew_at_the_next() {
        let mut first = world();
        assert_eq!(first.sum(), Sum::begin(DIGEST_LEVEL, first.state.revision()));
        first.op(Op::RemoveService { service: SERVICE });
        assert_eq!(first.digests.get().newest(), Some((DIGEST_LEVEL, 3)));
        // What came before does not matter: it was compared before, or there was nothing to compare.
        let mut other = World { state: first.state.clone(), digests: Digests::default() };
        other.digests.begin(first.state.revision(), Some(Sum { level: DIGEST_LEVEL, value: 1 }));
        assert_ne!(first.sum(), other.sum());
        for world in [&mut first, &mut other] {
            world.op(Op::RaiseFeatureLevel { level: DIGEST_LEVEL + 1 });
        }
        assert_eq!(first.sum(), other.sum());
    }

    #[test]
    fn every_difference_of_an_entry_shows_and_stays() {
        let same = world();
        let (mut same, mut again) = (same.fork(), same.fork());
        let mut others: Vec<World> = (0..4).map(|_| same.fork()).collect();
        for world in [&mut same, &mut again] {
            let tasks = tasks(world, 3);
            world.op(tasks);
        }
        assert_eq!(same.sum(), again.sum());
        let fewer = tasks(&others[0], 2);
        others[0].op(fewer);
        others[1].op(Op::RemoveService { service: SERVICE });
        others[2].entry(Vec::new());
        others[3].digests.skip(3);
        for other in &others {
            assert_ne!(other.sum(), same.sum());
        }
        // A state that is the same again still has another past.
        let id = TaskId::make(Timestamp::from_millis(1), 0);
        let end = |world: &mut World| {
            let status = TaskStatus::new(TaskState::Rejected, Timestamp::from_millis(4));
            world.op(Op::EndTasks { status, tasks: vec![id] });
        };
        end(&mut same);
        let before = again.sum();
        end(&mut again);
        assert_eq!(same.sum(), again.sum());
        assert_ne!(again.sum(), before);
        end(&mut others[0]);
        assert_ne!(others[0].sum(), same.sum());
    }

    #[test]
    fn every_part_of_a_named_object_counts() {
        use swarm_model::{Labels, ObjectContent, ObjectId, SecretContent, Templating};
        let create = |id, name: &str, label: &str, data: &str, templating| Op::CreateObject {
            id: ObjectId(id),
            name: name.into(),
            labels: Labels::from([("k".into(), label.into())]),
            content: Arc::new(ObjectContent::Secret(SecretContent {
                data: data.as_bytes().to_vec().into(),
                templating,
            })),
        };
        let sum = |op| {
            let mut world = world();
            world.op(op);
            world.sum()
        };
        let first = sum(create(1, "a", "b", "c", None));
        assert_eq!(first, sum(create(1, "a", "b", "c", None)));
        for other in [
            create(2, "a", "b", "c", None),
            create(1, "x", "b", "c", None),
            create(1, "a", "x", "c", None),
            create(1, "a", "b", "x", None),
            create(1, "a", "b", "c", Some(Templating::Golang)),
        ] {
            assert_ne!(first, sum(other));
        }
    }

    #[test]
    fn who_asked_for_a_revision_and_who_went_back_to_it_count() {
        use swarm_model::{Author, Principal};
        let by = |uid| Arc::new(Author::of(Principal::user(uid, Some("alice"))));
        let sum = |made: u32, restored: u32| {
            let mut world = World::default();
            world.op(Op::RaiseFeatureLevel { level: DIGEST_LEVEL });
            world.entry(vec![Tx::new(vec![create(3)]).by(by(made))]);
            let found = world.state.service(SERVICE).unwrap().clone();
            let spec = ServiceSpec { labels: [("a".into(), "b".into())].into(), ..ServiceSpec::clone(&found.spec) };
            world.op(Op::update_service(&world.state, &found, Arc::new(spec), None));
            let back = Op::RollBack { service: SERVICE, keep_previous: true, message: "x".into(), to: None };
            assert_eq!(world.entry(vec![Tx::new(vec![back]).by(by(restored))]), [Ok(())]);
            world.sum()
        };
        assert_eq!(sum(1, 2), sum(1, 2));
        assert_ne!(sum(1, 2), sum(3, 2));
        assert_ne!(sum(1, 2), sum(1, 3));
    }

    #[test]
    fn what_became_of_a_transaction_counts() {
        let world = world();
        let (before, mut after) = (world.state.clone(), world.state.clone());
        let (_, events) = apply(&mut after, 3, &Entry { v: 1, at: Timestamp(1), txs: vec![] });
        let sum = |outcomes: &[Outcome]| {
            let world = world.fork();
            world.digests.advance(&before, &after, outcomes, &events).unwrap();
            world.sum()
        };
        let stale = |text: &str| Err(Refusal::Stale(text.to_owned()));
        assert_ne!(sum(&[Ok(())]), sum(&[stale("a")]));
        assert_eq!(sum(&[stale("a")]), sum(&[stale("b")]), "words are not agreed on");
        assert_ne!(sum(&[stale("a")]), sum(&[Err(Refusal::OutOfSequence)]));
    }

    #[test]
    fn the_newest_are_kept_and_answered() {
        let mut world = world();
        for _ in 0..KEPT + 10 {
            world.entry(Vec::new());
        }
        let ring = world.digests.get();
        let (level, newest) = ring.newest().unwrap();
        assert_eq!((level, newest), (DIGEST_LEVEL, KEPT as u64 + 12));
        assert_eq!(ring.answer(level, newest + 100), Some((newest, ring.at(newest).unwrap())));
        assert_eq!(ring.answer(level, newest - 5).unwrap().0, newest - 5);
        assert_eq!(ring.answer(level, newest - KEPT as u64), None, "it is not kept any more");
        assert_eq!(ring.answer(level + 1, newest), None);
        assert_eq!(Ring::default().answer(level, newest), None);
    }
}
